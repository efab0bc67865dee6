"""Runs one video request through the Wan models, and reports progress and frames to a sink.

One engine serves several threads. Every request gets a pipeline, a solver and a view of the VAE of
its own: diffusers' pipelines and the VAE's caches hold state, but the weights are shared.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import WanVACEPipeline

from deployments.engine import EventSink, Usage
from deployments.errors import GpuLost, ImageNotSupported, LoraNotUsable, NotFinite, VideoTooLarge, WeightsDamaged
from deployments.video.acceleration.choice import AccelerationOptions, Accelerator, describe, extra_bytes, not_supported
from deployments.video.checkpoints.finite import not_finite
from deployments.video.loras import LoraShelf, LoraStack
from deployments.video.memory.gpu import GpuMemory
from deployments.video.memory.offload import WeightOffloader
from deployments.video.memory.plan import GIB, activation_bytes
from deployments.video.mode import Mode
from deployments.video.parallel.sequence import worthwhile_devices
from deployments.video.run_transformers import RunTransformers
from deployments.video.sampling.conditions import prepare_conditions
from deployments.video.sampling.denoise import denoise
from deployments.video.sampling.guidance import Guidance
from deployments.video.sampling.prompts import PromptEmbedder
from deployments.video.sampling.solver import Solver
from deployments.video.vae.bands import decode_bands
from deployments.video.vae.decode_stream import decode_stream, denormalise, to_host
from deployments.video.vae.view import private_view
from deployments.wire import Finished, FrameChunk, Progress, Stage, VideoRequest


@dataclass(frozen=True, kw_only=True, eq=False)
class WanEngine:
    """Generates videos with diffusers' Wan models. See ``VideoEngine``."""

    prompts: PromptEmbedder
    vae: Any
    vae_twins: Sequence[Any]
    """Copies of the VAE on further devices, each of which decodes a band of the frames."""
    text_mode: Mode | None
    """The mode for requests without an image."""
    image_mode: Mode | None
    """The mode for requests with an image."""
    refusal: str
    """The detail of the error for a request whose mode is None."""
    accelerations: AccelerationOptions
    loras: LoraShelf
    batch_guidance: bool = False
    """Whether the passes with and without the prompt run as one batch."""
    gpus: Sequence[GpuMemory] = ()
    offloader: WeightOffloader | None = None
    """Holds the weights that are not always on the GPU."""
    takes_last_image: bool = True
    """Whether a request may give the last frame, too."""
    plan: str = ""
    """A description of which weights are on the GPU."""

    @property
    def hardware(self) -> str:
        """A description of the GPUs and of how their memory is used, or `CPU`."""
        return "; ".join([*map(str, self.gpus), self.plan]) if self.gpus else "CPU"

    def usage(self) -> Usage:
        """Return what the engine has used; see ``VideoEngine``."""
        return Usage(
            prompt_hits=self.prompts.hits,
            prompt_misses=self.prompts.misses,
            lora_hits=self.loras.hits,
            lora_loads=self.loras.loads,
            gpu_bytes=tuple(gpu.reserved_bytes() for gpu in self.gpus),
        )

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        """Generate the video of ``request``; see ``VideoEngine``.

        If the GPU runs out of memory, everything that the request held is freed and
        ``VideoTooLarge`` is raised. After another CUDA error ``GpuLost`` is raised.
        """
        run = self.start(request, sink)
        loras = "" if run.loras is None else run.loras.describe()
        try:
            self._decode(run, self.sample(run))
            return Finished(run.clock.seconds, describe(request, run.accelerator), loras)
        except NotFinite as error:
            if run.loras is None or isinstance(error, WeightsDamaged):
                raise
            # A LoRA may hold any numbers, so that one request must not count against the replica.
            advice = "lower the scales, or leave one out"
            raise LoraNotUsable(
                "loras", f"with {loras} the model has computed NaN or infinity in place of a video; {advice}"
            ) from error
        except torch.AcceleratorError as error:
            raise GpuLost(f"a GPU of the replica has failed: {str(error).partition(chr(10))[0]}") from error
        except torch.OutOfMemoryError:
            pass  # leaving this block drops the traceback, and with it the tensors of the stages
        del run  # it holds the tensors of the acceleration and of the LoRAs
        gc.collect()
        torch.cuda.empty_cache()
        raise VideoTooLarge(
            "num_frames", f"the GPU ran out of memory for {_describe_size(request)}; ask for fewer or smaller frames"
        )

    def start(self, request: VideoRequest, sink: EventSink) -> "Run":
        """Choose mode, acceleration and LoRAs; raises ``RequestRefused`` where there is none."""
        mode = self._mode_for(request)
        accelerator = self.accelerations.create(request, mode.transformers.values())
        loras = self.loras.choose(request.loras, experts=len(mode.transformers))
        return Run(request=request, sink=sink, mode=mode, accelerator=accelerator, loras=loras)

    def sample(self, run: "Run") -> torch.Tensor:
        """Return the denoised, normalised latents of ``run``, float32 ``[1, c, t, h, w]``.

        Raises ``NotFinite`` if they contain NaN or infinity.
        """
        with self._weights_in_use():
            self._require_memory(run)
            with run.clock.measure("encode"):
                run.report("encode", 0, 1)
                self._load_loras(run)
                guidance = self._encode_prompts(run)
                conditions = prepare_conditions(self._pipeline_of(run), run.request, self.prompts.encoder.device)
                run.report("encode", 1, 1)
            with run.clock.measure("denoise"):
                run.report_step(0)
                latents = denoise(
                    transformers=RunTransformers(
                        run.mode, run.accelerator, self.offloader, most=self._most_devices(run), loras=run.loras
                    ),
                    solver=Solver(run.mode.scheduler, run.request.steps, run.request.denoise_steps),
                    conditions=conditions,
                    guidance=guidance,
                    report=run.report_step,
                    velocity=None if run.accelerator is None else run.accelerator.velocity,
                )
            if not bool(latents.isfinite().all()):
                raise _not_finite(run.mode)
            return latents

    def warm_up(self, width: int, height: int, num_frames: int) -> None:
        """Generate a short video of this size in each mode, so that all kernels are compiled."""
        image = np.zeros((height, width, 3), np.uint8)
        for mode, first_frame in ((self.text_mode, None), (self.image_mode, image)):
            if mode is not None:
                request = VideoRequest(
                    prompt="",
                    negative_prompt="",
                    width=width,
                    height=height,
                    num_frames=num_frames,
                    steps=len(mode.transformers),  # each of two experts runs one step
                    cfg=2.0,
                    seed=0,
                    image=first_frame,
                    last_image=first_frame if mode.needs_last_frame else None,
                )
                self.generate(request, _DiscardingSink())

    def _mode_for(self, request: VideoRequest) -> Mode:
        mode = self.image_mode if request.takes_image else self.text_mode
        if request.source is not None and (mode is None or mode is not self.text_mode):
            raise ImageNotSupported("source", "this model does not accept a video as input; leave it out")
        if mode is None:
            raise ImageNotSupported("image" if request.lead is None else "source", self.refusal)
        if request.last_image is not None and not (self.takes_last_image or mode.needs_last_frame):
            raise ImageNotSupported("last_image", "this model was not trained to end with a given frame; leave it out")
        if mode.pipeline_class is not WanVACEPipeline:
            self._require_first_frame(request)
        if request.acceleration != "distilled":
            return mode
        if mode.distilled is None:
            raise not_supported("this model has no distilled version")
        return mode.distilled

    def _require_first_frame(self, request: VideoRequest) -> None:
        """Refuse given frames that only VACE models can take."""
        if request.lead is not None:
            raise ImageNotSupported("source", "only a VACE model continues a video, and this service runs none for these paths")
        if request.last_image is not None and request.image is None:
            raise ImageNotSupported("last_image", "only a VACE model takes a last frame without a first one; send both")

    def _weights_in_use(self) -> AbstractContextManager[object]:
        """Return a context in which no other request offloads weights."""
        return nullcontext() if self.offloader is None else self.offloader.lock

    def _require_memory(self, run: "Run") -> None:
        if not self.gpus:
            return
        config = run.mode.transformers["transformer"].config
        needed = activation_bytes(config, run.request, batch_guidance=self.batch_guidance)
        needed += extra_bytes(run.request, config) + (0 if run.loras is None else run.loras.nbytes)
        free = min(gpu.free_bytes() for gpu in self.gpus)
        if self.offloader is not None:
            # An offloaded text encoder is unloaded before the transformer runs.
            free -= self.offloader.missing_bytes(run.mode.transformers.values())
        if needed > free:
            raise VideoTooLarge(
                "num_frames",
                f"{_describe_size(run.request)} needs {needed / GIB:.1f} GiB of GPU memory beside the models, "
                f"but {max(free, 0) / GIB:.1f} GiB are free; ask for fewer or smaller frames",
            )

    def _load_loras(self, run: "Run") -> None:
        """Load the request's LoRAs, so that one that does not fit is refused before any step.

        Those of an offloaded transformer have to wait until it is on the device.
        """
        if run.loras is None:
            return
        for transformers in (run.mode.transformers, *run.mode.twins):
            for part, transformer in transformers.items():
                run.check()
                if self.offloader is None or transformer not in self.offloader:
                    run.loras.view(part, transformer)

    def _encode_prompts(self, run: "Run") -> Guidance:
        texts = {"prompt": run.request.prompt}
        if run.request.cfg > 1:
            texts["negative_prompt"] = run.request.negative_prompt
        positive, *negative = self.prompts.embed(texts, run.check)
        return Guidance(
            positive=positive,
            negative=negative[0] if negative else None,
            scale=run.request.cfg,
            batched=self.batch_guidance,
            until=run.request.guidance_until,
        )

    def _pipeline_of(self, run: "Run") -> Any:
        """Return a pipeline of the run's own, which prepares what its transformers take."""
        return run.mode.pipeline_class(
            tokenizer=self.prompts.tokenizer,
            text_encoder=None,
            vae=private_view(self.vae, run.check),
            scheduler=run.mode.scheduler,
            **run.mode.transformers,
            **(run.mode.image_encoder or {}),
        )

    def _most_devices(self, run: "Run") -> int:
        config, request = run.mode.transformers["transformer"].config, run.request
        tokens = (1 + (request.num_frames - 1) // 4) * request.width * request.height // 256
        return worthwhile_devices(tokens, config.num_attention_heads * config.attention_head_dim)

    def _decode(self, run: "Run", latents: torch.Tensor) -> None:
        total = latents.shape[2]
        run.report("decode", 0, total)
        groups = to_host(self._decode_groups(denormalise(self.vae, latents)))
        index = 0
        for done in range(1, total + 1):
            run.sink.ready()
            with run.clock.measure("decode"):
                frames = next(groups)
            run.sink.chunk(FrameChunk(index, frames))
            run.report("decode", done, total)
            index += len(frames)

    def _decode_groups(self, latents: torch.Tensor) -> Iterator[Sequence[torch.Tensor]]:
        if self.vae_twins:
            yield from decode_bands([self.vae, *self.vae_twins], latents)
        else:
            for group in decode_stream(self.vae, latents):
                yield [group]


class StageClock:
    """Measures the seconds that each stage takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent in the context to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One request on its way through the engine's stages."""

    request: VideoRequest
    sink: EventSink
    mode: Mode
    accelerator: Accelerator | None
    loras: LoraStack | None = None
    clock: StageClock = field(default_factory=StageClock)

    def report(self, stage: Stage, step: int, steps: int) -> None:
        """Report progress; raises ``Cancelled`` once the video is not needed."""
        self.sink.progress(Progress(stage, step, steps))

    def report_step(self, done: int) -> None:
        """Report that ``done`` denoise steps are finished."""
        self.report("denoise", done, self.request.denoise_steps)

    def check(self) -> None:
        """Raise ``Cancelled`` if the video is not needed, between parts of the encode stage."""
        self.report("encode", 0, 1)


class _DiscardingSink:
    """A sink for videos that are generated only to warm up."""

    def progress(self, progress: Progress) -> None:
        """See ``EventSink``."""

    def ready(self) -> None:
        """See ``EventSink``."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See ``EventSink``."""


def _not_finite(mode: Mode) -> NotFinite:
    """Return the error for latents with NaN: damaged weights, or else numbers out of range."""
    for name, transformer in mode.transformers.items():
        damaged = next(iter(not_finite(dict(transformer.named_parameters()))), None)
        if damaged is not None:
            return WeightsDamaged(
                f"the weights of `{name}` in this replica are damaged: `{damaged}` holds NaN or infinity; send the request again"
            )
    return NotFinite("the model has computed NaN or infinity in place of a video; try another seed or a lower guidance scale")


def _describe_size(request: VideoRequest) -> str:
    return f"a video of {request.width}x{request.height}, {request.num_frames} frames"
