"""Settings of the three model deployments: where the weights are and how to run them. Part of ``serve.config.AppConfig``."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all settings: immutable, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EngineSettings(Settings):
    """What every engine has."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs. `auto`: CUDA if the replica was given a GPU, else the CPU. `cuda` refuses to start without one."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of the engine; 0: as many as the machine has cores. (Ray would give a replica with less than one CPU a single one.)"""
    stall_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds without a sign of life from a busy engine after which the replica reports itself unhealthy and is replaced."""


class Size(Settings):
    """Size of a video."""

    width: int = Field(default=832, gt=0, multiple_of=16)
    """Pixels."""
    height: int = Field(default=480, gt=0, multiple_of=16)
    """Pixels."""
    num_frames: int = Field(default=33, ge=1)
    """Frames; 4k+1."""


class VideoSettings(EngineSettings):
    """What both video engines have."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of transformer and text encoder. `auto`: bfloat16 on CUDA, float32 on the CPU."""
    vae_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the VAE; its norms are computed in float32 in any case. `auto`: bfloat16 on CUDA, float32 on the CPU."""
    flow_shift: float | None = Field(default=None, gt=0)
    """Shift of the flow schedule; absent: what the checkpoint's scheduler config says."""
    concurrency: int = Field(default=1, ge=1)
    """Requests that one replica runs at the same time. Set Serve's `max_ongoing_requests` to the same number or one more."""
    attention: Literal["auto", "cudnn", "native"] = "auto"
    """Exact attention on a GPU. `auto`: cuDNN's from Hopper on, PyTorch's own choice before it. A CPU always runs PyTorch's."""
    compile: bool = True
    """Whether a GPU runs kernels that are compiled on first use, for which the first request waits unless `warm_up` has a size."""
    compile_cache: Path | None = None
    """Folder of compiled kernels; on a volume that outlives the replica, a restart need not compile. Absent: Triton's own."""
    warm_up: tuple[Size, ...] = ()
    """Sizes that a replica makes a video of, one step long, before it takes requests."""
    batch_guidance: bool = False
    """Whether the forwards with and without the prompt run as one of batch 2. Never chosen at run time: the two round differently."""
    cache_threshold: float | None = Field(default=0.08, gt=0, lt=1)
    """For `acceleration: cache`: mean change of the first block's contribution under which the others' is reused. null: not offered."""
    distilled_shift: float = Field(default=5.0, gt=0)
    """Shift of the flow schedule for `acceleration: distilled`: the one that the model was taught with."""
    text_encoder: Literal["auto", "kept", "offloaded", "freed"] = "auto"
    """Where the text encoder is: on the GPU, in the host's memory until a prompt comes, or only in its files. `auto`: kept if it fits."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Most of the GPU's memory that a replica takes, in GiB, for cards that several share; absent: all of it."""
    prompt_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Bytes of prompt embeddings kept for prompts that come again (4 MiB each at full size); 0: none."""
    allow_hub: bool = False
    """Whether a path that is no folder may be fetched as a hub id. Off: only local files are ever read."""

    @model_validator(mode="after")
    def _attention_knows_the_type(self) -> Self:
        if self.attention == "cudnn" and self.dtype == "float32":
            raise ValueError("`attention: cudnn` knows no `dtype: float32`; leave one of them out")
        return self


def _check_guidance(spread: str, *, batched: bool) -> None:
    if spread == "guidance" and batched:
        raise ValueError("`spread: guidance` runs two forwards on two GPUs, `batch_guidance` both in one: choose")


class Wan26Models(Settings):
    """Checkpoints of Wan26, each a folder in diffusers' layout (or a hub id, with `allow_hub`)."""

    text: str
    """Text to video. A VACE checkpoint serves too."""
    image: str | None = None
    """Image to video: a VACE checkpoint or one with 36 input channels. Absent: the text checkpoint, if it can, else images are refused."""
    text_weights: Path | None = None
    """A single safetensors file in the original Wan or ComfyUI layout, read instead of the transformer's weights in `text`."""
    image_weights: Path | None = None
    """The same for `image`."""
    text_distilled: Path | None = None
    """For `acceleration: distilled` without a picture: a LoRA file, or a distilled model's weights like `text_weights`."""
    image_distilled: Path | None = None
    """The same with a picture; a LoRA may be named at both."""

    @model_validator(mode="after")
    def _weights_have_a_folder(self) -> Self:
        if self.image_weights is not None and self.image is None:
            raise ValueError("`image_weights` needs `image`: the folder of its configuration")
        return self


