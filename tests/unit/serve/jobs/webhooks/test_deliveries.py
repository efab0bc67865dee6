"""Webhooks are sent when they are due, again until they arrive, and none of them delays another."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from deployments.telemetry import tracing
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.record import Delivery
from serve.jobs.webhooks import deliveries as webhooks
from serve.jobs.webhooks.deliveries import MAX_PER_HOST, delay_s
from tests.unit.otlp_receiver import attributes
from tests.unit.otlp_receiver import receiver as otlp_receiver
from tests.unit.serve.jobs.webhook_receiver import NOW, SECRET, DueJobs, ended_job, receiving, settings, silence, status
from tests.unit.serve.jobs.webhooks.senders import Clock, resolver, send_due, sender, url_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ERROR = 2
OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


async def test_a_receiver_that_fails_gets_the_same_webhook_again_later_under_the_same_id(tmp_path: Path) -> None:
    clock = Clock()
    async with receiving(status(500), status(503), status(204)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        sending = sender(store, settings(tmp_path), clock=clock)
        waits = []
        while store.webhook.state == "pending":
            await send_due(store, sending, clock.now)
            if store.webhook.next_at is not None:
                assert await store.due_webhooks(store.webhook.next_at - 1, 9) == []
                waits.append(store.webhook.next_at - clock.now)
                clock.now = store.webhook.next_at
    assert store.webhook == replace(ended_job("x").webhook, url=url_of(receiver), attempts=3, state="delivered")  # type: ignore[type-var]
    assert waits[1] > 1.5 * waits[0]
    assert [call.path for call in receiver.calls] == ["/done?token=t"] * 3
    assert {call.headers["webhook-id"] for call in receiver.calls} == {"msg_1"}
    assert len({call.body for call in receiver.calls}) == 1
    times = [int(call.headers["webhook-timestamp"]) for call in receiver.calls]
    assert times == sorted(set(times))


async def test_each_attempt_is_a_span_of_the_trace_that_the_job_belongs_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with otlp_receiver(monkeypatch) as collector:
        async with receiving(status(503), status(204)) as receiver:
            store = DueJobs(replace(ended_job(url_of(receiver)), trace=TRACE))
            sending = sender(store, settings(tmp_path), clock=clock)
            await send_due(store, sending, clock.now)
            assert store.webhook.next_at is not None
            clock.now = store.webhook.next_at
            await send_due(store, sending, clock.now)
        await asyncio.to_thread(tracing.flush)
        first, second = collector.named("webhook")
    for span in (first, second):
        assert f"00-{span.trace_id.hex()}-{span.parent_span_id.hex()}-01" == TRACE
    (job_id,) = store.jobs
    assert attributes(first) == {"ryla.job.id": job_id, "ryla.attempt": 1, "ryla.outcome": "repeated"}
    assert attributes(second) == {"ryla.job.id": job_id, "ryla.attempt": 2, "ryla.outcome": "delivered"}
    assert (first.status.code, first.status.message) == (ERROR, "repeated")
    assert second.status.code != ERROR


async def test_a_receiver_can_verify_it_with_any_of_the_secrets(tmp_path: Path) -> None:
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        await send_due(store, sender(store, settings(tmp_path, SECRET, OTHER)))
    (call,) = receiver.calls
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(call.body, call.headers)["type"] == "job.succeeded"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(call.body + b" ", call.headers)
    text = call.body.decode() + str(call.headers)
    assert not any(word in text for word in ("garden", "ann", SECRET[6:]))
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_receiver_may_ask_for_a_later_attempt_but_not_for_one_after_days(tmp_path: Path) -> None:
    for asked, given in (("600", 600), ("900000", 7200), ("soon", 0)):
        async with receiving(status(429, f"Retry-After: {asked}")) as receiver:
            store = DueJobs(ended_job(url_of(receiver)))
            await send_due(store, sender(store, settings(tmp_path), clock=Clock()))
        assert store.webhook.next_at is not None
        assert store.webhook.next_at - NOW == given if given else 3 < store.webhook.next_at - NOW < 7


async def test_a_fault_of_the_sender_counts_as_an_attempt_and_ends_with_the_hours(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise UnicodeError("label too long")

    clock = Clock()
    store = DueJobs(ended_job("https://example.com/done"))
    sending = sender(store, settings(tmp_path, max_hours=2, hosts=["example.com"]), clock=clock, resolve=resolve)
    while store.webhook.state == "pending":
        await send_due(store, sending, clock.now)
        assert store.webhook.error == "the service failed to send it"
        clock.now = store.webhook.next_at or clock.now
    assert store.webhook.state == "failed"
    assert store.webhook.attempts > 2


async def test_it_is_given_up_after_the_hours_that_are_set(tmp_path: Path) -> None:
    clock = Clock()
    async with receiving(status(500)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        sending = sender(store, settings(tmp_path, max_hours=2), clock=clock)
        while store.webhook.state == "pending":
            await send_due(store, sending, clock.now)
            clock.now = store.webhook.next_at or clock.now
    assert store.webhook.state == "failed"
    assert NOW + 1200 < clock.now <= NOW + 7200
    assert len(receiver.calls) == store.webhook.attempts > 5


async def test_without_secrets_nothing_is_sent_and_it_is_tried_again(tmp_path: Path) -> None:
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        rules = settings(tmp_path, "nonsense")
        await send_due(store, sender(store, rules))
        assert receiver.calls == []
        assert (store.webhook.state, store.webhook.error) == ("pending", "the service could not sign it")


async def test_of_two_senders_one_sends(tmp_path: Path) -> None:
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        (job,) = await store.due_webhooks(NOW, 9)
        made = await asyncio.gather(*(sender(store, settings(tmp_path)).send(job) for _ in range(5)))
    assert sorted(made) == [False] * 4 + [True]
    assert len(receiver.calls) == 1
    assert store.webhook.attempts == 1


async def test_a_sender_that_dies_during_an_attempt_is_followed_by_another_one(tmp_path: Path) -> None:
    clock = Clock()
    async with receiving(silence, status(200)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        first = asyncio.create_task(send_due(store, sender(store, settings(tmp_path), clock=clock)))
        await receiver.called(1)
        first.cancel()
        await asyncio.wait([first])
        assert await store.due_webhooks(NOW + 659, 9) == []
        clock.now = NOW + 660
        await send_due(store, sender(store, settings(tmp_path), clock=clock), clock.now)
    assert store.webhook.state == "delivered"
    assert [call.headers["webhook-id"] for call in receiver.calls] == ["msg_1", "msg_1"]


async def test_the_loop_sends_what_comes_and_survives_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "POLL_S", 0.01)

    class Away(DueJobs):
        polls = 0

        async def due_webhooks(self, now: float, limit: int, **after: Any) -> Sequence[Any]:
            self.polls += 1
            if self.polls < 3:
                raise StoreUnavailable
            return await super().due_webhooks(now, limit, **after)

    async with receiving(status(200)) as receiver:
        store = Away(ended_job(url_of(receiver)))
        loop = asyncio.create_task(sender(store, settings(tmp_path)).run())
        await receiver.called(1)
        await store.updated(2)
        loop.cancel()
        await asyncio.wait([loop])
    assert loop.cancelled()
    assert (store.webhook.state, len(receiver.calls)) == ("delivered", 1)


@pytest.mark.parametrize("url", ["https://xn--0.example.org/", "http://[", "no url"])
async def test_a_record_that_cannot_be_read_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """Releases before this one have taken some of these URLs."""
    monkeypatch.setattr(webhooks, "POLL_S", 0.01)
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(url, id="bad"), ended_job(url_of(receiver), id="good"))
        loop = asyncio.create_task(sender(store, settings(tmp_path)).run())
        await receiver.called(1)
        assert not loop.done()
        loop.cancel()
        await asyncio.wait([loop])
    assert loop.cancelled()


async def test_the_loop_survives_a_fault_and_tells_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "POLL_S", 0.01)

    class Faulty(DueJobs):
        polls = 0

        async def due_webhooks(self, now: float, limit: int, **after: Any) -> Sequence[Any]:
            self.polls += 1
            if self.polls < 5:
                raise KeyError("stage")
            return await super().due_webhooks(now, limit, **after)

    async with receiving(status(200)) as receiver:
        store = Faulty(ended_job(url_of(receiver)))
        loop = asyncio.create_task(sender(store, settings(tmp_path)).run())
        await receiver.called(1)
        loop.cancel()
        await asyncio.wait([loop])
    assert [record.getMessage()[:24] for record in caplog.records] == ["no webhooks are sent, si"]


@pytest.mark.parametrize("count", [99, 300, 1300])
async def test_a_slow_host_does_not_delay_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """However many of its webhooks are due before that of the other one."""
    monkeypatch.setattr(webhooks, "POLL_S", 0.01)
    async with receiving(silence) as slow, receiving(status(200)) as quick:
        jobs = [ended_job(f"http://slow:{slow.port}/", id=f"s{n}") for n in range(count)]
        store = DueJobs(*jobs, ended_job(url_of(quick), id="quick"))
        rules = settings(tmp_path, private_hosts=["127.0.0.1", "slow"], timeout_s=600)
        loop = asyncio.create_task(sender(store, rules, resolve=resolver("127.0.0.1")).run())
        async with asyncio.timeout(60):
            await quick.called(1)
            await slow.called(MAX_PER_HOST)
        loop.cancel()
        await asyncio.wait([loop])
    assert len(slow.calls) == MAX_PER_HOST


async def test_a_caller_with_many_slow_hosts_does_not_delay_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "POLL_S", 0.01)
    hosts = [f"slow{n}" for n in range(2 + webhooks.MAX_AT_ONCE // MAX_PER_HOST)]
    async with receiving(silence) as slow, receiving(status(200)) as quick:
        jobs = [ended_job(f"http://{host}:{slow.port}/", id=f"{host}-{n}") for host in hosts for n in range(60)]
        store = DueJobs(*jobs, ended_job(url_of(quick), id="quick", caller="bob"))
        rules = settings(tmp_path, private_hosts=["127.0.0.1", *hosts], timeout_s=600)
        loop = asyncio.create_task(sender(store, rules, resolve=resolver("127.0.0.1")).run())
        async with asyncio.timeout(60):
            await quick.called(1)
            await slow.called(webhooks.MAX_PER_CALLER)
        loop.cancel()
        await asyncio.wait([loop])
    assert len(slow.calls) == webhooks.MAX_PER_CALLER < webhooks.MAX_AT_ONCE


async def test_webhooks_that_were_passed_over_are_sent_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll looks on where the last one stopped, and begins anew at the end."""
    monkeypatch.setattr(webhooks, "POLL_S", 0.001)
    monkeypatch.setattr(webhooks, "PAGE", 10)
    monkeypatch.setattr(webhooks, "PAGES", 1)
    async with receiving(status(200)) as receiver:
        jobs = [ended_job(url_of(receiver), id=f"j{n}", webhook=Delivery(url=url_of(receiver), id=f"m{n}")) for n in range(30)]
        store = DueJobs(*jobs)
        loop = asyncio.create_task(sender(store, settings(tmp_path)).run())
        async with asyncio.timeout(60):
            await store.updated(2 * len(jobs))
        loop.cancel()
        await asyncio.wait([loop])
    assert sorted(call.headers["webhook-id"] for call in receiver.calls) == sorted(f"m{n}" for n in range(30))


def test_delays_grow_to_two_hours_and_differ() -> None:
    assert all(3.75 <= delay_s(1) <= 6.25 for _ in range(50))
    assert all(5400 <= delay_s(n) <= 9000 for n in (8, 20, 1000))
    assert len({delay_s(3) for _ in range(10)}) > 1
