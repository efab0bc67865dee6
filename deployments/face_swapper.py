"""FaceSwapper: detect, identify, swap, restore, paste. Stateless: who is followed through a video, the request itself knows."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ray import serve

from deployments import hardware
from deployments.errors import CheckpointRefused
from deployments.settings import FaceModels, FaceSettings
from deployments.turns import Stop, Turns
from deployments.wire import Analysis, Face, FrameChunk, Frames, Image, Reference, SwapOptions, SwappedChunk

if TYPE_CHECKING:
    from deployments.faces.engine import FaceEngine


@serve.deployment(
    name="FaceSwapper",
    max_ongoing_requests=8,
    max_queued_requests=256,
    graceful_shutdown_timeout_s=300,
    health_check_period_s=10,
    health_check_timeout_s=30,
)
class FaceSwapper:
    """A Ray Serve deployment; the models are loaded when a replica starts. ``concurrency`` calls at a time go through the engine.

    ``models`` None: the demo's engines (YuNet, SFace, swap by alignment).
    """

    def __init__(self, settings: FaceSettings, models: FaceModels | None) -> None:
        import cv2

        from deployments.faces.engine import build_face_engine

        cv2.setNumThreads(settings.threads or len(os.sched_getaffinity(0)))
        if models is None:
            if settings.device == "cuda":
                raise CheckpointRefused(
                    "the demo's face engine runs on the CPU; set `device: auto`, or configure `models.faces`"
                )
            self._engine = build_demo_engine(settings)
        else:
            self._engine = build_face_engine(settings, models, _use_cuda(settings))
        self._turns = Turns(settings.concurrency, settings.stall_timeout_s)
        hardware.publish("CUDA" if models is not None and _use_cuda(settings) else "CPU")

    async def identify(self, images: Sequence[Image], field: str) -> Reference:
        """The person that ``images`` show, by the largest face in each; raises NoFaceFound, naming the request's ``field``."""

        def work(stop: Stop) -> Reference:
            start = time.perf_counter()
            reference = self._engine.identify(images, field, stop.check)
            return replace(reference, seconds=time.perf_counter() - start)

        return await self._turns.run(work)

    async def analyse(self, frames: Frames) -> Analysis:
        """The faces in each frame, the largest first."""

        def work(stop: Stop) -> Analysis:
            start = time.perf_counter()
            faces = self._engine.analyse(frames, stop.check)
            return Analysis(tuple(tuple(some) for some in faces), time.perf_counter() - start, self._engine.name)

        return await self._turns.run(work)

    async def swap(
        self, chunk: FrameChunk, faces: tuple[tuple[Face, ...], ...], reference: Reference, options: SwapOptions
    ) -> SwappedChunk:
        """The chunk with those ``faces``, given for each of its frames, replaced by the reference's."""

        def work(stop: Stop) -> SwappedChunk:
            start = time.perf_counter()
            frames = self._engine.swap(chunk.frames, faces, reference, options, stop.check)
            return SwappedChunk(chunk.index, frames, time.perf_counter() - start, self._engine.restorer(options))

        return await self._turns.run(work)

    async def warm(self) -> None:
        """Does nothing: being called brings a replica up."""

    def check_health(self) -> None:
        """Raises if the engine has stalled; Serve then replaces the replica."""
        self._turns.check_health()


def build_demo_engine(settings: FaceSettings) -> "FaceEngine":
    """The demo's engine: YuNet, SFace and the swap by alignment."""
    from demo.face_models import ensure_face_models
    from deployments.faces.analysis import OpenCVAnalyser
    from deployments.faces.engine import FaceEngine
    from deployments.faces.swap import AlignmentSwapper

    models = ensure_face_models()
    return FaceEngine(OpenCVAnalyser(models.detector, models.recogniser, settings), AlignmentSwapper(), None)


def _use_cuda(settings: FaceSettings) -> bool:
    """Whether the sessions must run on a GPU: where Ray gave the replica one, or the settings insist."""
    given = bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if settings.device == "cuda" and not given:
        raise CheckpointRefused("device is `cuda`, but Ray gave this replica no GPU; set num_gpus or `device: cpu`")
    return settings.device == "cuda" or (settings.device == "auto" and given)