class Wan22Models(Settings):
    """Checkpoint of Wan22GGUF."""

    folder: str
    """Folder in diffusers' layout: configs, VAE, text encoder, tokenizer, scheduler. Its transformer weights are not read."""
    high_noise: Path
    """File of the expert for the noisy steps: GGUF, or safetensors in the original Wan or ComfyUI layout."""
    low_noise: Path
    """File of the expert for the others."""
    high_noise_distilled: Path | None = None
    """For `acceleration: distilled`: a LoRA file for that expert, or a distilled expert like `high_noise`. Both experts' or none."""
    low_noise_distilled: Path | None = None
    """The same for `low_noise`."""

    @model_validator(mode="after")
    def _both_are_distilled(self) -> Self:
        if (self.high_noise_distilled is None) != (self.low_noise_distilled is None):
            raise ValueError("`high_noise_distilled` and `low_noise_distilled` belong together: name both or none")
        return self


class FaceModels(Settings):
    """Model files of FaceSwapper (production engines, ONNX)."""

    analysis: Path
    """Folder of an insightface model pack (`buffalo_l`): detection and recognition."""
    swapper: Path
    """`inswapper_128.onnx`."""
    gfpgan: Path | None = None
    """`GFPGANv1.4.onnx`. At most one restorer is configured."""
    codeformer: Path | None = None
    """`codeformer.onnx`."""
    occlusion: Path | None = None
    """A model that finds what hides a face, which then stays: XSeg's, or a face parser's. Absent: the whole crop is replaced."""


class Wan26Settings(VideoSettings):
    """Engine of Wan26."""

    spread: Literal["none", "guidance"] = "none"
    """What a second GPU in the replica does. `guidance`: the forward without the prompt, while the first runs the one with it."""

    @model_validator(mode="after")
    def _guidance_is_spread_or_batched(self) -> Self:
        _check_guidance(self.spread, batched=self.batch_guidance)
        return self


class Wan22Settings(VideoSettings):
    """Engine of Wan22GGUF."""

    experts: Literal["auto", "dequantised", "quantised", "offloaded"] = "auto"
    """How a GPU keeps the experts: dequantised, as stored (slower), or as stored and in turn (24 GB). `auto`: the first that fits."""
    boundary: float | None = Field(default=None, gt=0, lt=1)
    """Share of the noise schedule above which the high-noise expert runs; absent: what the folder says, else 0.9."""
    spread: Literal["none", "guidance", "experts"] = "none"
    """What a second GPU in the replica does. `guidance`: the forward without the prompt; `experts`: the low-noise expert is there."""

    @model_validator(mode="after")
    def _spread_can_be(self) -> Self:
        _check_guidance(self.spread, batched=self.batch_guidance)
        if self.spread != "none" and self.experts == "offloaded":
            raise ValueError("`experts: offloaded` is for a single small GPU; with `spread` leave it out")
        return self


class Tracking(Settings):
    """How faces are followed through a video."""

    detect_every: int = Field(default=1, ge=1)
    """The detector looks at every n-th frame, and at the first of each scene; between them faces are interpolated. 1: exact."""
    max_gap: int = Field(default=8, ge=0, le=100)
    """Frames that a face may be lost for and is still replaced, if it comes back. As many frames are held back until that is known."""
    smooth_frames: int = Field(default=8, ge=0, le=100)
    """Frames to each side that a face's landmarks are smoothed over, against flicker; 0: not at all."""
    smooth_tolerance: float = Field(default=2.0, gt=0)
    """How uneven a motion, in multiples of the landmarks' noise, is smoothed over: higher is steadier, and follows sudden motion less."""
    match_threshold: float = Field(default=0.4, gt=0, lt=1)
    """Cosine of two embeddings from which on they are the same person: for `target_face`, and for a face that comes back."""


class FaceSettings(EngineSettings):
    """Engine of FaceSwapper."""

    concurrency: int = Field(default=1, ge=1)
    """Calls that one replica works on at the same time: with two, one's work on the CPU is done while the other's is on the GPU."""
    detection_size: int = Field(default=640, ge=64, multiple_of=32)
    """Side in pixels of the square that insightface's detector sees."""
    detection_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Detections with a lower score are no faces."""
    pixel_boost: Literal[128, 256, 512] = 128
    """Pixels a side at which faces are swapped. inswapper sees 128: 256 takes four of them, 512 sixteen, and as much longer."""
    match_colours: bool = False
    """Whether a new face takes on the colours of the one that it replaces. (The demo's engine always does it.)"""
    cuda_graphs: bool = True
    """On a GPU: each model runs as one captured graph, not node by node. Takes a few seconds when a replica starts."""
    gpu_mem_limit_bytes: int | None = Field(default=None, gt=0)
    """Cap of onnxruntime's CUDA arena, in bytes, of each of the models (up to five); absent: no cap."""
