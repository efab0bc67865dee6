"""Values of jobs: where their records and files are, and the secrets for both."""

from typing import Literal

from pydantic import Field

from helm.generator.base import Name, Object, Values


class Jobs(Values):
    """Where jobs are kept, so that any replica answers for any job and none is lost with a pod.

    Other settings of jobs are in `config.jobs`.
    """

    store: Literal["embedded", "own", "external"] = "embedded"
    """Where the records of jobs are. `embedded`: on the disk of the pod, and lost with it, so that
    the Ingress and the Runner must be in one pod. `own`: in the chart's Redis
    (`faultTolerance.redis: own`), apart from Ray's data. `external`: in the Redis at `address`."""
    database: int = Field(default=1, ge=1, le=15)
    """Number of the logical database in the chart's Redis. Ray uses database 0."""
    address: str = Field(default="", pattern=r"^(rediss?://[^@/]+(/[0-9]+)?)?$")
    """URL of the external Redis with the number of a database, for example
    `rediss://redis.example.org:6380/1`. It contains no password."""
    password_secret: Name = ""
    """Name of the Secret with the password of the external Redis, under the key `password`. The
    chart's own Redis has that of `faultTolerance.passwordSecret`."""
    files: str = ""
    """URL of the folder or bucket with the requests and results of jobs, as fsspec opens it, for
    example `s3://bucket/ryla`. All replicas must reach it. `serviceAccountName` may give them an
    identity with access to it."""
    env: list[Object] = []
    """Environment variables for access to the files, for example from a Secret with the
    credentials of a bucket. They are added to every Ray container."""
    webhook_secret: Name = ""
    """Name of the Secret with the secrets that sign webhooks, under the key `secrets`: one
    `whsec_...` a line. The permitted hosts are set in `config.jobs.webhooks`."""
    peers: list[Object] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    """Peers that match the external Redis, the bucket and the receivers of webhooks. They are
    reached on the port of `address` and on port 443 if `networkPolicy.egress` is enabled."""
