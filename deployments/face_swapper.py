"""The face deployment, which finds the faces in frames and swaps, restores and pastes them.

It keeps no state between calls; the request itself follows people through a video.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ray import serve

from deployments import hardware
from deployments.engine_threads import CancelFlag, EngineThreads
from deployments.errors import CheckpointRefused
from deployments.replica.start import starting
from deployments.settings import AlignmentFaceModels, FaceModels, FaceSettings
from deployments.telemetry import metrics, tracing
from deployments.telemetry.origin import NOWHERE, Origin, working_for
from deployments.wire import Analysis, Face, FrameChunk, Frames, Image, Reference, References, SwapOptions, SwappedChunk

Models = FaceModels | AlignmentFaceModels
T = TypeVar("T")
NAME = "face-swapper"
"""The model's name in the API."""


@serve.deployment(
    name="FaceSwapper",
    # More than the calls of four films: they wait here, where a picture can go before them.
    max_ongoing_requests=32,
    max_queued_requests=256,
    graceful_shutdown_timeout_s=300,
    health_check_period_s=10,
    health_check_timeout_s=30,
)
class FaceSwapper:
    """The Ray Serve deployment; each replica loads the models when it starts.

    ``models`` may be a function, which the replica calls: it can then prepare files on its own
    machine. At most ``settings.concurrency`` calls run in the engine at the same time, and one more
    for a single frame; those go before chunks of videos, too: the caller of a picture waits for
    nothing else.
    """

    def __init__(self, settings: FaceSettings, models: Models | Callable[[], Models]) -> None:
        import cv2

        from deployments.faces.engine import build_face_engine

        cv2.setNumThreads(settings.threads or len(os.sched_getaffinity(0)))
        models = models() if callable(models) else models
        # The swap by alignment has no models for a GPU.
        use_cuda = _use_cuda(settings) if isinstance(models, FaceModels) else False
        with starting(NAME, models):
            self._engine = build_face_engine(settings, models, use_cuda=use_cuda)
        self._threads = EngineThreads(settings.concurrency, settings.stall_timeout_s, urgent=1)
        hardware.publish("CUDA" if use_cuda else "CPU")

    async def identify(self, images: Sequence[Image], field: str, origin: Origin = NOWHERE) -> Reference:
        """Return the identity of the largest face in each of ``images``, averaged.

        Raises NoFaceFound for ``field``, the field of the request that the images came in.
        """

        def work(cancel: CancelFlag) -> Reference:
            start = time.perf_counter()
            reference = self._engine.identify(images, field, cancel.check)
            return replace(reference, seconds=time.perf_counter() - start)

        reference = await self._run("identify", work, origin, urgent=True)
        metrics.FACES_FOUND.add(len(images))
        return reference

    async def analyse(self, frames: Frames, origin: Origin = NOWHERE) -> Analysis:
        """Return the faces in each frame, the largest first."""

        def work(cancel: CancelFlag) -> Analysis:
            start = time.perf_counter()
            faces = self._engine.analyse(frames, cancel.check)
            return Analysis(tuple(tuple(frame_faces) for frame_faces in faces), time.perf_counter() - start, self._engine.name)

        analysis = await self._run("analyse", work, origin, urgent=len(frames) == 1)
        metrics.FACES_FOUND.add(sum(map(len, analysis.faces)))
        return analysis

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        reference: References,
        options: SwapOptions,
        origin: Origin = NOWHERE,
    ) -> SwappedChunk:
        """Return the chunk with the references' faces in place of ``faces``, given per frame."""

        def work(cancel: CancelFlag) -> SwappedChunk:
            start = time.perf_counter()
            frames = self._engine.swap(chunk.frames, faces, reference=reference, options=options, check=cancel.check)
            return SwappedChunk(
                index=chunk.index,
                frames=frames,
                seconds=time.perf_counter() - start,
                restorer=self._engine.restorer(options),
            )

        swapped = await self._run("swap", work, origin, urgent=len(chunk.frames) == 1)
        metrics.FACES_SWAPPED.add(sum(map(len, faces)))
        return swapped

    async def _run(self, name: str, work: Callable[[CancelFlag], T], origin: Origin, *, urgent: bool) -> T:
        with working_for(origin), tracing.span(f"{NAME} {name}", kind="server"):
            return await self._threads.run(work, urgent=urgent)

    async def warm(self) -> None:
        """Do nothing: the call alone makes Serve start a replica."""

    def check_health(self) -> None:
        """Raise if the engine is stalled or broken; Serve then replaces the replica."""
        self._threads.check_health()


def _use_cuda(settings: FaceSettings) -> bool:
    """Return whether the sessions must run on a GPU.

    They must if the settings require it, or if the device is `auto` and Ray gave the replica a GPU.
    """
    has_gpu = bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if settings.device == "cuda" and not has_gpu:
        raise CheckpointRefused("device is `cuda`, but Ray gave this replica no GPU; set `num_gpus`, or `device: cpu`")
    return settings.device == "cuda" or (settings.device == "auto" and has_gpu)
