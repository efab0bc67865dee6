"""The video engine: text (and image) in; progress, then frames, out. One engine serves several threads at once.

Every request gets a pipeline, a scheduler and a view of the VAE of its own over shared weights: diffusers' pipelines, schedulers
and the VAE's caches hold state, the weights do not.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from PIL import Image

from deployments.errors import ImageNotSupported, PromptTooLong
from deployments.video.checkpoints import Conditioning
from deployments.video.decode_stream import decode_stream, denormalise, to_frames
from deployments.video.engine import Sink
from deployments.video.vae_view import private_view
from deployments.wire import Finished, FrameChunk, Progress, VideoRequest

MAX_TOKENS = 512
"""What Wan's transformers were trained on, and the length that every prompt is padded to."""


@dataclass(frozen=True)
class Path:
    """One way to a video: which pipeline class runs which transformer. ``image``: whether it conditions on a picture."""

    kind: type[Any]
    scheduler: Any
    transformers: dict[str, Any]
    image: bool


class WanEngine:
    """Wan by diffusers' pipelines. ``text`` and ``image`` are the paths for requests without and with a picture."""

    def __init__(self, shared: Conditioning, text: Path | None, image: Path | None, no_image: str) -> None:
        self._shared = shared
        self._text = text
        self._image = image
        self._no_image = no_image
        self._tokenizing = threading.Lock()  # fast tokenizers keep padding and truncation as state

    def generate(self, request: VideoRequest, sink: Sink) -> Finished:
        """See VideoEngine."""
        path = self._path(request)
        clock = _Clock()
        with clock.measure("encode"):
            sink.progress(Progress("encode", 0, 1))
            pipeline = self._pipeline(path, sink)
            embeddings = self._embed(pipeline, request, sink)
            sink.progress(Progress("encode", 1, 1))
        with clock.measure("denoise"):
            latents = self._denoise(pipeline, path, request, embeddings, sink)
        self._decode(pipeline.vae, latents, sink, clock)
        return Finished(clock.seconds)

    def latents(self, request: VideoRequest, sink: Sink) -> torch.Tensor:
        """The denoised, normalised latents of ``request``, float32 ``[1, c, t, h, w]``: all but the decoding."""
        path = self._path(request)
        pipeline = self._pipeline(path, sink)
        return self._denoise(pipeline, path, request, self._embed(pipeline, request, sink), sink)

    @property
    def vae(self) -> Any:
        """The VAE of all requests."""
        return self._shared.vae

    @property
    def image_path(self) -> Path:
        """The path for requests with a picture; raises ImageNotSupported where there is none."""
        if self._image is None:
            raise ImageNotSupported("image", self._no_image)
        return self._image

    def with_image_path(self, path: Path) -> "WanEngine":
        """An engine that shares everything but the path for requests with a picture."""
        return WanEngine(self._shared, self._text, path, self._no_image)

    def _path(self, request: VideoRequest) -> Path:
        path = self._text if request.image is None else self._image
        if path is None:
            raise ImageNotSupported("image", self._no_image)
        return path

    def _pipeline(self, path: Path, sink: Sink) -> Any:
        pipeline = path.kind(
            tokenizer=self._shared.tokenizer,
            text_encoder=self._shared.text_encoder,
            vae=private_view(self._shared.vae, lambda: sink.progress(Progress("encode", 0, 1))),
            scheduler=type(path.scheduler).from_config(path.scheduler.config),
            **path.transformers,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _embed(self, pipeline: Any, request: VideoRequest, sink: Sink) -> dict[str, Any]:
        guided = request.cfg > 1
        embeddings: dict[str, Any] = {}
        texts = [("prompt", request.prompt)] + ([("negative_prompt", request.negative_prompt)] if guided else [])
        with self._tokenizing, torch.no_grad():
            for field, text in texts:
                count = len(pipeline.tokenizer(prompt_clean(text)).input_ids)
                if count > MAX_TOKENS:
                    raise PromptTooLong(field, f"{count} tokens; the text encoder reads {MAX_TOKENS}: shorten the text")
            for field, text in texts:
                sink.progress(Progress("encode", 0, 1))  # an encoder cannot be interrupted, but it need not be started
                embeddings[f"{field}_embeds"] = pipeline._get_t5_prompt_embeds(text, max_sequence_length=MAX_TOKENS)
        return embeddings

    def _denoise(
        self, pipeline: Any, path: Path, request: VideoRequest, embeddings: dict[str, Any], sink: Sink
    ) -> torch.Tensor:
        sink.progress(Progress("denoise", 0, request.steps))

        def on_step_end(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents = tensors["latents"]
            if latents.is_cuda:
                torch.cuda.current_stream(latents.device).synchronize()  # else progress and cancel would run ahead
            sink.progress(Progress("denoise", step + 1, request.steps))  # raising here ends the loop
            return tensors

        latents = pipeline(
            **embeddings,
            **_conditions(path, request),
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            num_inference_steps=request.steps,
            guidance_scale=request.cfg,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            max_sequence_length=MAX_TOKENS,
            output_type="latent",
            return_dict=False,
            callback_on_step_end=on_step_end,
        )[0]
        assert isinstance(latents, torch.Tensor)
        return latents

    def _decode(self, vae: Any, latents: torch.Tensor, sink: Sink, clock: "_Clock") -> None:
        total = latents.shape[2]
        sink.progress(Progress("decode", 0, total))
        groups = decode_stream(vae, denormalise(vae, latents))
        index = 0
        for step in range(total):
            sink.ready()
            with clock.measure("decode"):
                frames = to_frames(next(groups))
            sink.chunk(FrameChunk(index, frames))
            sink.progress(Progress("decode", step + 1, total))
            index += len(frames)


def _conditions(path: Path, request: VideoRequest) -> dict[str, Any]:
    """What a path's pipeline wants beside the common arguments."""
    picture = None if request.image is None else Image.fromarray(request.image)
    if path.kind is WanVACEPipeline:
        assert picture is not None
        # The first frame is given (black in the mask), the others are grey and to be made (white).
        size = (request.width, request.height)
        rest = request.num_frames - 1
        video = [picture, *[Image.new("RGB", size, (128, 128, 128))] * rest]
        return {"video": video, "mask": [Image.new("L", size, 0), *[Image.new("L", size, 255)] * rest]}
    if path.kind is WanImageToVideoPipeline:
        return {"image": picture}
    assert path.kind is WanPipeline
    return {}


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
