"""FaceSwapper around an engine that finds and swaps nothing real."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deployments.faces.engine
from deployments import hardware
from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.face_swapper import FaceSwapper
from deployments.settings import AlignmentFaceModels, FaceModels, FaceSettings
from deployments.wire import Face, FrameChunk, Frames, Image, Reference, SwapOptions
from tests.unit.deployments.faces.fake_faces import face

PRODUCTION = FaceModels(analysis=Path("buffalo_l"), swapper=Path("inswapper_128.onnx"))
ALIGNMENT = AlignmentFaceModels(detector=Path("yunet.onnx"), recogniser=Path("sface.onnx"))
FRAMES = np.zeros((2, 32, 32, 3), np.uint8)


class FakeEngine:
    """Finds two faces in each frame and makes every swapped frame white."""

    name = "fake"

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.analysed: list[int] = []

    def restorer(self, options: SwapOptions) -> str:
        return "gfpgan" if options.restore else "none"

    def identify(self, images: Sequence[Image], field: str, check: Callable[[], None]) -> Reference:
        if not images:
            raise NoFaceFound(field, "no face found")
        return Reference(images[0], face(10))

    def analyse(self, frames: Frames, check: Callable[[], None]) -> list[list[Face]]:
        self.analysed.append(len(frames))
        return [[face(10), face(20)] for _ in frames]

    def swap(
        self,
        frames: Frames,
        faces: Sequence[Sequence[Face]],
        reference: Reference,
        options: SwapOptions,
        check: Callable[[], None],
    ) -> Frames:
        if reference.seconds < 0:  # a slow engine, for the test of cancellation
            try:
                while True:
                    threading.Event().wait(0.01)
                    check()
            finally:
                self.cancelled.set()
        return np.full_like(frames, 255)


class Replica:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.published: list[str] = []
        self.built: list[tuple[Any, bool]] = []
        self.engine = FakeEngine()
        monkeypatch.setattr(hardware, "publish", self.published.append)
        monkeypatch.setattr(deployments.faces.engine, "build_face_engine", self._build)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def _build(self, settings: FaceSettings, models: Any, use_cuda: bool) -> FakeEngine:
        self.built.append((models, use_cuda))
        return self.engine

    def start(self, settings: FaceSettings, models: Any) -> Any:
        deployment: Any = FaceSwapper
        return deployment.func_or_class(settings, models)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Replica:
    return Replica(monkeypatch)


def test_models_may_be_given_or_made_by_the_replica(replica: Replica) -> None:
    replica.start(FaceSettings(), PRODUCTION)
    replica.start(FaceSettings(), lambda: ALIGNMENT)
    assert replica.built == [(PRODUCTION, False), (ALIGNMENT, False)]
    assert replica.published == ["CPU", "CPU"]


def test_production_models_use_the_gpu_that_ray_gave_the_replica(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    replica.start(FaceSettings(), PRODUCTION)
    replica.start(FaceSettings(device="cpu"), PRODUCTION)
    replica.start(FaceSettings(), ALIGNMENT)
    assert [use_cuda for _, use_cuda in replica.built] == [True, False, False]
    assert replica.published == ["CUDA", "CPU", "CPU"]


def test_a_replica_that_must_have_a_gpu_does_not_start_without_one(replica: Replica) -> None:
    with pytest.raises(CheckpointRefused, match="no GPU"):
        replica.start(FaceSettings(device="cuda"), PRODUCTION)
    assert not replica.built
    assert not replica.published


async def test_calls_return_the_engines_results_with_their_times(replica: Replica) -> None:
    swapper = replica.start(FaceSettings(), PRODUCTION)
    await swapper.warm()
    reference = await swapper.identify([FRAMES[0]], "reference_image")
    assert reference.seconds > 0
    analysis = await swapper.analyse(FRAMES)
    assert [len(faces) for faces in analysis.faces] == [2, 2]
    assert analysis.engine == "fake"
    assert analysis.seconds > 0
    for options, restorer in ((SwapOptions(), "gfpgan"), (SwapOptions(restore=False), "none")):
        swapped = await swapper.swap(FrameChunk(8, FRAMES), faces=analysis.faces, reference=reference, options=options)
        assert (swapped.index, swapped.restorer, int(swapped.frames.min())) == (8, restorer, 255)
        assert swapped.seconds > 0
    swapper.check_health()


async def test_a_refusal_names_the_field_of_the_request(replica: Replica) -> None:
    swapper = replica.start(FaceSettings(), PRODUCTION)
    with pytest.raises(NoFaceFound) as refused:
        await swapper.identify([], "target_face")
    assert refused.value.field == "target_face"


async def test_a_cancelled_call_stops_the_engine(replica: Replica) -> None:
    swapper = replica.start(FaceSettings(), PRODUCTION)
    slow = Reference(FRAMES[0], face(10), seconds=-1)
    task = asyncio.create_task(swapper.swap(FrameChunk(0, FRAMES), faces=(), reference=slow, options=SwapOptions()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert replica.engine.cancelled.is_set()


async def test_a_picture_does_not_wait_for_chunks_of_films(replica: Replica) -> None:
    swapper = replica.start(FaceSettings(), PRODUCTION)
    slow = Reference(FRAMES[0], face(10), seconds=-1)
    running = asyncio.create_task(swapper.swap(FrameChunk(0, FRAMES), faces=(), reference=slow, options=SwapOptions()))
    film = asyncio.create_task(swapper.analyse(FRAMES))
    await asyncio.sleep(0)
    await asyncio.wait_for(swapper.analyse(FRAMES[:1]), 60)
    assert replica.engine.analysed == [1]
    running.cancel()
    await film
    assert replica.engine.analysed == [1, 2]
