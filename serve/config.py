"""AppConfig: every setting of the application, typed, once. It is the ``args`` of a Serve config file; only ``build`` reads it.

What Serve itself can set per deployment (autoscaling_config, max_ongoing_requests, logging_config, ...) is not repeated here: it
belongs under ``deployments:`` of the same file, where a change is applied in place. A change of ``args`` restarts every replica.
"""

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from deployments.settings import (
    FaceModels,
    FaceSettings,
    Settings,
    Tracking,
    Wan22Models,
    Wan22Settings,
    Wan26Models,
    Wan26Settings,
)


class Hardware(Settings):
    """What a replica of a deployment is placed on, and what it costs."""

    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs of a replica."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs of a replica, or a fraction of one."""
    accelerator_type: str | None = None
    """Ray's accelerator type that a replica must be placed on, such as `L40S` or `A100-80G`; absent: any node."""
    gpu_type: str | None = None
    """What `X-GPU-Type` says; absent: the accelerator type, or `CPU` without a GPU."""
    price_usd_per_hour: float = Field(default=0.0, ge=0)
    """Price of one replica's hardware, for `X-Cost-USD`."""

    @property
    def label(self) -> str:
        """The hardware's name in `X-GPU-Type`."""
        return self.gpu_type or self.accelerator_type or ("GPU" if self.num_gpus else "CPU")


class Wan26Deployment(Settings):
    """Wan26: where it runs and how."""

    hardware: Hardware = Hardware()
    """Placement and price."""
    engine: Wan26Settings = Wan26Settings()
    """The engine."""


class Wan22Deployment(Settings):
    """Wan22GGUF: where it runs and how."""

    hardware: Hardware = Hardware()
    """Placement and price."""
    engine: Wan22Settings = Wan22Settings()
    """The engine."""


class FaceDeployment(Settings):
    """FaceSwapper: where it runs and how."""

    hardware: Hardware = Hardware()
    """Placement and price."""
    engine: FaceSettings = FaceSettings()
    """The engine."""


class Models(Settings):
    """Model files of all three deployments."""

    wan26: Wan26Models
    """Checkpoints of Wan26."""
    wan22_gguf: Wan22Models
    """Checkpoint of Wan22GGUF."""
    faces: FaceModels
    """Models of FaceSwapper."""


class VideoDefaults(Settings):
    """Values of a video request's fields where the request has none."""

    width: int = Field(default=832, multiple_of=16, gt=0)
    """Pixels."""
    height: int = Field(default=480, multiple_of=16, gt=0)
    """Pixels."""
    num_frames: int = Field(default=33, ge=1)
    """Frames, 4k+1."""
    steps: int = Field(default=30, ge=1)
    """Denoise steps."""
    cfg: float = Field(default=6.0, ge=1)
    """Guidance scale."""
    fps: float = Field(default=16, gt=0)
    """Frames a second."""
    distilled_steps: int = Field(default=4, ge=1)
    """Denoise steps with `acceleration: distilled`, which runs without guidance: what the model was taught to need."""


class Limits(Settings):
    """What a request may ask for. All of it is found before the work begins, and published at /limits."""

    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """Bytes of a request's body; base64 makes a file a third larger."""
    max_image_pixels: int = Field(default=32_000_000, gt=0)
    """Width times height of a picture that is sent."""
    max_source_frames: int = Field(default=3_000, gt=0)
    """Frames of a video that is sent."""
    max_source_seconds: float = Field(default=120, gt=0)
    """Seconds of a video that is sent."""
    max_source_pixels: int = Field(default=3840 * 2160, gt=0)
    """Width times height of a video that is sent."""
    max_prompt_chars: int = Field(default=5_000, gt=0)
    """Characters of a prompt. (The text encoder reads 512 tokens; a longer prompt is refused too.)"""
    max_width: int = Field(default=1280, gt=0, multiple_of=16)
    """Pixels of a generated video."""
    max_height: int = Field(default=1280, gt=0, multiple_of=16)
    """Pixels of a generated video."""
    max_pixels: int = Field(default=1280 * 720, gt=0)
    """Width times height of a generated video."""
    max_frames: int = Field(default=81, gt=0)
    """Frames of a generated video."""
    max_steps: int = Field(default=100, gt=0)
    """Denoise steps."""
    max_cfg: float = Field(default=20.0, ge=1)
    """Guidance scale."""
    max_fps: float = Field(default=120.0, gt=0)
    """Frames a second."""
    request_timeout_s: float = Field(default=1800, gt=0)
    """Seconds after which a request ends with 504. Serve's own `http_options.request_timeout_s` must be larger."""


