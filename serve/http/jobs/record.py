"""The record of a job as callers get it, in JSON."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from serve.jobs.results.headers import ADJUSTED, IGNORED_FIELDS, adjusted_as_said
from serve.jobs.store.record import Delivery, Job

SignLink = Callable[[str, str], str]
"""Returns the query that signs a link, given the caller and the path, or nothing."""


def no_signature(caller: str, path: str) -> str:
    """Return no query: where no keys are configured, links need no signature."""
    return ""


@dataclass(frozen=True)
class Links:
    """Makes the links of jobs. ``root`` is the prefix below which the service answers."""

    sign: SignLink = no_signature
    root: str = ""

    def plain(self, job: Job) -> str:
        """Return the link to a job without a signature, for a caller that sends its key."""
        return f"{self.root}/jobs/{job.id}"

    def of(self, job: Job, part: str = "", query: str = "") -> str:
        """Return the link to a job, or to a ``part`` of it such as `/result`."""
        path = f"/jobs/{job.id}{part}"
        both = "&".join(text for text in (query, self.sign(job.caller, path)) if text)
        return f"{self.root}{path}" + (f"?{both}" if both else "")


def record_of(job: Job, *, position: int | None, links: Links) -> dict[str, Any]:
    """Return the record. ``position`` is the number of jobs that start before a queued job."""
    progress = job.progress
    return {
        "id": job.id,
        "model": job.endpoint,
        "state": job.state,
        "stage": progress.stage,
        "detail": progress.detail or None,
        "step": progress.step,
        "steps": progress.steps,
        "percent": 100.0 if job.state == "succeeded" else round(progress.percent, 1),
        "queue_position": position if job.state == "queued" else None,
        "eta_seconds": None if job.ended or progress.eta_s is None else round(progress.eta_s, 1),
        "seed": job.seed,
        "ignored_fields": list(job.ignored),
        "adjusted_fields": dict(job.adjusted),
        "attempts": job.attempt,
        "cancel_requested": job.cancel_requested,
        "created_at": _timestamp(job.created_at),
        "started_at": _timestamp(job.started_at),
        "finished_at": _timestamp(job.finished_at),
        "expires_at": _timestamp(job.expires_at),
        "request_id": job.request_id,
        "links": {
            "self": links.of(job),
            "events": links.of(job, "/events"),
            "result": links.of(job, "/result"),
            "preview": links.of(job, "/preview") if progress.preview and not job.ended else None,
        },
        "error": job.problem,
        "webhook": None if job.webhook is None else _delivery(job.webhook),
    }


def field_headers(job: Job) -> dict[str, str]:
    """Return the headers that name the fields without an effect, and those that were lowered."""
    ignored = {IGNORED_FIELDS: ", ".join(job.ignored)} if job.ignored else {}
    return ignored | ({ADJUSTED: adjusted_as_said(job.adjusted)} if job.adjusted else {})


def retry_after_s(job: Job) -> int:
    """Return the seconds after which it is worth asking for a job's record again, 1 to 30."""
    eta = job.progress.eta_s
    return 5 if eta is None else min(max(1, math.ceil(eta / 4)), 30)


def _delivery(webhook: Delivery) -> dict[str, Any]:
    """Return what became of a webhook, without the parts of its URL that may hold a secret."""
    parts = urlsplit(webhook.url)
    return {
        "url": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        "id": webhook.id,
        "state": webhook.state,
        "attempts": webhook.attempts,
        "next_at": _timestamp(webhook.next_at),
        "error": webhook.error or None,
    }


def _timestamp(seconds: float | None) -> str | None:
    """Return a time in RFC 3339, in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
