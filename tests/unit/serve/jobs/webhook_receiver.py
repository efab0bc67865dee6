"""A receiver of webhooks on the loopback interface, and a store of jobs whose webhooks are due."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve.job_settings import WebhookSettings
from serve.jobs.store.record import Delivery, Job

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_800_000_000.0

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def status(code: int, *headers: str) -> Script:
    """Return a script that answers with a status and no body."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code} X", "Content-Length: 0", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()

    return answer


async def silence(writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the caller leaves."""
    await writer.wait_closed()


async def endless(writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 2**14)
        await writer.drain()


@dataclass
class Call:
    """One POST that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers as its scripts say, the last one again and again."""

    scripts: list[Script]
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def called(self, count: int) -> None:
        """Wait until ``count`` calls have arrived."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.calls) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.calls.append(Call(head[0].split()[1], headers, body))
            async with self.changed:
                self.changed.notify_all()
            await (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The caller has left, as some tests want.
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver on 127.0.0.1 while the block runs."""
    receiver = Receiver(list(scripts))
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: receiver.server_names.append(name)
    server = await asyncio.start_server(receiver.accept, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)


class DueJobs:
    """The part of a job store that webhooks need: due jobs, and compare-and-swap."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.history: list[Delivery | None] = []
        self.changed = asyncio.Condition()

    async def due_webhooks(self, now: float, limit: int, *, after: Job | None = None) -> Sequence[Job]:
        def due(job: Job) -> bool:
            webhook = job.webhook
            return job.ended and webhook is not None and webhook.state == "pending" and (webhook.next_at or 0) <= now

        found = [job for job in self.jobs.values() if due(job)]
        if after is not None:
            ids = [job.id for job in found]
            found = found[ids.index(after.id) + 1 :] if after.id in ids else []
        return found[:limit]

    async def update(self, job: Job, *, expected: Job) -> bool:
        await asyncio.sleep(0)  # another sender may come in between
        if self.jobs.get(job.id) != expected:
            return False
        self.jobs[job.id] = job
        self.history.append(job.webhook)
        async with self.changed:
            self.changed.notify_all()
        return True

    async def updated(self, count: int) -> None:
        """Wait until ``count`` updates have been made."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.history) >= count)

    @property
    def webhook(self) -> Delivery:
        """The webhook of the only job."""
        (job,) = self.jobs.values()
        assert job.webhook is not None
        return job.webhook


def ended_job(url: str, **changes: Any) -> Job:
    """Return a job that has succeeded, and whose webhook goes to ``url``."""
    job = Job(
        id="0" * 32,
        caller="ann",
        endpoint="wan2.6",
        slot="wan26",
        request_id="r",
        media_type="video/mp4",
        created_at=NOW - 60,
        deadline_at=NOW + 60,
        expires_at=NOW + 86_400,
        state="succeeded",
        finished_at=NOW,
        details={"prompt": "a secret garden"},
        idempotency_key="ann's key",
        webhook=Delivery(url=url, id="msg_1"),
    )
    return replace(job, **changes)


def settings(folder: Path, *secrets: str, **changes: Any) -> WebhookSettings:
    """Return settings with ``secrets``, or with one, and with what a test changes."""
    file = folder / "webhook-secrets"
    file.write_text("\n".join(secrets or (SECRET,)))
    return WebhookSettings.model_validate({"private_hosts": ["127.0.0.1"], "secret_file": file, "timeout_s": 600, **changes})
