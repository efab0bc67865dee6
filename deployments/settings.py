"""Settings of the three model deployments: where their weights are and how to run them.

They are part of ``serve.config.AppConfig``. The attribute docstrings describe the chart's values.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """The base of all settings. They are immutable and refuse unknown fields.

    An error does not show what was set, which may be a password in a wrong place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class EngineSettings(Settings):
    """How any engine runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that the model runs on. `auto` uses CUDA if the replica was given a GPU, else the CPU;
    `cuda` refuses to start without a GPU."""
    threads: int = Field(default=0, ge=0)
    """Number of CPU threads of the engine; 0 uses one per core. (Ray itself limits a replica with
    less than one CPU to one thread.)"""
    stall_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds without a sign of life from a busy engine after which the replica reports itself
    unhealthy and is replaced."""


class Size(Settings):
    """The size of a video."""

    width: int = Field(default=832, gt=0, multiple_of=16)
    """Width in pixels, a multiple of 16."""
    height: int = Field(default=480, gt=0, multiple_of=16)
    """Height in pixels, a multiple of 16."""
    num_frames: int = Field(default=33, ge=1)
    """Number of frames, 4k+1."""


class VideoSettings(EngineSettings):
    """How a video engine runs."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the transformer and the text encoder. `auto` is bfloat16 on CUDA and float32 on
    the CPU."""
    vae_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the VAE, whose norms are always computed in float32. `auto` is bfloat16 on CUDA
    and float32 on the CPU."""
    flow_shift: float | None = Field(default=None, gt=0)
    """Shift of the flow schedule. Default: the value in the checkpoint's scheduler
    configuration."""
    concurrency: int = Field(default=1, ge=1)
    """Number of requests that one replica runs at the same time. Set Serve's `max_ongoing_requests`
    to the same number or one more."""
    attention: Literal["auto", "flash", "cudnn", "native"] = "auto"
    """Implementation of exact attention on a GPU. `auto` uses FlashAttention-3 on Hopper if the
    package `fa3-fwd` is installed, otherwise cuDNN on Hopper and later, and PyTorch's own choice on
    older GPUs. A CPU always uses PyTorch."""
    compile: bool = True
    """Whether a GPU runs kernels that are compiled on first use. The first request waits for that,
    unless `warm_up` lists a size."""
    compile_cache: Path | None = None
    """Folder for compiled kernels. On a volume that outlives the replica it saves a restart from
    compiling again. Default: Triton's own folder."""
    warm_up: tuple[Size, ...] = ()
    """Sizes for which a replica makes a one-step video before it takes requests."""
    batch_guidance: bool = False
    """Whether the forward passes with and without the prompt run as one batch of 2. This is never
    chosen at run time, because the two give slightly different bytes."""
    cache_threshold: float | None = Field(default=0.32, gt=0, le=2)
    """For `acceleration: cache`: change of a step's velocity since it was last computed, relative
    to its size, up to which it is reused. null turns the acceleration off."""
    distilled_shift: float = Field(default=5.0, gt=0)
    """Shift of the flow schedule for `acceleration: distilled`; use the one that the model was
    trained with."""
    text_encoder: Literal["auto", "kept", "offloaded", "freed"] = "auto"
    """Where the text encoder stays between prompts: `kept` on the GPU, `offloaded` to host memory,
    or `freed` and read from its files again. `auto` keeps it if it fits."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Limit on the GPU memory of a replica in GiB, for GPUs that several replicas share. Default:
    all of it."""
    prompt_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Bytes of prompt embeddings that are cached for repeated prompts (4 MiB each at full size); 0
    turns the cache off."""
    max_loras: int = Field(default=4, ge=0)
    """Maximum number of LoRAs in a request."""
    lora_cache_bytes: int = Field(default=5 * 2**30, gt=0)
    """Bytes of LoRAs that stay loaded, on the GPU if there is one. A request's LoRAs may not be
    larger."""
    allow_hub: bool = False
    """Whether a path that is not a folder may be downloaded as a hub id with its commit,
    `owner/name@COMMIT`. If not, only local files are read."""

    @model_validator(mode="after")
    def _attention_supports_dtype(self) -> Self:
        if self.attention in ("flash", "cudnn") and self.dtype == "float32":
            raise ValueError(f"`attention: {self.attention}` does not support `dtype: float32`; leave one of them out")
        return self


Spread = Literal["none", "guidance", "sequence", "experts"]


def spread_problem(spread: Spread, gpus: float) -> str | None:
    """Return why ``spread``, which is not ``none``, cannot use so many GPUs, or None if it can.

    The reason continues a sentence about it: "needs ...; set ...".
    """
    if gpus < 2 or gpus % 1:
        return "needs two GPUs or more; set `hardware.num_gpus: 2` or `spread: none`"
    if spread == "experts" and gpus != 2:
        return "needs two GPUs, one for each expert; set `hardware.num_gpus: 2` or `spread: guidance`"
    if spread == "guidance" and gpus % 2:
        return "needs an even number of GPUs, half for each pass; set another number or `spread: sequence`"
    return None


def _check_guidance(spread: str, *, batched: bool) -> None:
    if spread == "guidance" and batched:
        raise ValueError(
            "`spread: guidance` runs the two forward passes on two GPUs, `batch_guidance` runs both in one; choose one of them"
        )


class VideoModels(Settings):
    """Files that both video deployments may read instead of those in their folders."""

    text_encoder_weights: Path | None = None
    """Safetensors file with the weights of UMT5, such as ComfyUI's `umt5_xxl_fp16` or its scaled
    float8 file, read instead of those in the folder's `text_encoder`."""
    vae_weights: Path | None = None
    """Safetensors file with the weights of the VAE, such as `wan_2.1_vae`, read instead of those in
    the folder's `vae`."""
    loras: str | None = None
    """Folder of the LoRA files that callers may choose by name: a path, or a URL that fsspec opens,
    such as `s3://bucket/loras`. If absent, no LoRA may be chosen."""
    last_image: bool = True
    """Whether callers may give the last frame of a video. Turn it off for a model that was not
    trained to end with a given frame, because its videos would not reach it."""


