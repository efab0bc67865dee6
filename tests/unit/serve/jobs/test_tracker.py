from typing import Any

import numpy as np
import pytest

from deployments.wire import Image
from deployments.wire import Progress as ModelProgress
from serve.jobs.forecasts.pace import Pace
from serve.jobs.store.record import Progress
from serve.jobs.tracker import Tracker
from serve.pipelines.context import ChunkStep, FrameCount
from serve.pipelines.requests import GenerateVideo, SwapVideo
from tests.unit.serve.jobs.exact_video import VIDEO

FACE = [b"face"]
FRAME: Image = np.zeros((4, 4, 3), np.uint8)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A tracker and everything that it reported."""

    def __init__(self, request: Any, pace: Pace | None = None) -> None:
        self.clock = Clock()
        self.seen: list[Progress] = []
        self.frames: list[Image] = []
        self.pace = pace or Pace()
        self.tracker = Tracker(
            request, "wan26", self.pace, changed=self.seen.append, on_frame=self.frames.append, clock=self.clock
        )

    def run_video(self, *, step_s: float, decode_s: float, swaps: bool = False) -> None:
        """Send the steps of a whole video of 9 frames and 4 denoise steps."""
        observe = self.tracker.observe
        observe(ModelProgress("start", 1, 1))
        observe(ModelProgress("encode", 0, 1))
        for step in range(4):
            self.clock.now += step_s
            observe(ModelProgress("denoise", step + 1, 4))
        for index in (0, 1, 5):
            self.clock.now += decode_s
            observe(ChunkStep("decoded", index, FRAME))
        if swaps:
            for index in (0, 1, 5):
                observe(ChunkStep("swapped", index, FRAME))
                observe(ChunkStep("encoded", index))
        self.tracker.finished()
        self.tracker.writing()


def video(**fields: Any) -> GenerateVideo:
    """Return a request for 9 frames in 4 steps."""
    return GenerateVideo(**{**VIDEO, "steps": 4, **fields})


@pytest.mark.parametrize("swaps", [False, True])
def test_a_video_passes_its_stages_in_order_and_its_percent_never_falls(swaps: bool) -> None:
    watched = Watched(video(face=FACE) if swaps else video())
    watched.run_video(step_s=2, decode_s=1, swaps=swaps)
    stages = list(dict.fromkeys(progress.stage for progress in watched.seen))
    between = "swapping" if swaps else "decoding"
    assert stages == ["encoding", "denoising", between, "writing"]
    percents = [progress.percent for progress in watched.seen]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] == 99  # the rest comes with the result
    assert all(progress.eta_s is None or progress.eta_s >= 0 for progress in watched.seen)


def test_every_denoise_step_and_every_chunk_is_reported() -> None:
    watched = Watched(video())
    watched.run_video(step_s=2, decode_s=1)
    steps = [(progress.stage, progress.step, progress.steps) for progress in watched.seen]
    assert [entry for entry in steps if entry[0] == "denoising"] == [("denoising", i, 4) for i in (1, 2, 3, 4)]
    assert [entry for entry in steps if entry[0] == "decoding"] == [("decoding", i, 9) for i in (1, 5, 9)]


def test_the_time_left_is_right_once_the_pace_is_known() -> None:
    pace = Pace()
    Watched(video(), pace).run_video(step_s=2, decode_s=1)
    watched = Watched(video(), pace)
    watched.run_video(step_s=2, decode_s=1)
    first = next(progress for progress in watched.seen if progress.stage == "denoising")
    assert first.eta_s == pytest.approx(9, abs=0.5)  # three steps of 2 s and three chunks of 1 s
    last = [progress for progress in watched.seen if progress.stage == "decoding"][1]
    assert last.eta_s == pytest.approx(1, abs=0.5)


def test_a_job_that_is_slower_than_those_before_corrects_the_estimate() -> None:
    pace = Pace()
    Watched(video(), pace).run_video(step_s=1, decode_s=0.5)
    watched = Watched(video(), pace)
    watched.run_video(step_s=4, decode_s=2)  # four times as slow
    third = [progress for progress in watched.seen if progress.stage == "denoising"][2]
    assert third.eta_s is not None
    assert third.eta_s > 6  # 10 s are left; by the pace of before it would be 2.5 s


def test_the_time_in_the_queue_counts_for_nothing() -> None:
    watched = Watched(video())
    watched.clock.now += 1000
    watched.run_video(step_s=2, decode_s=1)
    first = next(progress for progress in watched.seen if progress.stage == "denoising")
    assert first.eta_s is not None
    assert first.eta_s < 60


def test_a_film_counts_its_frames_once_it_is_opened() -> None:
    watched = Watched(SwapVideo(source=b"film", face=FACE))
    watched.tracker.observe(FrameCount(10))
    for index in (0, 4, 8):
        watched.clock.now += 1
        watched.tracker.observe(ChunkStep("decoded", index))
        watched.tracker.observe(ChunkStep("swapped", index, FRAME))
        watched.tracker.observe(ChunkStep("encoded", index))
    assert [(progress.stage, progress.step, progress.steps) for progress in watched.seen] == [
        ("swapping", 4, 10),
        ("swapping", 8, 10),
        ("swapping", 10, 10),
    ]
    assert [progress.percent for progress in watched.seen] == [40, 80, 99]
    assert watched.seen[0].eta_s == pytest.approx(1.5)
    assert len(watched.frames) == 3


def test_a_model_that_starts_says_what_it_does_until_it_has_begun() -> None:
    watched = Watched(video())
    watched.tracker.starting("wan26 is starting")
    watched.tracker.starting("wan26 is starting")
    watched.tracker.observe(ModelProgress("encode", 0, 1))
    watched.tracker.starting("too late")
    assert [(progress.stage, progress.detail) for progress in watched.seen] == [
        ("starting", "wan26 is starting"),
        ("encoding", ""),
    ]


def test_a_preview_is_announced_once_for_all_with_the_same_marks_and_stays() -> None:
    watched = Watched(video())
    watched.tracker.observe(ChunkStep("decoded", 0, FRAME))
    for marks in ("metadata, watermark=failed", "metadata, watermark", "metadata, watermark"):
        watched.tracker.preview_ready(marks)
    watched.tracker.observe(ChunkStep("decoded", 1, FRAME))
    assert [(progress.preview, progress.preview_marks) for progress in watched.seen] == [
        (False, ""),
        (True, "metadata, watermark=failed"),
        (True, "metadata, watermark"),
        (True, "metadata, watermark"),
    ]
