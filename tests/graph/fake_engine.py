"""A second application for the tests: the real graph around a fake video engine.

The engine pans over a photograph, so that there are faces in its frames. Everything else is real:
the deployment class, the handles, the credit window, FaceSwapper and the encoder. What the engine
does is written to a journal, which the tests read.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.engine import EventSink, Usage
from deployments.errors import ImageNotSupported
from deployments.face_swapper import FaceSwapper
from deployments.settings import VideoSettings
from deployments.video_deployment import OPTIONS, VideoDeployment
from deployments.wire import Finished, FrameChunk, Progress, VideoRequest
from serve.app import bind
from serve.config import AppConfig
from serve.media.samples import pan, stranger
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26

NO_IMAGE = "configure an image-to-video checkpoint"


class FakeEngine:
    """An engine whose prompt is a JSON object.

    Its keys are ``name`` (for the journal), ``step_s`` and ``chunk_s`` (the seconds of a denoise
    step and of a chunk), ``text_only`` (refuse images), ``fault`` (raise) and ``die`` (kill the
    replica).
    """

    hardware = "a photograph"

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def usage(self) -> Usage:
        """Say that nothing was cached."""
        return Usage()

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        """Make the video that the prompt describes."""
        order = json.loads(request.prompt)
        if request.image is not None and order.get("text_only"):
            raise ImageNotSupported("image", NO_IMAGE)
        image = None if request.image is None else [round(float(v), 1) for v in request.image.mean(axis=(0, 1))]
        fields = {
            name: getattr(request, name)
            for name in ("negative_prompt", "width", "height", "num_frames", "steps", "cfg", "seed")
        }
        self._write(name=order["name"], kind="request", **fields, image=image)
        try:
            return self._make(request, order, sink)
        finally:
            self._write(name=order["name"], kind="end")

    def _make(self, request: VideoRequest, order: dict[str, Any], sink: EventSink) -> Finished:
        if order.get("fault"):
            raise RuntimeError("a secret of the model at /srv/secret/weights")
        for step in range(request.steps):
            begun = time.time()
            time.sleep(order.get("step_s", 0.05))
            if order.get("die"):
                os._exit(1)
            self._write(name=order["name"], kind="step", index=step, begun=begun)
            sink.progress(Progress("denoise", step + 1, request.steps))
        frames = pan(stranger(), count=request.num_frames, width=request.width, height=request.height)
        index = 0
        while index < len(frames):
            sink.ready()
            begun = time.time()
            time.sleep(order.get("chunk_s", 0.0))
            chunk = FrameChunk(index, frames[index : index + (4 if index else 1)].copy())
            self._write(name=order["name"], kind="chunk", index=index, begun=begun)
            sink.chunk(chunk)
            index += len(chunk.frames)
        return Finished({"denoise": 0.0, "decode": 0.0})

    def _write(self, **entry: object) -> None:
        line = json.dumps({**entry, "ended": time.time(), "pid": os.getpid()})
        with self._journal.open("a") as file:
            file.write(line + "\n")


@serve.deployment(name=WAN26.deployment, **OPTIONS)
class FakeWan26(VideoDeployment):
    """A model that runs the fake engine."""

    def __init__(self, settings: VideoSettings, models: object) -> None:
        VideoDeployment.__init__(self, FakeEngine(Path(os.environ["RYLA_TEST_JOURNAL"])), settings, WAN26.name)


@serve.deployment(name=WAN22_GGUF.deployment, **OPTIONS)
class FakeWan22(VideoDeployment):
    """A model whose start fails."""

    def __init__(self, settings: VideoSettings, models: object) -> None:
        raise FileNotFoundError("the weights of this test model are missing")


def build(args: AppConfig) -> Application:
    """Return the application of a Serve config file whose import path names this function."""
    return bind(args, {WAN26: FakeWan26, WAN22_GGUF: FakeWan22, FACE_SWAPPER: FaceSwapper})