class Wan26Models(VideoModels):
    """Checkpoints of Wan26, each a folder in diffusers' layout (or a hub id, with `allow_hub`).

    A folder may hold one transformer, or the two experts of Wan 2.2 A14B.
    """

    text: str
    """Checkpoint for text to video; a VACE checkpoint works too."""
    image: str | None = None
    """Checkpoint for image to video: VACE, or one with 36 input channels. Default: the text
    checkpoint if it can take images; otherwise images are refused."""
    text_weights: Path | None = None
    """Single safetensors file in the original Wan or ComfyUI layout, read instead of the
    transformer weights in `text`."""
    image_weights: Path | None = None
    """Single safetensors file that is read instead of the transformer weights in `image`."""
    text_weights_low_noise: Path | None = None
    """The same as `text_weights` for the low-noise expert, if `text` holds two experts; then
    `text_weights` is the high-noise expert. Set both or neither."""
    image_weights_low_noise: Path | None = None
    """The same for the low-noise expert of `image`."""
    text_distilled: Path | None = None
    """For `acceleration: distilled` without an image: a LoRA file, or the weights of a distilled
    model in the format of `text_weights`."""
    image_distilled: Path | None = None
    """For `acceleration: distilled` with an image; may be the same LoRA file as
    `text_distilled`."""
    text_distilled_low_noise: Path | None = None
    """For `acceleration: distilled` without an image, if `text` holds two experts: the file of the
    low-noise one; then `text_distilled` is for the high-noise one. Set both or neither."""
    image_distilled_low_noise: Path | None = None
    """The same for the low-noise expert of `image`."""

    @model_validator(mode="after")
    def _weights_have_a_folder(self) -> Self:
        if self.image_weights is not None and self.image is None:
            raise ValueError("`image_weights` needs `image`, the folder with its configuration")
        return self

    @model_validator(mode="after")
    def _experts_have_their_pair(self) -> Self:
        for name in ("text_weights", "image_weights", "text_distilled", "image_distilled"):
            if getattr(self, f"{name}_low_noise") is not None and getattr(self, name) is None:
                raise ValueError(f"`{name}_low_noise` needs `{name}`, the file of the high-noise expert")
        return self


class Wan22Models(VideoModels):
    """Checkpoint of Wan22GGUF."""

    folder: str
    """Folder in diffusers' layout with configurations, VAE, text encoder, tokenizer and scheduler.
    Transformer weights in it are not read."""
    high_noise: Path
    """File of the expert for the noisy steps: GGUF, or safetensors in the original Wan or ComfyUI
    layout."""
    low_noise: Path
    """File of the expert for the remaining steps, in the same formats."""
    high_noise_distilled: Path | None = None
    """For `acceleration: distilled`: a LoRA file for the high-noise expert, or a distilled expert
    in the format of `high_noise`. Set it for both experts or for neither."""
    low_noise_distilled: Path | None = None
    """For `acceleration: distilled`: a LoRA file for the low-noise expert, or a distilled
    expert."""

    @model_validator(mode="after")
    def _both_are_distilled(self) -> Self:
        if (self.high_noise_distilled is None) != (self.low_noise_distilled is None):
            raise ValueError("`high_noise_distilled` and `low_noise_distilled` belong together; set both or neither")
        return self


