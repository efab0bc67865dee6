"""Values of the Ray cluster's life: upgrades, and what happens when its head is lost."""

from typing import Literal

from pydantic import Field

from helm.generator.base import Name, Quantity, Values
from helm.generator.pods import Resources


class Incremental(Values):
    """Settings of `NewClusterWithIncrementalUpgrade`, which needs the Gateway API."""

    gateway_class_name: Name = ""
    """Gateway class of the Gateway that KubeRay creates. Clients connect to it, so `ingress` and
    `httpRoute` must be disabled."""
    max_surge_percent: int = Field(default=25, ge=0, le=100)
    """Percentage of the new cluster's capacity that may be added at a time."""
    step_size_percent: int = Field(default=25, ge=1, le=100)
    """Percentage of the traffic that moves to the new cluster in one step."""
    interval_seconds: int = Field(default=60, ge=1)
    """Seconds between two steps."""


class Upgrade(Values):
    """How to roll out changes that Ray Serve cannot apply in place, for example a new image."""

    strategy: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    """Upgrade strategy. `NewCluster` starts a second cluster, which needs twice the GPUs for a
    while. `NewClusterWithIncrementalUpgrade` moves the traffic in steps (see `incremental`). `None`
    ignores such changes."""
    cluster_deletion_delay_seconds: int = Field(default=1800, ge=0)
    """Seconds that the old cluster keeps running after the switch, to finish its videos. None is
    lost if this is at least `config.limits.request_timeout_s`."""
    incremental: Incremental = Incremental()
    """Settings of `NewClusterWithIncrementalUpgrade`."""


class OwnRedis(Values):
    """A Redis that the chart deploys, as a single pod."""

    image: str = "docker.io/library/redis:8-alpine"
    """Redis image."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "256Mi"})
    """Resource requests and limits of the Redis container."""
    storage: Quantity = "1Gi"
    """Size of the Redis volume. If empty, Redis only uses memory, and the loss of its pod restarts
    the Ray cluster."""
    storage_class_name: Name = ""
    """Storage class of the volume. If empty, the cluster's default is used."""


class FaultTolerance(Values):
    """Keeps the service up when the Ray head is lost. Needs a Redis that outlives the head."""

    redis: Literal["none", "own", "external"] = "none"
    """Redis to use. `none` disables fault tolerance, `own` deploys a Redis with the chart,
    `external` uses a managed Redis, preferably one that spans several zones."""
    address: str = ""
    """Address of the external Redis: `host:port`, or `rediss://host:port` for TLS."""
    password_secret: Name = ""
    """Name of an existing Secret with the Redis password under the key `password`."""
    own: OwnRedis = OwnRedis()
    """Redis that the chart deploys when `redis` is `own`."""
