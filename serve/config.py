"""AppConfig: every setting of the application, typed and declared once.

It is the ``args`` of a Serve config file, and only ``build`` reads it. What Serve itself can set
for a deployment (autoscaling_config, max_ongoing_requests, logging_config, ...) is not repeated
here: it belongs under ``deployments:`` in the same file, where a change is applied in place. A
change of ``args`` restarts every replica.
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
    spread_problem,
)
from serve.job_settings import JobSettings as JobSettings
from serve.models import MODELS, VIDEO_MODELS, Model
from serve.provenance_settings import ProvenanceSettings


class Hardware(Settings):
    """The hardware that a deployment's replicas run on, and its price."""

    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs for each replica."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs for each replica, or a fraction of one."""
    accelerator_type: str | None = None
    """Ray's accelerator type that a replica needs, such as `L40S` or `A100-80G`. If absent, any
    node will do."""
    gpu_type: str | None = None
    """Value of the `X-GPU-Type` header. If absent, the accelerator type, or `CPU` without a GPU."""
    price_usd_per_hour: float = Field(default=0.0, ge=0)
    """Price of one replica's hardware in USD per hour, for the `X-Cost-USD` header."""

    @property
    def label(self) -> str:
        """The name of the hardware in the `X-GPU-Type` header."""
        return self.gpu_type or self.accelerator_type or ("GPU" if self.num_gpus else "CPU")


class Wan26Deployment(Settings):
    """Hardware and engine settings of Wan26."""

    hardware: Hardware = Hardware()
    """What the replicas run on, and its price."""
    engine: Wan26Settings = Wan26Settings()
    """How the Wan26 engine runs."""


class Wan22Deployment(Settings):
    """Hardware and engine settings of Wan22GGUF."""

    hardware: Hardware = Hardware()
    """What the replicas run on, and its price."""
    engine: Wan22Settings = Wan22Settings()
    """How the Wan22GGUF engine runs."""


class FaceDeployment(Settings):
    """Hardware and engine settings of FaceSwapper."""

    hardware: Hardware = Hardware()
    """What the replicas run on, and its price."""
    engine: FaceSettings = FaceSettings()
    """How the FaceSwapper engine runs."""


class Models(Settings):
    """The model files of all three deployments."""

    wan26: Wan26Models
    """Checkpoints for Wan26."""
    wan22_gguf: Wan22Models
    """Checkpoint for Wan22GGUF."""
    faces: FaceModels
    """Model files for FaceSwapper."""


class VideoDefaults(Settings):
    """Default values of the fields of a video request."""

    width: int = Field(default=832, multiple_of=16, gt=0)
    """Width in pixels."""
    height: int = Field(default=480, multiple_of=16, gt=0)
    """Height in pixels."""
    num_frames: int = Field(default=33, ge=1)
    """Number of frames, 4k+1."""
    steps: int = Field(default=30, ge=1)
    """Number of denoise steps."""
    cfg: float = Field(default=6.0, ge=1)
    """Guidance scale."""
    fps: float = Field(default=16, gt=0)
    """Frames per second."""
    distilled_steps: int = Field(default=4, ge=1)
    """Number of denoise steps with `acceleration: distilled`: the number that the model was trained
    for."""


class Limits(Settings):
    """Limits for requests. They are checked before any work begins and published at /limits."""

    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """Maximum size of a request body in bytes. Base64 makes a file a third larger."""
    max_image_pixels: int = Field(default=32_000_000, gt=0)
    """Maximum number of pixels in an image that is sent: width times height."""
    max_image_scans: int = Field(default=100, gt=0)
    """Maximum number of scans in a JPEG. An ordinary progressive JPEG has about 10."""
    max_image_cpu_s: float = Field(default=20, gt=0)
    """Maximum CPU time for decoding all images of a request, in seconds."""
    max_source_cpu_s: float = Field(default=600, gt=0)
    """Maximum CPU time for decoding a source video, in seconds."""
    max_source_frames: int = Field(default=3_000, gt=0)
    """Maximum number of frames in a source video."""
    max_source_seconds: float = Field(default=120, gt=0)
    """Maximum duration of a source video in seconds."""
    max_source_pixels: int = Field(default=3840 * 2160, gt=0)
    """Maximum number of pixels in a frame of a source video: width times height."""
    max_prompt_chars: int = Field(default=5_000, gt=0)
    """Maximum number of characters in a prompt. A prompt of more than 512 tokens, which the text
    encoder cannot read, is refused too."""
    max_width: int = Field(default=1280, gt=0, multiple_of=16)
    """Maximum width of a generated video in pixels."""
    max_height: int = Field(default=1280, gt=0, multiple_of=16)
    """Maximum height of a generated video in pixels."""
    max_pixels: int = Field(default=1280 * 720, gt=0)
    """Maximum number of pixels in a frame of a generated video: width times height."""
    max_frames: int = Field(default=81, gt=0)
    """Maximum number of frames in a generated video."""
    max_steps: int = Field(default=100, gt=0)
    """Maximum number of denoise steps."""
    max_cfg: float = Field(default=20.0, ge=1)
    """Maximum guidance scale."""
    max_fps: float = Field(default=120.0, gt=0)
    """Maximum frame rate in frames per second."""
    oversize: Literal["refuse", "fit"] = "refuse"
    """What becomes of a video that is asked for in more than `max_width`, `max_height`,
    `max_pixels`, `max_frames` or `max_steps`: it is refused, or it is made as large as the limits
    allow, with its shape kept, and `X-Adjusted` says so."""
    request_timeout_s: float = Field(default=1800, gt=0)
    """Seconds after which a request ends with a 504. Serve's own `http_options.request_timeout_s`
    must be larger."""


