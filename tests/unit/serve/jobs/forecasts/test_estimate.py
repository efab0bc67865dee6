"""The time left is right within a fifth after a quarter of the work, for step times as recorded.

The times of GPUs are those of docs/performance.md and of models that are compiled at their first
step; those of the demo are from two CPU cores.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from serve.jobs.forecasts.estimate import Estimate
from serve.jobs.forecasts.pace import Pace, Work
from serve.pipelines.requests import GenerateVideo, SwapVideo
from tests.unit.serve.jobs.exact_video import VIDEO

FACE = [b"face"]


@dataclass
class Recording:
    """The steps of a job: the seconds of each denoise step and of each chunk, first to last."""

    denoising: Sequence[float]
    chunks: Sequence[float]
    face: bool = False

    @property
    def work(self) -> Work:
        """The work of the request."""
        frames = 1 + 4 * (len(self.chunks) - 1)
        fields = {**VIDEO, "num_frames": frames, "steps": len(self.denoising), "width": 832, "height": 480}
        return Work.of(GenerateVideo(**fields, face=FACE if self.face else None))

    def play(self, pace: Pace) -> list[tuple[float, float | None, float]]:
        """Play the job with what ``pace`` knows, and let it learn.

        Return, for each step, the share of the time that is over, the estimated time left and the
        true one.
        """
        last = "swapping" if self.face else "decoding"
        estimate = Estimate(self.work, {stage: pace.of("wan26", stage) for stage in self.work.units}, 0)
        total, now = sum(self.denoising) + sum(self.chunks), 0.0
        seen = []
        for step, seconds in enumerate(self.denoising, 1):
            now += seconds
            estimate.reach("denoising", step / len(self.denoising), now)
            seen.append((now / total, estimate.left_s(), total - now))
        for chunk, seconds in enumerate(self.chunks, 1):
            now += seconds
            estimate.reach(last, chunk / len(self.chunks), now)
            seen.append((now / total, estimate.left_s(), total - now))
        for stage, units in self.work.units.items():
            pace.learn("wan26", stage, seconds=estimate.measured_s(stage, now), units=units)
        return seen


def noisy(seconds: float, count: int, spread: float = 0.05) -> list[float]:
    """Return times of ``count`` steps, each up to ``spread`` longer or shorter."""
    chance = random.Random(7)
    return [seconds * (1 + chance.uniform(-spread, spread)) for _ in range(count)]


H100 = Recording(denoising=noisy(0.368, 30), chunks=[0.028, *noisy(0.093, 8)])
COMPILED = Recording(denoising=[9.5, *noisy(0.27, 29)], chunks=[0.03, *noisy(0.093, 8)])
A14B = Recording(denoising=noisy(2.15, 30), chunks=[0.03, *noisy(0.1, 8)])
DEMO = Recording(denoising=noisy(0.62, 12), chunks=[0.55, *noisy(1.65, 4)])
SWAPPED = Recording(denoising=noisy(0.368, 30), chunks=[0.4, *noisy(0.21, 8)], face=True)
SLOWER = Recording(denoising=noisy(0.9, 30), chunks=[0.07, *noisy(0.23, 8)])
LONG = Recording(denoising=noisy(1.26, 30), chunks=[0.028, *noisy(0.093, 20)])


@pytest.mark.parametrize(
    ("before", "job"),
    [
        ([H100], H100),
        ([A14B], A14B),
        ([DEMO], DEMO),
        ([SWAPPED], SWAPPED),
        ([COMPILED], H100),  # nothing is compiled again, and what compiling took is not expected again
        ([H100], COMPILED),  # a new size is compiled: the first step says nothing of the others
        ([H100], SLOWER),  # a slower GPU
        ([SLOWER], H100),
        ([H100], LONG),  # three times the tokens, which attention feels more than in proportion
        ([H100, DEMO, H100, H100, H100, H100], H100),  # what was odd is forgotten
        ([], H100),  # the first job of a Runner
        ([], A14B),
        ([], COMPILED),
    ],
    ids=[
        "steady", "14B", "demo", "swapped", "after compilation", "compiled", "slower", "faster", "long", "odd one before",
        "first", "first 14B", "first compiled",
    ],
)  # fmt: skip
def test_the_time_left_is_right_within_a_fifth_after_a_quarter_of_the_work(before: list[Recording], job: Recording) -> None:
    pace = Pace()
    for earlier in before:
        earlier.play(pace)
    until = 0.9 if before else 0.7  # nothing tells how long the first video will be decoded
    judged = [(over, left, true) for over, left, true in job.play(pace) if 0.25 <= over <= until]
    assert len(judged) > 3
    # The first step of a job that is compiled is most of its time, and tells nothing of the others.
    for over, left, true in judged[2 if job is COMPILED else 0 :]:
        assert left is not None
        assert left == pytest.approx(true, rel=0.2, abs=0.1), f"at {over:.0%}: {left:.2f} s instead of {true:.2f} s"


def test_a_film_needs_no_earlier_one() -> None:
    frames, chunk_s, now = 240, 0.31, 2.5
    estimate = Estimate(Work.of(SwapVideo(source=b"film", face=FACE), frames), {"swapping": None}, 0)
    for done in range(4, frames + 1, 4):
        estimate.reach("swapping", done / frames, now)
        left = (frames - done) / 4 * chunk_s
        if done >= frames / 4:
            assert estimate.left_s() == pytest.approx(left, rel=0.2, abs=0.1)
        now += chunk_s


def test_the_share_that_is_done_is_that_of_the_time_and_never_falls() -> None:
    pace = Pace()
    DEMO.play(pace)
    estimate = Estimate(DEMO.work, {stage: pace.of("wan26", stage) for stage in DEMO.work.units}, 0)
    seen, now = [estimate.done()], 0.0
    for step in range(1, 13):
        estimate.reach("denoising", step / 12, now := now + 0.62)
        seen.append(estimate.done())
    assert seen[-1] == pytest.approx(7.44 / (7.44 + 7.15), abs=0.03)  # half of the time, though decoding is one step of many
    for chunk in range(1, 6):
        estimate.reach("decoding", chunk / 5, now := now + 1.6)
        seen.append(estimate.done())
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)


def test_nothing_is_estimated_before_the_first_step() -> None:
    estimate = Estimate(DEMO.work, {"denoising": None, "decoding": None}, 0)
    estimate.begin(100)
    assert (estimate.left_s(), estimate.done()) == (None, 0)
    estimate.reach("denoising", 1 / 12, 101)
    left = estimate.left_s()
    assert left is not None
    assert 11 <= left < 20  # the time in the queue counts for nothing