class FaceModels(Settings):
    """Model files of FaceSwapper in production, all ONNX."""

    analysis: Path
    """Folder of an insightface model pack (`buffalo_l`) for detection and recognition."""
    swapper: Path
    """File of the swap model: `inswapper_128.onnx`, `hyperswap_1a_256.onnx`, or a model of Ghost,
    SimSwap, BlendSwap, UniFace or HifiFace. The file's inputs say which one it is."""
    swapper_model: Literal["auto", "inswapper", "hyperswap", "ghost", "simswap", "blendswap", "uniface", "hififace"] = "auto"
    """Which swap model the file is. Ghost, SimSwap of 256 pixels and HifiFace have the same inputs;
    `auto` tells them apart by the name of the file or of the converter."""
    embedding_converter: Path | None = None
    """File of the converter that Ghost, SimSwap and HifiFace need. Default: `crossface_ghost.onnx`,
    `crossface_simswap.onnx` or `crossface_hififace.onnx` beside the swap model."""
    gfpgan: Path | None = None
    """File of the restorer GFPGAN, `GFPGANv1.4.onnx`. Configure at most one restorer."""
    codeformer: Path | None = None
    """File of the restorer CodeFormer, `codeformer.onnx`. Configure at most one restorer."""
    restorer: Path | None = None
    """File of any restorer, such as `gpen_bfr_512.onnx` or `restoreformer_plus_plus.onnx`; its
    inputs say whether it is CodeFormer. Configure at most one restorer."""
    occlusion: Path | None = None
    """File of a model that finds what hides a face, XSeg or a face parser; those pixels are then
    kept. Default: the whole crop is replaced."""


class AlignmentFaceModels(Settings):
    """Model files of the face swap by alignment, which runs on a CPU and needs no swap model."""

    detector: Path
    """File of the face detector, OpenCV's YuNet (ONNX)."""
    recogniser: Path
    """File of the face recogniser, OpenCV's SFace (ONNX)."""


class Wan26Settings(VideoSettings):
    """How the Wan26 engine runs."""

    spread: Literal["none", "guidance", "sequence"] = "none"
    """Use of several GPUs in the replica. `guidance` runs the forward pass with the prompt on half
    of them and the one without on the others; `sequence` runs each pass on all of them. A pass on
    several GPUs is split by its tokens, as is one that is a step's only one."""

    @model_validator(mode="after")
    def _guidance_is_spread_or_batched(self) -> Self:
        _check_guidance(self.spread, batched=self.batch_guidance)
        return self


class Wan22Settings(VideoSettings):
    """How the Wan22GGUF engine runs."""

    experts: Literal["auto", "dequantised", "quantised", "offloaded"] = "auto"
    """How a GPU holds the experts: `dequantised`; `quantised` as stored, which is slower; or
    `offloaded`, as stored and one at a time (for 24 GB). `auto` uses the first that fits."""
    boundary: float | None = Field(default=None, gt=0, lt=1)
    """Share of the noise schedule above which the high-noise expert runs. Default: the folder's
    `boundary_ratio`."""
    spread: Literal["none", "guidance", "sequence", "experts"] = "none"
    """Use of several GPUs in the replica. `guidance` and `sequence` are as for Wan26; `experts`
    puts the low-noise expert on the second of two."""

    @model_validator(mode="after")
    def _spread_is_possible(self) -> Self:
        _check_guidance(self.spread, batched=self.batch_guidance)
        if self.spread != "none" and self.experts == "offloaded":
            raise ValueError("`experts: offloaded` is for a single small GPU; leave it out with `spread`")
        return self


class Tracking(Settings):
    """How faces are followed through a video."""

    detect_every: int = Field(default=1, ge=1)
    """Interval of frames at which faces are detected; the first frame of each scene always is.
    Between them faces are interpolated. 1 is exact."""
    max_gap: int = Field(default=8, ge=0, le=100)
    """Number of frames for which a face may be lost and is still replaced if it comes back. As many
    frames are held back until that is known."""
    smooth_frames: int = Field(default=8, ge=0, le=100)
    """Number of frames before and after over which a face's landmarks are smoothed against jitter;
    0 turns smoothing off."""
    smooth_tolerance: float = Field(default=2.0, gt=0)
    """Unevenness of motion, in multiples of the landmarks' noise, up to which it is smoothed.
    Higher values are steadier and follow sudden motion less."""
    match_threshold: float = Field(default=0.4, gt=0, lt=1)
    """Cosine similarity of two embeddings at and above which they count as the same person, for
    `target_face` and for a face that reappears."""


class FaceSettings(EngineSettings):
    """How the FaceSwapper engine runs."""

    concurrency: int = Field(default=1, ge=1)
    """Number of calls that one replica runs at the same time. With two, the CPU work of one
    overlaps the GPU work of the other."""
    detection_size: int = Field(default=640, ge=64, multiple_of=32)
    """Side in pixels of the square that insightface's detector sees."""
    detection_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Score below which a detection is not counted as a face."""
    max_faces: int = Field(default=64, ge=1)
    """Number of faces in one frame, the largest first, that are identified and replaced at most."""
    pixel_boost: Literal[128, 256, 512] = 128
    """Side in pixels at which faces are swapped, if the swap model's own is smaller. inswapper
    works on 128; 256 runs it 4 times per face and 512 runs it 16 times, and takes correspondingly
    longer."""
    match_colours: bool = False
    """Whether a new face takes on the colours of the one that it replaces. The swap by alignment
    always does."""
    cuda_graphs: bool = True
    """Whether a GPU runs each model as one captured CUDA graph instead of node by node. Capturing
    takes a few seconds when a replica starts."""
    gpu_mem_limit_bytes: int | None = Field(default=None, gt=0)
    """Limit on onnxruntime's CUDA arena in bytes, for each of the models (up to five). Default: no
    limit."""