class IngressSettings(Settings):
    """The ingress, which takes HTTP requests and answers them."""

    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs for each replica."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources for each replica. They keep replicas on nodes that declare them, and
    so off GPU nodes, which could then never be scaled down."""
    api_keys: Path | None = None
    """File with the API keys of callers. Each line has a name and the key's SHA-256 in hex. The
    file is read again when it changes. If absent, everyone may call."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call, or `*` for all. By default there are none."""
    max_concurrent_requests: int = Field(default=256, ge=1, le=900)
    """Maximum number of requests in progress in one replica, including those that wait. Further
    requests get a 503. Serve passes at most 1,000 on, and some capacity is reserved for health
    probes."""


class RunnerSettings(Settings):
    """The Runner, which runs the pipelines of jobs and encodes their results."""

    num_cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs for each replica."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray's custom resources for each replica. They keep replicas on nodes that declare them, and
    so off GPU nodes, which could then never be scaled down."""
    window: int = Field(default=4, ge=2)
    """Number of 4-frame chunks by which a video model may be ahead of the encoder in one request.
    """
    swap_ahead: int = Field(default=2, ge=1)
    """Number of chunks of one request that are swapped at the same time."""
    tracking: Tracking = Tracking()
    """How faces are followed through a video."""
    encoder_threads: int = Field(default=4, ge=1)
    """Number of threads that encode results for all requests of a replica."""
    media_processes: int = Field(default=4, ge=1)
    """Number of processes that decode images for all requests of a replica, and number of processes
    that are kept ready. One caller has at most half of them at a time."""
    max_source_videos: int = Field(default=16, ge=1)
    """Maximum number of source videos that a replica reads at the same time, each in a process of
    its own. One caller has at most half of them."""
    max_decoded_bytes: int = Field(default=2**30, gt=0)
    """Maximum memory for decoded images and source videos of all requests of a replica, in bytes.
    Each request reserves what the headers of its files claim before anything is decoded."""
    max_media_wait_s: float = Field(default=30, gt=0)
    """Seconds for which a request waits for a process or for memory to decode its files, before it
    gets a 503."""
    webp_method: int = Field(default=0, ge=0, le=6)
    """Effort of libwebp, from 0 (fast) to 6 (small files)."""
    h264_preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "veryfast"
    """Preset of libx264: slower presets make smaller files."""
    h264_crf: int = Field(default=18, ge=0, le=51)
    """Constant rate factor of libx264. A lower value means better quality and larger files."""


class ProxySettings(Settings):
    """Limits on what one caller can use of Serve's HTTP proxy, which every request passes first.

    The proxy reads them from the environment in which Ray is started; `ryla serve` sets it.
    """

    max_head_bytes: int = Field(default=2**16, ge=2**10, le=2**20)
    """Maximum size in bytes of a request line with its headers. Longer ones get a 431."""
    head_timeout_s: float = Field(default=10, gt=0)
    """Seconds within which a request line and its headers must arrive. Slower ones get a 408."""
    max_connections: int = Field(default=1_000, ge=1)
    """Maximum number of connections to one proxy. A further one replaces a connection of the caller
    that has the most: the one that has waited longest for a request. It gets a 503 if all are in
    use."""
    min_bytes_per_s: int = Field(default=2**15, ge=1)
    """Minimum rate in bytes per second at which a body arrives and an answer is read."""
    stall_timeout_s: float = Field(default=10, gt=0)
    """Seconds over which `min_bytes_per_s` is measured. A body that is slower gets a 408, and an
    answer that is read more slowly is cut off."""
    body_timeout_s: float = Field(default=600, gt=0)
    """Seconds within which a whole body must arrive. Slower ones get a 408."""
    max_receiving_bytes: int = Field(default=256 * 2**20, gt=0)
    """Maximum size in bytes of all bodies that one proxy is receiving. A quarter of it is kept for
    bodies of at most 1 MiB, so that large uploads cannot keep small requests out."""
    body_queue_timeout_s: float = Field(default=10, gt=0)
    """Seconds that a body waits for room in `max_receiving_bytes` before it gets a 503."""

    max_unread_bytes: int = Field(default=256 * 2**20, gt=0)
    """Maximum size in bytes of what callers have yet to read of their answers, where they do not
    keep up. Beyond it, the caller with the largest share loses an answer."""

    @property
    def large_body_bytes(self) -> int:
        """The part of ``max_receiving_bytes`` that is for bodies of more than 1 MiB."""
        return self.max_receiving_bytes - self.max_receiving_bytes // 4


class AppConfig(Settings):
    """All settings of the application. `ryla serve PRESET` uses those in serve/presets/."""

    models: Literal["demo"] | Models = "demo"
    """Locations of the model files, or `demo` for this package's small trained models, which run on
    a CPU."""
    wan26: Wan26Deployment = Wan26Deployment()
    """What Wan26 runs on and how its engine runs."""
    wan22_gguf: Wan22Deployment = Wan22Deployment()
    """What Wan22GGUF runs on and how its engine runs."""
    face_swapper: FaceDeployment = FaceDeployment()
    """What FaceSwapper runs on and how its engine runs."""
    ingress: IngressSettings = IngressSettings()
    """How the ingress runs, and who may call it."""
    runner: RunnerSettings = RunnerSettings()
    """How the pipelines of requests run, and how their results are encoded."""
    jobs: JobSettings = JobSettings()
    """Where jobs are kept, and how many one caller may have."""
    provenance: ProvenanceSettings = ProvenanceSettings()
    """How results say that they were made by a machine, and who may ask."""
    wan26_defaults: VideoDefaults = VideoDefaults()
    """Default values of requests to the /wan2.6 paths."""
    wan22_defaults: VideoDefaults = VideoDefaults(cfg=5.0)
    """Default values of requests to the /wan22 paths."""
    limits: Limits = Limits()
    """The largest requests that are accepted."""
    proxy: ProxySettings = ProxySettings()
    """Limits on what one caller can use of Serve's HTTP proxy."""

    def deployment_of(self, model: Model) -> Wan26Deployment | Wan22Deployment | FaceDeployment:
        """Return the settings of a model's deployment."""
        settings: Wan26Deployment | Wan22Deployment | FaceDeployment = getattr(self, model.setting)
        return settings

    def defaults_of(self, model: Model) -> VideoDefaults:
        """Return the request defaults of a video model; raise ValueError for any other model."""
        if model.defaults is None:
            raise ValueError(f"{model.name} does not generate videos, so it has no request defaults")
        defaults: VideoDefaults = getattr(self, model.defaults)
        return defaults

    def max_loras_of(self, model: Model) -> int:
        """Return how many LoRAs a request may add to a video model, 0 for any other model."""
        engine = self.deployment_of(model).engine
        return 0 if isinstance(engine, FaceSettings) else engine.max_loras

    @model_validator(mode="after")
    def _largest_body_fits_in_the_proxy(self) -> "AppConfig":
        if self.proxy.large_body_bytes < self.limits.max_body_bytes:
            raise ValueError(
                f"proxy.max_receiving_bytes is {self.proxy.max_receiving_bytes}, of which three quarters are for large bodies: "
                f"too little for a body of limits.max_body_bytes, {self.limits.max_body_bytes}"
            )
        return self

    @model_validator(mode="after")
    def _spread_over_its_gpus(self) -> "AppConfig":
        for model in MODELS:
            deployment, name = self.deployment_of(model), model.setting
            if isinstance(deployment, FaceDeployment):
                continue
            spread, count = deployment.engine.spread, deployment.hardware.num_gpus
            if spread == "none" and count > 1:
                raise ValueError(
                    f"{name}.hardware.num_gpus is {count:g}, but only one GPU would be used: set {name}.engine.spread"
                )
            if spread != "none" and count and (problem := spread_problem(spread, count)) is not None:
                raise ValueError(
                    f"{name}.engine.spread is `{spread}` and {name}.hardware.num_gpus is {count:g}, but this spread {problem}"
                )
        return self

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> "AppConfig":
        for model in VIDEO_MODELS:
            name, defaults = model.defaults, self.defaults_of(model)
            pairs = (
                ("width", self.limits.max_width),
                ("height", self.limits.max_height),
                ("num_frames", self.limits.max_frames),
                ("steps", self.limits.max_steps),
                ("distilled_steps", self.limits.max_steps),
                ("cfg", self.limits.max_cfg),
                ("fps", self.limits.max_fps),
            )
            for field, limit in pairs:
                if getattr(defaults, field) > limit:
                    raise ValueError(f"{name}.{field} is {getattr(defaults, field)}, which is over its limit of {limit}")
            if math.prod((defaults.width, defaults.height)) > self.limits.max_pixels:
                raise ValueError(f"{name}: {defaults.width} x {defaults.height} is more than limits.max_pixels")
        return self
