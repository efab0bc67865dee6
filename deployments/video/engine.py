"""The video engine: text (and image) in; progress, then frames, out. One engine serves several threads at once.

Every request gets a pipeline, a solver and a view of the VAE of its own over shared weights: diffusers' pipelines and the VAE's
caches hold state, the weights do not.
"""

import gc
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from deployments.errors import ImageNotSupported, VideoTooLarge
from deployments.video.sampling.conditions import prepare
from deployments.video.vae.decode_stream import decode_stream, denormalise, to_host
from deployments.video.sampling.denoise import Guidance, Shortcut, denoise
from deployments.video.engine import Sink
from deployments.video.memory.plan import GIB, Card, work_bytes
from deployments.video.sampling.prompts import Prompts
from deployments.video.memory.offload import Residence
from deployments.video.acceleration.choice import Shortcuts, describe, not_supported
from deployments.video.sampling.solver import Solver
from deployments.video.vae.view import private_view
from deployments.wire import Finished, FrameChunk, Progress, VideoRequest


@dataclass(frozen=True)
class Path:
    """One way to a video: which pipeline class prepares for which transformer. ``image``: whether it conditions on a picture.

    Of two experts, ``transformer`` runs while the timestep is at least ``boundary`` (of 1), ``transformer_2`` afterwards.
    """

    kind: type[Any]
    scheduler: Any
    transformers: dict[str, Any]
    image: bool
    boundary: float | None = None
    extras: dict[str, Any] | None = None
    """What else the pipeline wants: the image encoder of Wan 2.1's image models, with its preprocessor."""
    distilled: "Path | None" = None
    """The way of `acceleration: distilled`."""
    twins: dict[str, Any] | None = None
    """The same transformers on another device, for the passes without the prompt."""

    def transformer_at(self, timestep: float, branch: int) -> Any:
        """The transformer for ``timestep``, 1000 to 0; ``branch``: which of a step's passes it is (with the prompt, without)."""
        low = self.boundary is not None and timestep < 1000 * self.boundary
        transformers = self.transformers if branch == 0 or self.twins is None else self.twins
        return transformers["transformer_2" if low else "transformer"]


