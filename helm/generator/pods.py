"""Values of the pods: images, resources, placement, the Ray head, the worker groups."""

from typing import Any, Literal

from pydantic import Field

from helm.generator.base import Labels, Name, Object, Quantity, Values
from serve.models import MODELS, WAN22_GGUF, WAN26


class Image(Values):
    """A container image."""

    repository: str = "ryla-serve"
    """Image repository, including the registry."""
    tag: str = ""
    """Image tag. Defaults to the chart's `appVersion`. A new image starts a new Ray cluster next to
    the old one (see `upgrade`)."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Image digest, for example `sha256:...`. Takes precedence over `tag`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled: `Always`, `IfNotPresent` or `Never`."""


class LogRotation(Values):
    """Rotation of the files that Ray writes for each of its processes."""

    max_bytes: int = Field(default=33_554_432, ge=1024)
    """Size in bytes at which a log file is rotated. Ray's own default is 512 MiB, with which some
    twenty files can fill the `/tmp` volume of a pod."""
    backups: int = Field(default=3, ge=0)
    """Number of rotated files that are kept of each log file."""


class Resources(Values):
    """Resource requests and limits of a container."""

    requests: dict[str, Quantity] = {}
    """Resources that the scheduler reserves for the container."""
    limits: dict[str, Quantity] = {}
    """Resources that the container may use at most. A `gpus` value, where there is one, adds the
    limit of GPUs."""


class Placement(Values):
    """Scheduling constraints, metadata, init containers and volumes of the pods."""

    node_selector: Labels = {}
    """Node labels that are required for scheduling."""
    tolerations: list[Object] = []
    """Tolerations for node taints."""
    affinity: Object = {}
    """Affinity rules for scheduling. They replace those that `platform` sets."""
    topology_spread_constraints: list[Object] = []
    """Rules for spreading the pods over nodes and zones. They replace those of `spread`, where the
    group has that value."""
    priority_class_name: Name = ""
    """Priority class of the pods."""
    labels: Labels = {}
    """Labels added to the pods. They override `podLabels`."""
    annotations: Labels = {}
    """Annotations added to the pods. They override `podAnnotations` and those that `platform`
    sets."""
    init_containers: list[Object] = []
    """Containers that run before the Ray container, for example to fill a cache. In a namespace at
    the restricted level they need a security context like the chart's own."""
    extra_volumes: list[Object] = []
    """Volumes added to the pods, for example a ConfigMap with certificates."""
    extra_volume_mounts: list[Object] = []
    """Mounts of these volumes, added to the Ray container."""


