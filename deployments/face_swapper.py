"""FaceSwapper: detect, identify, swap, restore, paste. Stateless: what belongs to a video travels with its chunks."""

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ray import serve

from deployments import hardware
from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.settings import FaceModels, FaceSettings
from deployments.turns import Stop, Turns
from deployments.wire import FrameChunk, Image, Reference, SwapOptions, SwappedChunk

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
    """A Ray Serve deployment; the models are loaded when a replica starts. One picture at a time goes through the engine.

    ``models`` None: the demo's engines (YuNet, SFace, swap by alignment).
    """

    def __init__(self, settings: FaceSettings, models: FaceModels | None) -> None:
        import cv2

        from deployments.faces.engine import build_face_engine

        cv2.setNumThreads(settings.threads or len(os.sched_getaffinity(0)))
        if models is None:
            self._engine = build_demo_engine(settings)
        else:
            self._engine = build_face_engine(settings, models, _use_cuda(settings))
        self._turns = Turns(1, settings.stall_timeout_s)
        hardware.publish("CUDA" if models is not None and _use_cuda(settings) else "CPU")

    async def identify(self, image: Image, field: str) -> Reference:
        """The largest face in ``image``; raises NoFaceFound, naming the request's ``field``."""

        def work(_: Stop) -> Reference:
            start = time.perf_counter()
            reference = self._engine.identify(image, field)
            return replace(reference, seconds=time.perf_counter() - start)

        return await self._turns.run(work)

    async def swap_image(self, image: Image, reference: Reference, options: SwapOptions, field: str) -> SwappedChunk:
        """One picture, as a chunk of one frame; raises NoFaceFound, naming ``field``, if it shows no face."""
        chunk = await self.swap(FrameChunk(0, image[None]), reference, options)
        if not chunk.swapped[0]:
            raise NoFaceFound(field, "no face found to be replaced; send a picture that shows one")
        return chunk

    async def swap(self, chunk: FrameChunk, reference: Reference, options: SwapOptions) -> SwappedChunk:
        """A chunk with the largest face of each frame swapped; frames without a face come back unchanged."""

        def work(stop: Stop) -> SwappedChunk:
            start = time.perf_counter()
            frames, faces = [], []
            for frame in chunk.frames:
                stop.check()
                swapped, found = self._engine.swap(frame, reference, options)
                frames.append(swapped)
                faces.append(found)
            return SwappedChunk(
                index=chunk.index,
                frames=np.stack(frames),
                faces=tuple(faces),
                swapped=tuple(found > 0 for found in faces),
                seconds=time.perf_counter() - start,
                engine=self._engine.name,
                restorer=self._engine.restorer(options) if any(faces) else "none",
            )

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
