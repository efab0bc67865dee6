"""The chart's values of pods: images, resources, the head, the worker groups."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = str | int | float
Labels = dict[str, str]
Object = dict[str, Any]


class Values(BaseModel):
    """Base: camel case, unknown names refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, alias_generator=to_camel, populate_by_name=True
    )


class Image(Values):
    """A container image."""

    repository: str = "ryla-serve"
    """Repository, with its registry."""
    tag: str = ""
    """Tag; empty: the chart's appVersion. An image is replaced by a new cluster beside the old one."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Digest, such as `sha256:...`; it wins over the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy."""


class Resources(Values):
    """What a container asks of its node."""

    requests: dict[str, Quantity] = {}
    """Requests."""
    limits: dict[str, Quantity] = {}
    """Limits. GPUs are added by `gpus`."""


class Placement(Values):
    """Where pods may run, beside what `platform` says."""

    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: list[Object] = []
    """Taints that are tolerated."""
    affinity: Object = {}
    """Affinity, as Kubernetes has it."""
    priority_class_name: str = ""
    """Priority class."""
    annotations: Labels = {}
    """Annotations of the pods, over `podAnnotations` and what `platform` says."""


class Head(Placement):
    """The Ray head: GCS, autoscaler, dashboard and Serve's controller; no replica runs there (`num-cpus: "0"`)."""

    image: str = ""
    """Another image for the head: one without the GPU libraries starts sooner. Ray and Python must be the same."""
    resources: Resources = Resources(requests={"cpu": "2", "memory": "6Gi"}, limits={"memory": "6Gi"})
    """Its resources."""
    serve: bool = True
    """Whether requests may enter through the head too. Without it an image upgrade refuses some connections while proxies start."""
    drain_seconds: int = Field(default=50, ge=5)
    """Seconds that requests which came in through the head have to end when it is deleted; for as long nothing scales."""
    tmp_size: Quantity = "10Gi"
    """Size of /tmp: Ray's logs."""


class Autoscaler(Values):
    """Ray's autoscaler (v2), a container beside the head."""

    idle_timeout_seconds: int = Field(default=300, ge=0)
    """Seconds after which a worker without work is given back."""
    upscaling_mode: Literal["Default", "Conservative", "Aggressive"] = "Default"
    """How fast it grows."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "1Gi"})
    """Resources of its container."""


class WorkerGroup(Placement):
    """Pods of one kind, brought from zero by the autoscaler when a replica asks for what they declare."""

    enabled: bool = True
    """Whether the group is there. Groups may only be added at the end in place; any other change makes a new cluster."""
    image: str = ""
    """Another image for this group."""
    accelerator: str = ""
    """Ray's accelerator type that the group declares: `L40S`, `A100-80G`, ... Ray cannot find out by itself before a pod is there."""
    also_accelerators: list[str] = []
    """Further accelerator types that it declares: an 80 GB A100 reports itself to Ray as `A100`."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of a pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """The device plugin's name for a GPU."""
    cpus: int = Field(default=4, ge=1)
    """CPUs that the group declares to Ray, counted against `hardware.num_cpus`."""
    custom_resources: dict[str, int] = {}
    """Ray's custom resources of a pod, such as `ingress`, which `config.ingress.resources` asks for."""
    resources: Resources = Resources(requests={"cpu": "4", "memory": "16Gi"}, limits={"memory": "16Gi"})
    """What Kubernetes reserves for a pod."""
    min_replicas: int = Field(default=0, ge=0)
    """Pods that are always there."""
    max_replicas: int = Field(default=4, ge=0)
    """Pods at most."""
    drain_seconds: int = Field(default=120, ge=5)
    """Seconds that a pod's requests have to end when it is deleted or its node drained. Idle pods take about as long to go away."""
    object_store_gib: int = Field(default=4, ge=1)
    """GiB of /dev/shm, Ray's object store: frames between replicas. They count as memory of the pod."""
    tmp_size: Quantity = "20Gi"
    """Size of /tmp: Ray's logs, spooled uploads, compiled kernels."""
    runtime_class_name: str = ""
    """Runtime class, where GPUs need one (`nvidia`)."""
    spread: bool = False
    """Whether pods prefer different nodes."""


class ExtraWorkerGroup(WorkerGroup):
    """A further group."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    """Its name."""


class WorkerGroups(Values):
    """The groups, in this order: the order is part of what KubeRay compares."""

    cpu: WorkerGroup = WorkerGroup(
        cpus=4,
        min_replicas=2,
        max_replicas=8,
        custom_resources={"ingress": 1},
        drain_seconds=300,
        spread=True,
        resources=Resources(requests={"cpu": "4", "memory": "8Gi"}, limits={"memory": "8Gi"}),
        object_store_gib=2,
    )
    """Ingress replicas: no GPU. Two pods, so that one may go. They carry requests to their end: `drainSeconds` as the longest group's."""
    l40s: WorkerGroup = Field(
        default=WorkerGroup(
            accelerator="L40S",
            gpus=1,
            cpus=4,
            max_replicas=8,
            resources=Resources(requests={"cpu": "6", "memory": "32Gi"}, limits={"memory": "32Gi"}),
        ),
        alias="l40s",
    )
    """Wan26 and FaceSwapper."""
    a100_80g: WorkerGroup = Field(
        default=WorkerGroup(
            accelerator="A100-80G",
            also_accelerators=["A100"],
            gpus=1,
            cpus=4,
            resources=Resources(requests={"cpu": "8", "memory": "80Gi"}, limits={"memory": "80Gi"}),
            drain_seconds=300,
        ),
        alias="a100-80g",
    )
    """Wan22GGUF."""


class Pod(Values):
    """Of `mode: pod`."""

    gpus: int = Field(default=0, ge=0)
    """GPUs of the pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """The device plugin's name for a GPU."""
    resources: Resources = Resources(requests={"cpu": "1", "memory": "6Gi"}, limits={"memory": "12Gi"})
    """Its resources."""
    object_store_gib: int = Field(default=2, ge=1)
    """GiB of /dev/shm, Ray's object store: over a tenth of the pod's memory."""
    tmp_size: Quantity = "10Gi"
    """Size of /tmp."""
    startup_seconds: int = Field(default=600, ge=5)
    """Seconds that the models have to load, after which the pod is started again."""
    placement: Placement = Placement()
    """Where it may run."""