class Head(Placement):
    """The Ray head: GCS, autoscaler, dashboard and Serve controller, but no replicas."""

    image: str = ""
    """Image of the head, if it differs from `image`. One without GPU libraries starts faster; Ray
    and Python must be the same."""
    resources: Resources = Resources(
        requests={"cpu": "2", "memory": "6Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "6Gi"}
    )
    """Resource requests and limits of the head container."""
    serve: bool = True
    """Whether the head accepts requests as well. If not, some connections are refused during an
    image upgrade, while the new proxies start."""
    drain_seconds: int = Field(default=5, ge=5)
    """Seconds that a deleted head has to finish the requests that came in through it. It always
    uses all of them, since Serve's controller never leaves it. A new head starts only afterwards,
    and nothing scales until then."""
    tmp_size: Quantity = "10Gi"
    """Size limit of the `/tmp` volume, which holds Ray's logs."""


class Autoscaler(Values):
    """The Ray autoscaler (v2), a sidecar container of the head."""

    idle_timeout_seconds: int = Field(default=300, ge=0)
    """Seconds after which an idle worker pod is removed."""
    upscaling_mode: Literal["Default", "Conservative", "Aggressive"] = "Default"
    """Upscaling mode of the autoscaler, which determines how fast it adds workers."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "1Gi"})
    """Resource requests and limits of the autoscaler container."""


class WorkerGroup(Placement):
    """Identical worker pods, started when a replica requests the resources that they declare."""

    enabled: bool = True
    """Whether to create the group. Appending a group is applied in place; any other change to the
    list of groups starts a new cluster."""
    image: str = ""
    """Image of the group, if it differs from the top-level `image`."""
    accelerator: str = ""
    """Ray accelerator type that the group declares, for example `L40S`. Ray cannot detect it while
    the group has no pods."""
    also_accelerators: list[str] = []
    """Additional accelerator types that the group declares. For example, Ray detects an 80 GB A100
    as `A100`."""
    gpus: int = Field(default=0, ge=0)
    """Number of GPUs per pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name under which the device plugin advertises GPUs."""
    cpus: int = Field(default=4, ge=1)
    """Number of CPUs per pod that the group declares to Ray. Replicas request them with
    `hardware.num_cpus`."""
    custom_resources: dict[str, int] = {}
    """Custom Ray resources per pod, for example `ingress`, which `config.ingress.resources`
    requests."""
    resources: Resources = Resources(
        requests={"cpu": "4", "memory": "16Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "16Gi"}
    )
    """Resource requests and limits of the worker container."""
    min_replicas: int = Field(default=0, ge=0)
    """Minimum number of pods."""
    max_replicas: int = Field(default=4, ge=0)
    """Maximum number of pods."""
    drain_seconds: int = Field(default=120, ge=5)
    """Seconds that a pod may take to finish its requests when it is deleted or its node is drained.
    Removing an idle pod takes about as long."""
    object_store_gib: int = Field(default=4, ge=1)
    """Size of `/dev/shm` in GiB: Ray's object store, which carries frames between replicas. It
    counts towards the pod's memory."""
    tmp_size: Quantity = "20Gi"
    """Size limit of the `/tmp` volume, which holds Ray's logs, uploaded files and compiled
    kernels."""
    runtime_class_name: Name = ""
    """Runtime class of the pods, if GPUs require one (usually `nvidia`)."""
    spread: bool = False
    """Whether the pods prefer different nodes and zones."""


class ExtraWorkerGroup(WorkerGroup):
    """An additional worker group."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    """Name of the worker group; must be unique."""


def _runs(accelerator: str) -> str:
    names = [model.deployment for model in MODELS if model.accelerator == accelerator]
    return f"Workers with one {accelerator} GPU, for {' and '.join(names)}."


def _several(gpus: int) -> Any:
    """Return a group, not created by default, whose pods have several GPUs for one replica."""
    cpus, memory = 8 * gpus, f"{64 + 48 * gpus}Gi"
    return Field(
        default=WorkerGroup(
            enabled=False,
            accelerator="H100",
            gpus=gpus,
            cpus=4,
            max_replicas=2,
            resources=Resources(
                requests={"cpu": str(cpus), "memory": memory, "ephemeral-storage": "4Gi"}, limits={"memory": memory}
            ),
            drain_seconds=300,
        ),
        alias=f"h100x{gpus}",
        description=(
            f"Workers with {gpus} H100 GPUs, all for one replica: set `hardware.num_gpus: {gpus}`, `accelerator_type: H100` "
            "and `engine.spread: guidance` of the model in `config`."
        ),
    )


class WorkerGroups(Values):
    """The built-in worker groups. KubeRay compares their order, too."""

    cpu: WorkerGroup = WorkerGroup(
        cpus=4,
        min_replicas=2,
        max_replicas=8,
        custom_resources={"ingress": 1},
        drain_seconds=300,
        spread=True,
        resources=Resources(requests={"cpu": "4", "memory": "8Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "8Gi"}),
        object_store_gib=2,
    )
    """Workers without a GPU, for the ingress replicas. With two pods, the service survives the loss
    of one. All requests pass through them, so their `drainSeconds` must be at least that of every
    other group."""
    l40s: WorkerGroup = Field(
        default=WorkerGroup(
            accelerator=WAN26.accelerator,
            gpus=1,
            cpus=4,
            max_replicas=8,
            resources=Resources(requests={"cpu": "6", "memory": "32Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "32Gi"}),
        ),
        alias="l40s",
        description=_runs(WAN26.accelerator),
    )
    a100_80g: WorkerGroup = Field(
        default=WorkerGroup(
            accelerator=WAN22_GGUF.accelerator,
            also_accelerators=["A100"],
            gpus=1,
            cpus=4,
            resources=Resources(requests={"cpu": "8", "memory": "80Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "80Gi"}),
            drain_seconds=300,
        ),
        alias="a100-80g",
        description=_runs(WAN22_GGUF.accelerator),
    )
    h100x2: WorkerGroup = _several(2)
    h100x4: WorkerGroup = _several(4)
    h100x8: WorkerGroup = _several(8)


class Pod(Values):
    """The single pod that runs everything when `mode` is `pod`."""

    gpus: int = Field(default=0, ge=0)
    """Number of GPUs of the pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name under which the device plugin advertises GPUs."""
    resources: Resources = Resources(
        requests={"cpu": "1", "memory": "6Gi", "ephemeral-storage": "4Gi"}, limits={"memory": "12Gi"}
    )
    """Resource requests and limits of the container."""
    object_store_gib: int = Field(default=2, ge=1)
    """Size of `/dev/shm` in GiB, for Ray's object store. It must be at least a tenth of the pod's
    memory."""
    tmp_size: Quantity = "10Gi"
    """Size limit of the `/tmp` volume."""
    startup_seconds: int = Field(default=600, ge=5)
    """Seconds that the models may take to load before the pod is restarted."""
    placement: Placement = Placement()
    """Scheduling constraints, metadata and additional parts of the pod."""
