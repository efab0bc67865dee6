"""Values of the gateway: the reverse proxy between the callers and Ray Serve."""

from pydantic import Field

from helm.generator.base import Values
from helm.generator.pods import Resources


class Gateway(Values):
    """A reverse proxy (nginx) in front of the service.

    It has the limits of the settings `config.proxy` and `config.limits.max_body_bytes`, and rejects
    requests that exceed them before they reach Ray.
    """

    enabled: bool = True
    """Whether to create the gateway. Without it, callers connect to Serve's proxies, whose own
    limits still apply. With `NewClusterWithIncrementalUpgrade` no gateway is created."""
    image: str = "docker.io/library/nginx:1.28-alpine"
    """Image with nginx and a shell."""
    replicas: int = Field(default=2, ge=1)
    """Number of pods."""
    connections: int = Field(default=4096, ge=64)
    """Connections of callers that each pod holds at the same time. Excess ones are closed."""
    requests_per_caller: int = Field(default=512, ge=0)
    """Requests from one address that each pod passes on at the same time; 0 for no limit. Further
    ones get a 503. Set `trustedProxies` where a load balancer is in front: otherwise all callers
    have its address."""
    trusted_proxies: list[str] = []
    """Addresses, as CIDR, of load balancers and reverse proxies in front of the gateway. The caller
    of a request from one of them is the last address in `X-Forwarded-For` that is not listed."""
    idle_timeout_seconds: int = Field(default=60, ge=1)
    """Seconds after which a connection without a request is closed."""
    drain_seconds: int = Field(default=300, ge=5)
    """Seconds that a deleted pod of the gateway may take to finish its requests. It ends as soon as
    it has none."""
    resources: Resources = Resources(
        requests={"cpu": "200m", "memory": "128Mi", "ephemeral-storage": "64Mi"}, limits={"memory": "512Mi"}
    )
    """Resource requests and limits of each pod."""