class Ingress(Settings):
    """The HTTP side."""

    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs of a replica."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources of a replica: they keep it to nodes that declare them, and off a GPU's node that then never goes."""
    api_keys: Path | None = None
    """File of the keys that may call, a line each: a name, and the key's SHA-256 in hex; read again when it changes. None: open to all."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call; `*` for all. None by default."""
    window: int = Field(default=4, ge=2)
    """Chunks of 4 frames that a video model may be ahead of the encoder, for one request."""
    swap_ahead: int = Field(default=2, ge=1)
    """Chunks that are being swapped at the same time, for one request."""
    tracking: Tracking = Tracking()
    """How faces are followed through a video."""
    encoder_threads: int = Field(default=4, ge=1)
    """Threads that decode and encode media, for all requests of a replica."""
    max_concurrent_requests: int = Field(default=256, ge=1)
    """Requests under way in one replica, waiting ones included; more are answered 503."""
    webp_method: int = Field(default=0, ge=0, le=6)
    """libwebp's effort: 0 fast, 6 small."""
    h264_preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "veryfast"
    """libx264's effort."""
    h264_crf: int = Field(default=18, ge=0, le=51)
    """libx264's quality: lower is better and larger."""


class AppConfig(Settings):
    """All settings. `ryla serve PRESET` runs the ones in serve/presets/."""

    models: Literal["demo"] | Models = "demo"
    """`demo`: the small trained models of this package, for a CPU. Else where the model files are."""
    wan26: Wan26Deployment = Wan26Deployment()
    """The deployment Wan26."""
    wan22_gguf: Wan22Deployment = Wan22Deployment()
    """The deployment Wan22GGUF."""
    face_swapper: FaceDeployment = FaceDeployment()
    """The deployment FaceSwapper."""
    ingress: Ingress = Ingress()
    """The ingress."""
    wan26_defaults: VideoDefaults = VideoDefaults()
    """Defaults of the /wan2.6 paths."""
    wan22_defaults: VideoDefaults = VideoDefaults(cfg=5.0)
    """Defaults of the /wan22 paths."""
    limits: Limits = Limits()
    """What a request may ask for."""

    @model_validator(mode="after")
    def _spread_over_its_gpus(self) -> "AppConfig":
        for name, model in (("wan26", self.wan26), ("wan22_gguf", self.wan22_gguf)):
            spread, count = model.engine.spread, model.hardware.num_gpus
            if spread == "none" and count > 1:
                raise ValueError(
                    f"{name}.hardware.num_gpus is {count:g}, and nothing uses the second: set {name}.engine.spread"
                )
            if spread != "none" and count not in (0, 2):
                raise ValueError(
                    f"{name}.engine.spread is `{spread}`, which runs on 2 GPUs; {name}.hardware.num_gpus is {count:g}"
                )
        return self

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> "AppConfig":
        for name, defaults in (("wan26_defaults", self.wan26_defaults), ("wan22_defaults", self.wan22_defaults)):
            pairs = (
                ("width", self.limits.max_width),
                ("height", self.limits.max_height),
                ("num_frames", self.limits.max_frames),
                ("steps", self.limits.max_steps),
                ("distilled_steps", self.limits.max_steps),
                ("cfg", self.limits.max_cfg),
                ("fps", self.limits.max_fps),
            )
            for field, most in pairs:
                if getattr(defaults, field) > most:
                    raise ValueError(f"{name}.{field} is {getattr(defaults, field)}, over its limit {most}")
            if math.prod((defaults.width, defaults.height)) > self.limits.max_pixels:
                raise ValueError(f"{name}: {defaults.width} x {defaults.height} is over limits.max_pixels")
        return self
