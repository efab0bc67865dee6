"""Settings of jobs: their store, their files, their limits and their webhooks.

They are part of ``serve.config.AppConfig``. The attribute docstrings describe the chart's values.
"""

import math
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from deployments.settings import Settings


class Slots(Settings):
    """How many jobs run at a time in all Runners together, by what they wait for.

    A job that has its turn is a request of its model's replicas, and it is by these that Serve
    scales them: a slot should hold at least as many jobs as the largest number of replicas runs.
    """

    wan26: int = Field(default=4, ge=1)
    """Number of videos that Wan26 makes, with or without a face swap."""
    wan22_gguf: int = Field(default=4, ge=1)
    """Number of videos that Wan22GGUF makes, with or without a face swap."""
    image_swap: int = Field(default=16, ge=1)
    """Number of face swaps in images."""
    film_swap: int = Field(default=4, ge=1)
    """Number of face swaps in source videos. They are counted apart from images, so that a picture
    does not wait behind films."""

    def by_name(self) -> dict[str, int]:
        """Return the number of jobs by the slot's name, such as `wan22-gguf`."""
        return {name.replace("_", "-"): getattr(self, name) for name in type(self).model_fields}


class WebhookSettings(Settings):
    """Webhooks, which tell a host of the caller's choice that a job has ended.

    They are off until `hosts` or `private_hosts` names a host.
    """

    hosts: tuple[str, ...] = ()
    """Hosts to which webhooks may be sent, over https and at public addresses only. Each is an
    exact name, or `*.example.org` for every name below `example.org`."""
    private_hosts: tuple[str, ...] = ()
    """Hosts to which webhooks may also be sent over http and at private or loopback addresses. Each
    is an exact name or an address; it need not be in `hosts` too."""
    secret_file: Path | None = None
    """File of the secrets that sign webhooks, one `whsec_...` a line. Each webhook is signed with
    all of them, so that a new one can be added before the old one is removed. The file is read for
    each webhook."""
    max_hours: float = Field(default=24, gt=0)
    """Hours after the end of a job during which a webhook that fails is sent again; not more than
    the job is kept (`jobs.keep_s`)."""
    timeout_s: float = Field(default=10, gt=0)
    """Seconds within which a receiver must have answered."""

    @property
    def enabled(self) -> bool:
        """Whether any host may be sent a webhook."""
        return bool(self.hosts or self.private_hosts)

    @field_validator("hosts", "private_hosts", mode="after")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for host in hosts:
            wildcard = info.field_name == "hosts" and host.startswith("*.")
            if not _is_host(host.removeprefix("*.") if wildcard else host):
                raise ValueError(
                    f"{host!r} is not a host name in lower case, such as `hooks.example.org`, without scheme, port or path"
                    + (", nor `*.example.org`" if info.field_name == "hosts" else "")
                )
        return hosts

    @model_validator(mode="after")
    def _signed(self) -> "WebhookSettings":
        if self.enabled and self.secret_file is None:
            raise ValueError("webhooks are signed: set secret_file to a file of secrets, or remove the hosts")
        return self


_PUBLISHED = {
    "keep_s",
    "keep_plain_s",
    "max_attempts",
    "max_running_per_caller",
    "max_queued_per_caller",
    "max_queued",
    "max_kept_bytes_per_caller",
    "max_kept_bytes",
    "min_free_bytes",
    "requests_per_minute",
    "max_wait_s",
    "redirect_after_s",
    "max_listeners_per_caller",
}


