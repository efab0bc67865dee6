"""No log line about a webhook has its address, the secrets that sign it, or what its job made."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.webhooks import deliveries
from tests.unit.serve.http.asgi import until
from tests.unit.serve.jobs.webhook_receiver import NOW, SECRET, DueJobs, ended_job, endless, receiving, settings, status
from tests.unit.serve.jobs.webhooks.senders import Clock, resolver, send_due, sender, url_of

PATH = "/kolibri?token=kolibri"
MARKS = ("kolibri", SECRET[6:], "garden", "ann's key")
LATE = NOW + 10 * 86_400
"""A time at which no webhook is tried again, so that each one ends with a line."""


def checked_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the service's lines with their tracebacks, after a check that none has a secret."""
    formatter = logging.Formatter("%(message)s")
    lines = [formatter.format(record) for record in caplog.records if record.name == "ray.serve"]
    assert [line for line in lines if any(mark in line for mark in MARKS)] == []
    return lines


@pytest.mark.parametrize("code", [204, 302, 410, 500])
async def test_an_answer_leaves_nothing_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int) -> None:
    clock = Clock()
    clock.now = LATE
    with caplog.at_level(logging.INFO):
        async with receiving(status(code, f"Location: http://127.0.0.1{PATH}")) as receiver:
            store = DueJobs(ended_job(url_of(receiver, PATH)))
            await send_due(store, sender(store, settings(tmp_path), clock=clock), LATE)
    assert store.webhook.state == ("delivered" if code == 204 else "failed")
    assert len(checked_lines(caplog)) == (code != 204)


@pytest.mark.parametrize(
    ("url", "changes"),
    [
        (f"http://127.0.0.1:9{PATH}", {}),
        (f"http://127.0.0.1:9{PATH}", {"private_hosts": []}),
        (f"https://kolibri.example{PATH}", {"private_hosts": ["kolibri.example"]}),
        (f"http://[kolibri{PATH}", {}),
    ],
    ids=["nobody listens", "a private address", "no TLS", "no URL"],
)
async def test_a_receiver_that_is_not_reached_leaves_nothing_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, changes: dict[str, Any]
) -> None:
    clock = Clock()
    clock.now = LATE
    store = DueJobs(ended_job(url))
    with caplog.at_level(logging.INFO):
        await send_due(store, sender(store, settings(tmp_path, **changes), clock=clock, resolve=resolver("127.0.0.1")), LATE)
    assert store.webhook.state == "failed"
    assert len(checked_lines(caplog)) == 1


async def test_secrets_that_cannot_be_read_are_not_quoted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with receiving(endless) as receiver:
            store = DueJobs(ended_job(url_of(receiver, PATH)))
            await send_due(store, sender(store, settings(tmp_path, f"{SECRET}kolibri, not base64")))
    assert receiver.calls == []
    assert any("cannot be signed" in line for line in checked_lines(caplog))


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a fault")])
async def test_a_fault_of_the_sender_leaves_nothing_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed = asyncio.Event()

    class Broken(DueJobs):
        async def update(self, job: Any, *, expected: Any) -> bool:
            failed.set()
            raise error

    monkeypatch.setattr(deliveries, "POLL_S", 0.001)
    store = Broken(ended_job(f"http://127.0.0.1:9{PATH}"))
    clock = Clock()
    with caplog.at_level(logging.INFO):
        running = asyncio.ensure_future(sender(store, settings(tmp_path), clock=clock).run())
        await failed.wait()
        await until(lambda: bool(caplog.records))
        running.cancel()
        await asyncio.wait({running})
    assert any("job 0000" in line for line in checked_lines(caplog))