class WanEngine:
    """Wan with diffusers' models. ``text`` and ``image`` are the paths for requests without and with a picture."""

    def __init__(
        self,
        prompts: Prompts,
        vae: Any,
        text: Path | None,
        image: Path | None,
        no_image: str,
        *,
        batch_guidance: bool = False,
        shortcuts: Shortcuts | None = None,
        cards: Sequence[Card] = (),
        residence: Residence | None = None,
        plan: str = "",
    ) -> None:
        self.prompts = prompts
        """Text to embeddings, for all requests."""
        self.vae = vae
        """The VAE of all requests."""
        self._text = text
        self._image = image
        self._no_image = no_image
        self._batch_guidance = batch_guidance
        self._shortcuts = shortcuts or Shortcuts()
        self._cards = cards
        self._residence = residence
        self._plan = plan

    @property
    def hardware(self) -> str:
        """Where the models are."""
        return "; ".join([*map(str, self._cards), self._plan]) if self._cards else "CPU"

    def generate(self, request: VideoRequest, sink: Sink) -> Finished:
        """See VideoEngine. Where the GPU's memory ends, all that the request held is freed and VideoTooLarge raised."""
        try:
            return self._generate(request, sink)
        except torch.OutOfMemoryError:
            pass  # here the traceback ends, and with it every tensor of the request
        gc.collect()
        torch.cuda.empty_cache()
        raise VideoTooLarge(
            "num_frames", f"the GPU's memory does not hold {_describe(request)}: ask for fewer frames or smaller ones"
        )

    def _generate(self, request: VideoRequest, sink: Sink) -> Finished:
        clock, shortcut = _Clock(), self._shortcut(request)
        latents = self._make_latents(request, sink, clock, shortcut)
        self._decode(latents, sink, clock)
        return Finished(clock.seconds, describe(request, shortcut))

    def latents(self, request: VideoRequest, sink: Sink) -> torch.Tensor:
        """The denoised, normalised latents of ``request``, float32 ``[1, c, t, h, w]``: all but the decoding."""
        return self._make_latents(request, sink, _Clock(), self._shortcut(request))

    def _shortcut(self, request: VideoRequest) -> Shortcut | None:
        return self._shortcuts.choose(request, self._path(request).transformers.values())

    def warm(self, width: int, height: int, num_frames: int) -> None:
        """Makes a video of this size and of few steps on each path: what is compiled at first use is ready afterwards."""
        blank = np.zeros((height, width, 3), np.uint8)
        for path, image in ((self._text, None), (self._image, blank)):
            if path is not None:
                steps = len(path.transformers)  # of two, the first is for one expert, the second for the other
                self.generate(VideoRequest("", "", width, height, num_frames, steps, 2.0, 0, image=image), _Nobody())

    @property
    def image_path(self) -> Path:
        """The path for requests with a picture; raises ImageNotSupported where there is none."""
        if self._image is None:
            raise ImageNotSupported("image", self._no_image)
        return self._image

    def with_image_path(self, path: Path) -> "WanEngine":
        """An engine that shares everything but the path for requests with a picture."""
        more: dict[str, Any] = {"cards": self._cards, "residence": self._residence, "plan": self._plan}
        more |= {"batch_guidance": self._batch_guidance, "shortcuts": self._shortcuts}
        return WanEngine(self.prompts, self.vae, self._text, path, self._no_image, **more)

    def _path(self, request: VideoRequest) -> Path:
        path = self._text if request.image is None else self._image
        if path is None:
            raise ImageNotSupported("image", self._no_image)
        if request.acceleration != "distilled":
            return path
        if path.distilled is None:
            raise not_supported("this model has no distilled form")
        return path.distilled

    def _require_room(self, path: Path, request: VideoRequest) -> None:
        if not self._cards:
            return
        config = path.transformers["transformer"].config
        wanted = work_bytes(config, request, batch_guidance=self._batch_guidance) + self._shortcuts.wants(request, config)
        free = min(card.free() for card in self._cards)
        if self._residence is not None:  # a text encoder there has gone again when the work begins
            free -= self._residence.missing(path.transformers.values())
        if wanted > free:
            raise VideoTooLarge(
                "num_frames",
                f"{_describe(request)} wants {wanted / GIB:.1f} GiB of the GPU's memory beside the models, "
                f"{max(free, 0) / GIB:.1f} are free: ask for fewer frames or smaller ones",
            )

    def _make_latents(self, request: VideoRequest, sink: Sink, clock: "_Clock", shortcut: Shortcut | None) -> torch.Tensor:
        with self._residence.lock if self._residence is not None else nullcontext():
            return self._make_latents_here(request, sink, clock, shortcut)

    def _make_latents_here(self, request: VideoRequest, sink: Sink, clock: "_Clock", shortcut: Shortcut | None) -> torch.Tensor:
        path = self._path(request)
        self._require_room(path, request)

        def check() -> None:
            sink.progress(Progress("encode", 0, 1))

        def report(done: int) -> None:
            sink.progress(Progress("denoise", done, request.steps))

        with clock.measure("encode"):
            check()
            texts = {"prompt": request.prompt}
            if request.cfg > 1:
                texts["negative_prompt"] = request.negative_prompt
            positive, *negative = self.prompts.embed(texts, check)
            conditions = prepare(self._pipeline(path, sink), request, self.prompts.encoder.device)
            sink.progress(Progress("encode", 1, 1))
        with clock.measure("denoise"):
            report(0)
            guidance = Guidance(positive, negative[0] if negative else None, request.cfg, self._batch_guidance)
            solver = Solver(path.scheduler, request.steps)
            ahead = 1 if path.twins is None else 2
            return denoise(partial(self._transformer_at, path), solver, conditions, guidance, report, shortcut, ahead)

    def _transformer_at(self, path: Path, timestep: float, branch: int) -> Any:
        transformer = path.transformer_at(timestep, branch)
        if self._residence is not None and transformer in self._residence:
            self._residence.bring(transformer)
        return transformer

    def _pipeline(self, path: Path, sink: Sink) -> Any:
        return path.kind(
            tokenizer=self.prompts.tokenizer,
            text_encoder=None,
            vae=private_view(self.vae, lambda: sink.progress(Progress("encode", 0, 1))),
            scheduler=path.scheduler,
            **path.transformers,
            **(path.extras or {}),
        )

    def _decode(self, latents: torch.Tensor, sink: Sink, clock: "_Clock") -> None:
        total = latents.shape[2]
        sink.progress(Progress("decode", 0, total))
        groups = to_host(decode_stream(self.vae, denormalise(self.vae, latents)))
        index = 0
        for step in range(total):
            sink.ready()
            with clock.measure("decode"):
                frames = next(groups)
            sink.chunk(FrameChunk(index, frames))
            sink.progress(Progress("decode", step + 1, total))
            index += len(frames)


def _describe(request: VideoRequest) -> str:
    return f"a video of {request.width}x{request.height}, {request.num_frames} frames"


class _Nobody:
    """A sink for a video that nobody asked for."""

    def progress(self, progress: Progress) -> None:
        """See Sink."""

    def ready(self) -> None:
        """See Sink."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._start = 0.0

    def measure(self, stage: str) -> "_Clock":
        self._stage = stage
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.perf_counter() - self._start
