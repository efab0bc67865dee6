"""Senders of webhooks as the tests use them: each with a clock and with names of its own."""

from collections.abc import Sequence
from typing import Any, cast

from serve.job_settings import WebhookSettings
from serve.jobs.store.job_store import JobStore
from serve.jobs.webhooks.deliveries import WebhookSender
from serve.jobs.webhooks.url import Resolve
from tests.unit.serve.jobs.webhook_receiver import NOW, DueJobs, Receiver


class Clock:
    """A clock that a test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def sender(store: DueJobs, settings: WebhookSettings, **options: Any) -> WebhookSender:
    """Return a sender of the webhooks in ``store``."""
    return WebhookSender(cast(JobStore, store), settings, **options)


async def send_due(store: DueJobs, sender: WebhookSender, now: float = NOW) -> None:
    """Send each webhook that is due, once."""
    for job in await store.due_webhooks(now, 99):
        await sender.send(job)


def resolver(*addresses: str, asked: list[str] | None = None) -> Resolve:
    """Return what resolves every name to ``addresses``, and adds the name to ``asked``."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if asked is not None:
            asked.append(host)
        return addresses

    return resolve


def url_of(receiver: Receiver, path: str = "/done?token=t") -> str:
    """Return a URL of a receiver."""
    return f"http://127.0.0.1:{receiver.port}{path}"
