import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message

from serve.http.jobs.event_stream import MAX_BUFFERED, EventStream
from serve.http.jobs.listeners import Listeners
from serve.jobs.desk import News
from tests.unit.serve.http.asgi import Exchange, http_scope, until
from tests.unit.serve.http.job_service import make_job_service
from tests.unit.serve.jobs.fake_jobs import FakeJobs, make_job


@dataclass
class Listener(Exchange):
    """A listener that reads events as they come."""

    task: "asyncio.Task[None]" = field(init=False)

    def start(self, jobs: FakeJobs, path: str, headers: dict[str, str] | None = None, **settings: Any) -> "Listener":
        path, _, query = path.partition("?")
        scope = {**http_scope(path, "GET", headers), "query_string": query.encode(), "client": ("testclient", 1)}
        self.task = asyncio.ensure_future(make_job_service(jobs, **settings)(scope, self.receive, self.send))
        return self

    @property
    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        """The id, name and data of each event so far."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
            if lines:
                assert list(lines) == ["id", "event", "data"]
                found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
        return found


async def finished(jobs: FakeJobs) -> str:
    """Add a job that has gone through its stages, and return its id."""
    job = jobs.add(make_job())
    await jobs.step(job.id, stage="denoising", step=1, steps=2, percent=40)
    await jobs.step(job.id, stage="decoding", percent=80, preview=True)
    await jobs.succeed(job.id, b"the file")
    return job.id


@pytest.mark.parametrize("accept", [None, "text/event-stream"])
async def test_listeners_get_every_step_and_then_the_end(accept: str | None) -> None:
    jobs = FakeJobs()
    job = jobs.add(make_job())
    path = f"/jobs/{job.id}" if accept else f"/jobs/{job.id}/events"
    listener = Listener().start(jobs, path, {"accept": accept} if accept else None)
    await until(lambda: len(listener.events) == 1 if listener.sent else False)
    await jobs.step(job.id, stage="denoising", step=1, steps=2, percent=40)
    await jobs.step(job.id, stage="decoding", percent=80, preview=True)
    await jobs.succeed(job.id, b"the file")
    await listener.task
    assert [(number, name) for number, name, _ in listener.events] == [
        (1, "progress"),
        (2, "progress"),
        (3, "progress"),
        (4, "succeeded"),
    ]
    records = [record for _, _, record in listener.events]
    assert [record["stage"] for record in records] == ["queued", "denoising", "decoding", "writing"]
    assert [record["percent"] for record in records] == [0, 40, 80, 100]
    assert [record["queue_position"] for record in records] == [0, None, None, None]
    assert records[2]["links"]["preview"] == f"/jobs/{job.id}/preview"
    assert (listener.status, listener.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (listener.headers["cache-control"], listener.headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-length" not in listener.headers
    assert listener.sent[-1]["more_body"] is False
    assert jobs.following == 0


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_the_last_event_names_how_the_job_ended(state: str) -> None:
    jobs = FakeJobs()
    job = jobs.add(make_job())
    await jobs.change(job.id, state=state)
    listener = Listener().start(jobs, f"/jobs/{job.id}/events")
    await listener.task
    assert [name for _, name, _ in listener.events] == ["progress", state]


async def test_a_listener_goes_on_after_its_last_event() -> None:
    jobs = FakeJobs()
    job_id = await finished(jobs)
    by_header = Listener().start(jobs, f"/jobs/{job_id}/events", {"last-event-id": "2"})
    by_query = Listener().start(jobs, f"/jobs/{job_id}/events?last_event_id=2")
    await asyncio.gather(by_header.task, by_query.task)
    assert [number for number, _, _ in by_header.events] == [3, 4] == [number for number, _, _ in by_query.events]
    over = Listener().start(jobs, f"/jobs/{job_id}/events", {"last-event-id": "4"})
    await over.task
    assert (over.status, over.body) == (204, b"")  # a browser then stops to connect again
    wrong = Listener().start(jobs, f"/jobs/{job_id}/events", {"last-event-id": "x"})
    await wrong.task
    assert (wrong.status, wrong.problem["errors"][0]["header"]) == (422, "Last-Event-ID")


@pytest.mark.parametrize("ended", [False, True])
async def test_an_id_that_the_job_has_not_had_counts_as_none(ended: bool) -> None:
    jobs = FakeJobs()
    job = jobs.add(make_job())
    if ended:
        await jobs.succeed(job.id, b"the file")
    wrong = Listener().start(jobs, f"/jobs/{job.id}/events", {"last-event-id": "99"})
    honest = Listener().start(jobs, f"/jobs/{job.id}/events", {"last-event-id": "1"})
    if not ended:
        await until(lambda: jobs.following == 2)
        await jobs.succeed(job.id, b"the file")
    await asyncio.gather(wrong.task, honest.task)
    assert [(number, name) for number, name, _ in wrong.events] == [(1, "progress"), (2, "succeeded")]
    assert [(number, name) for number, name, _ in honest.events] == [(2, "succeeded")]


async def test_a_listener_that_leaves_frees_its_place() -> None:
    jobs = FakeJobs()
    listeners = Listeners(limit=2, limit_of_one=1)
    job = jobs.add(make_job())
    listener = Listener().start(jobs, f"/jobs/{job.id}/events", listeners=listeners)
    await until(lambda: jobs.following == 1)
    refused = Listener().start(jobs, f"/jobs/{job.id}/events", listeners=listeners)
    await refused.task
    assert (refused.status, "1 connections of yours" in refused.problem["detail"]) == (503, True)
    listener.leave()
    await listener.task
    assert (jobs.following, listeners.count) == (0, 0)


async def test_a_listener_whose_request_is_cancelled_frees_its_place() -> None:
    jobs = FakeJobs()
    listeners = Listeners(limit=2, limit_of_one=1)
    job = jobs.add(make_job())
    listener = Listener().start(jobs, f"/jobs/{job.id}/events", listeners=listeners)
    await until(lambda: jobs.following == 1)
    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task
    assert (jobs.following, listeners.count) == (0, 0)


async def test_a_store_that_is_lost_ends_the_stream_and_the_next_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    jobs = FakeJobs()
    job = jobs.add(make_job())
    await jobs.step(job.id, stage="denoising")
    listener = Listener().start(jobs, f"/jobs/{job.id}/events")
    await until(lambda: len(listener.events) == 2 if listener.sent else False)
    with caplog.at_level(logging.WARNING, "ray.serve"):
        await jobs.break_down()
        await listener.task
    assert listener.sent[-1]["more_body"] is False
    assert "ends early" in caplog.text
    jobs.broken = False
    await jobs.succeed(job.id, b"the file")
    again = Listener().start(jobs, f"/jobs/{job.id}/events", {"last-event-id": "2"})
    await again.task
    assert [(number, name) for number, name, _ in again.events] == [(3, "succeeded")]


async def never() -> AsyncIterator[News]:
    await asyncio.Event().wait()
    yield News(make_job(), 1, None)


def data_of(news: News) -> dict[str, Any]:
    return {"id": news.id}


async def test_a_silent_stream_has_comments() -> None:
    exchange = Exchange()
    stream = EventStream(never(), data_of, release=lambda: None, heartbeat_s=0.001)
    task = asyncio.ensure_future(stream(http_scope(), exchange.receive, exchange.send))
    await until(lambda: len(exchange.sent) >= 4)
    exchange.leave()
    await task
    texts = [message["body"] for message in exchange.sent[1:]]
    assert texts[0].startswith(b"retry: ")
    assert set(texts[1:]) == {b": still here\n\n"}


async def test_a_slow_reader_misses_old_steps_instead_of_piling_them_up() -> None:
    total = 10 * MAX_BUFFERED
    released: list[bool] = []
    read = 0

    async def many() -> AsyncIterator[News]:
        nonlocal read
        job = make_job()
        for number in range(1, total + 1):
            read = number
            yield News(job, number, None)
            await asyncio.sleep(0)

    gate = asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        await gate.wait()

    stream = EventStream(many(), data_of, release=lambda: released.append(True))
    task = asyncio.ensure_future(stream(http_scope(), Exchange().receive, send))
    await until(lambda: read == total)
    gate.set()
    await task
    ids = [int(text.split(b"\n")[0][4:]) for text in sent if text.startswith(b"id: ")]
    assert ids == list(range(total - MAX_BUFFERED + 1, total + 1))
    assert released == [True]


async def test_a_listener_whose_call_is_cancelled_twice_gives_its_place_back() -> None:
    released: list[bool] = []
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> AsyncIterator[News]:
        try:
            await asyncio.Event().wait()
            yield News(make_job(), 1, None)
        finally:
            ending.set()
            await may_end.wait()

    exchange = Exchange()
    stream = EventStream(slow_to_end(), data_of, release=lambda: released.append(True))
    task = asyncio.ensure_future(stream(http_scope(), exchange.receive, exchange.send))
    await until(lambda: bool(exchange.sent))
    task.cancel()
    await ending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == [True]
    may_end.set()


async def test_a_fault_of_the_service_is_not_hidden() -> None:
    async def broken() -> AsyncIterator[News]:
        yield News(make_job(), 1, None)
        raise RuntimeError("a fault")

    exchange = Exchange()
    with pytest.raises(RuntimeError, match="a fault"):
        await EventStream(broken(), data_of, release=lambda: None)(http_scope(), exchange.receive, exchange.send)


async def test_a_change_of_the_position_alone_has_no_id() -> None:
    async def moves() -> AsyncIterator[News]:
        job = make_job()
        yield News(job, 1, 2)
        yield News(job, None, 1)

    exchange = Exchange()
    stream = EventStream(moves(), lambda news: {"queue_position": news.position}, release=lambda: None)
    await stream(http_scope(), exchange.receive, exchange.send)
    assert [message["body"] for message in exchange.sent[2:4]] == [
        b'id: 1\nevent: progress\ndata: {"queue_position":2}\n\n',
        b'event: progress\ndata: {"queue_position":1}\n\n',
    ]