class JobSettings(Settings):
    """Jobs: where their records and files are kept, and how many one caller may have."""

    store: str = "embedded"
    """Where records are kept: `embedded`, which is SQLite in `folder` and serves one machine, or
    the URL of a Redis that all replicas reach, `redis://HOST:PORT/DATABASE` or `rediss://...`. A
    URL may name a user, but no password."""
    store_password_file: Path | None = None
    """File with the password of Redis. Space around it is ignored."""
    folder: Path = Path("~/.local/state/ryla/jobs")
    """Folder of the embedded store, on a disk of the machine on which all replicas of the ingress
    and the Runner are. `~` is the home of the user that runs them. Here and in `store` and `files`,
    each application of Serve has a place of its own, by its name."""
    files: str | None = None
    """Where the requests, results and previews of jobs are kept: the URL of a folder that fsspec
    opens and that all replicas reach, such as `s3://bucket/ryla`, `gs://bucket/ryla` or
    `file:///shared/ryla`. If absent, they are in `folder`. Credentials come from the environment or
    the identity of the machine."""
    lease_s: float = Field(default=15, ge=3)
    """Seconds without a sign of life from the Runner of a job, after which another one takes the
    job up. A Runner gives a sign each second."""
    keep_s: float = Field(default=86_400, gt=0)
    """Seconds for which an ended job, its result and its idempotency key are kept."""
    keep_plain_s: float = Field(default=3600, gt=0)
    """Seconds for which the record of a plain POST, whose result only its caller got, is kept after
    its end, but no longer than `keep_s`."""
    max_kept_bytes_per_caller: int | None = Field(default=10 * 2**30, ge=1)
    """Maximum size of the files that are kept for the jobs of one caller, 10 GiB: requests until
    jobs end, then results. A further job is refused with a 429; none that was accepted is lost. A
    plain POST of up to 1 MiB keeps nothing and is not refused. If null, there is no such limit."""
    max_kept_bytes: int | None = Field(default=None, ge=1)
    """Maximum size of the files that are kept for all jobs. A further job is refused with a 503. If
    absent, there is no such limit."""
    min_free_bytes: int = Field(default=2 * 2**30, ge=0)
    """Bytes that stay free on the disk with the files of jobs, 2 GiB, if `files` is a folder. A job
    that would leave less is refused with a 503."""
    max_attempts: int = Field(default=3, ge=1)
    """Number of times that a job is begun. When the last one is lost too, the job fails."""
    slots: Slots = Slots()
    """How many jobs run at a time."""
    max_running_per_caller: int = Field(default=16, ge=1)
    """Maximum number of jobs of one caller that run at a time in each slot. Callers take turns
    whatever this is."""
    max_queued_per_caller: int = Field(default=256, ge=1)
    """Maximum number of jobs of one caller that wait for their turn. A further one gets a 429."""
    max_queued: int = Field(default=900, ge=1)
    """Maximum number of jobs of all callers that wait for their turn. A further one gets a 503.
    Jobs wait in the Runners, of which each takes 1,000, those that run included: with several
    Runners it can be as much larger."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Maximum number of jobs that one caller may send in a minute. A further one gets a 429. If
    absent, there is no such limit."""
    max_wait_s: float = Field(default=600, ge=1)
    """Maximum number of seconds for which `Prefer: wait=N` and `?wait=N` wait for a result. Longer
    waits are shortened to it."""
    redirect_after_s: float | None = Field(default=None, gt=0)
    """Seconds after which a POST that waits for its result is answered by a 303 to the result,
    which redirects to itself until it is there. It is for proxies that cut long requests. If
    absent, a POST waits as long as it takes."""
    max_listeners: int = Field(default=600, ge=1)
    """Maximum number of connections to one replica of the ingress that listen to events of jobs or
    wait for results under `/jobs`. Further ones get a 503."""
    max_listeners_per_caller: int = Field(default=300, ge=1)
    """Maximum number of such connections of one caller to one replica."""
    webhooks: WebhookSettings = WebhookSettings()
    """Webhooks on completion."""

    def kept_s(self, *, durable: bool) -> float:
        """Return how many seconds an ended job is kept, by whether its result is stored."""
        return self.keep_s if durable else min(self.keep_s, self.keep_plain_s)

    def published(self) -> dict[str, Any]:
        """Return the limits that callers may know, by the names of the settings."""
        return self.model_dump(include=_PUBLISHED) | {"slots": self.slots.by_name(), "webhooks": self.webhooks.enabled}

    @property
    def embedded(self) -> bool:
        """Whether the records are on the disk of one machine."""
        return self.store == "embedded"

    @property
    def local_folder(self) -> Path:
        """The folder of the embedded store on this machine."""
        return self.folder.expanduser()

    @field_validator("store", mode="after")
    @classmethod
    def _is_a_store(cls, store: str) -> str:
        if store == "embedded":
            return store
        url = urlsplit(store)
        if url.scheme not in ("redis", "rediss") or not url.hostname:
            raise ValueError("must be `embedded` or a URL such as `redis://HOST:6379/1` or `rediss://HOST:6380/1`")
        if url.password is not None or "password" in parse_qs(url.query, keep_blank_values=True):
            raise ValueError("has a password: move it to a file and name that in store_password_file")
        if url.path not in ("", "/") and not url.path[1:].isdecimal():
            raise ValueError(f"`{url.path[1:]}` is not the number of a database, as in `redis://HOST:6379/1`")
        return store

    @field_validator("files", mode="after")
    @classmethod
    def _is_a_folder_url(cls, files: str | None) -> str | None:
        if files is None:
            return None
        url = urlsplit(files)
        if not url.scheme or "://" not in files:
            raise ValueError("must be a URL such as `s3://bucket/ryla` or `file:///shared/ryla`")
        if url.password is not None:
            raise ValueError("has a password: credentials come from the environment or the identity of the machine")
        return files

    @model_validator(mode="after")
    def _kept_for_webhooks(self) -> "JobSettings":
        wanted_s = 3600 * self.webhooks.max_hours
        if self.webhooks.enabled and self.keep_s < wanted_s:
            raise ValueError(
                f"a webhook that fails is sent again for webhooks.max_hours = {self.webhooks.max_hours:g}, but its job is deleted "
                f"after keep_s = {self.keep_s:g} s: set keep_s to {wanted_s:g} at least, or webhooks.max_hours to "
                f"{math.floor(self.keep_s / 3.6) / 1000:g} at most"
            )
        return self

    @model_validator(mode="after")
    def _one_store(self) -> "JobSettings":
        if self.embedded and self.store_password_file is not None:
            raise ValueError("store_password_file has no effect on an embedded store: set store to the URL of Redis")
        if not self.embedded and self.files is None:
            raise ValueError("a store that all replicas share needs files that they share: set files to a URL")
        return self


_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def _is_host(name: str) -> bool:
    """Whether ``name`` is a host name in lower-case ASCII, or an address without brackets."""
    try:
        ip_address(name)
    except ValueError:
        return 0 < len(name) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
    return True
