"""Webhooks reach good receivers once, bad ones in bounded time, and forbidden ones never."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from serve.job_settings import WebhookSettings
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.record import Delivery
from serve.jobs.webhooks import call as webhook_call
from serve.jobs.webhooks import deliveries as webhooks
from serve.jobs.webhooks.deliveries import MAX_PER_HOST, WebhookSender, delay_s
from serve.jobs.webhooks.url import Resolve
from tests.unit.serve.jobs.webhook_receiver import (
    NOW,
    SECRET,
    DueJobs,
    Receiver,
    ended_job,
    endless,
    receiving,
    settings,
    silence,
    status,
)

OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NAME = "hooks.example.org"


class Clock:
    """A clock that a test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def sender(store: DueJobs, settings: WebhookSettings, **options: Any) -> WebhookSender:
    return WebhookSender(cast(JobStore, store), settings, **options)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for connections, so that a busy machine fails no test."""
    monkeypatch.setattr(webhook_call, "_CONNECT_S", 600)
    monkeypatch.setattr(webhook_call, "_READ_S", 600)


async def send_due(store: DueJobs, sender: WebhookSender, now: float = NOW) -> None:
    for job in await store.due_webhooks(now, 99):
        await sender.send(job)


def resolver(*addresses: str, asked: list[str] | None = None) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if asked is not None:
            asked.append(host)
        return addresses

    return resolve


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def url_of(receiver: Receiver, path: str = "/done?token=t") -> str:
    return f"http://127.0.0.1:{receiver.port}{path}"


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


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_final_and_is_not_followed(tmp_path: Path, code: int) -> None:
    async with receiving(status(200)) as elsewhere, receiving(status(code, f"Location: {url_of(elsewhere)}")) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        await send_due(store, sender(store, settings(tmp_path)))
    assert elsewhere.calls == []
    assert (store.webhook.state, store.webhook.next_at, store.webhook.error) == (
        "failed",
        None,
        f"the receiver answered {code}, and redirects are not followed",
    )


@pytest.mark.slow
async def test_a_slow_receiver_is_left_after_the_time_limit(tmp_path: Path) -> None:
    async with receiving(silence) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        await asyncio.wait_for(send_due(store, sender(store, settings(tmp_path, timeout_s=0.2))), 60)
    assert (store.webhook.state, store.webhook.error) == ("pending", "there was no answer within 0.2 s")


async def test_little_of_an_endless_answer_is_read_and_its_status_counts(tmp_path: Path) -> None:
    async with receiving(endless) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        await asyncio.wait_for(send_due(store, sender(store, settings(tmp_path))), 60)
    assert store.webhook.state == "delivered"


async def test_410_ends_it(tmp_path: Path) -> None:
    async with receiving(status(410)) as receiver:
        store = DueJobs(ended_job(url_of(receiver)))
        await send_due(store, sender(store, settings(tmp_path)))
    assert (store.webhook.state, store.webhook.next_at, store.webhook.attempts) == ("failed", None, 1)


async def test_a_receiver_may_ask_for_a_later_attempt_but_not_for_one_after_days(tmp_path: Path) -> None:
    for asked, given in (("600", 600), ("900000", 7200), ("soon", 0)):
        async with receiving(status(429, f"Retry-After: {asked}")) as receiver:
            store = DueJobs(ended_job(url_of(receiver)))
            await send_due(store, sender(store, settings(tmp_path), clock=Clock()))
        assert store.webhook.next_at is not None
        assert store.webhook.next_at - NOW == given if given else 3 < store.webhook.next_at - NOW < 7


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


async def test_a_name_that_stands_for_a_private_address_is_never_called(tmp_path: Path) -> None:
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(f"https://{NAME}:{receiver.port}/"))
        rules = settings(tmp_path, hosts=[NAME])
        await send_due(store, sender(store, rules, resolve=resolver("8.8.8.8", "127.0.0.1")))
    assert receiver.calls == []
    assert (store.webhook.state, store.webhook.error) == ("failed", f"refused: {NAME} has an address that is not public")


async def test_a_host_that_is_no_longer_allowed_is_not_called(tmp_path: Path) -> None:
    asked: list[str] = []
    store = DueJobs(ended_job(f"https://{NAME}/"))
    await send_due(store, sender(store, settings(tmp_path), resolve=resolver("127.0.0.1", asked=asked)))
    assert store.webhook.state == "failed"
    assert asked == []


async def test_a_name_is_resolved_once_and_the_checked_address_is_called(tmp_path: Path, authority: trustme.CA) -> None:
    asked: list[str] = []
    async with receiving(status(200), tls=server_context(authority, NAME)) as receiver:
        store = DueJobs(ended_job(f"https://{NAME}:{receiver.port}/x"))
        rules = settings(tmp_path, private_hosts=[NAME])
        options = {"resolve": resolver("127.0.0.1", asked=asked), "tls": client_context(authority)}
        await send_due(store, sender(store, rules, **options))
    assert store.webhook.error == ""
    assert asked == [NAME]
    assert receiver.server_names == [NAME]
    assert receiver.calls[0].headers["host"] == f"{NAME}:{receiver.port}"


async def test_the_next_address_is_called_if_one_does_not_answer(tmp_path: Path) -> None:
    async with receiving(status(200)) as receiver:
        store = DueJobs(ended_job(f"http://inside:{receiver.port}/"))
        rules = settings(tmp_path, private_hosts=["inside"])
        await send_due(store, sender(store, rules, resolve=resolver("127.0.0.2", "127.0.0.1")))
    assert store.webhook.state == "delivered"


@pytest.mark.parametrize("other_authority", [False, True])
async def test_a_wrong_certificate_is_a_failure(tmp_path: Path, authority: trustme.CA, other_authority: bool) -> None:
    issuer, name = (trustme.CA(), NAME) if other_authority else (authority, "other.example.org")
    async with receiving(status(200), tls=server_context(issuer, name)) as receiver:
        store = DueJobs(ended_job(f"https://{NAME}:{receiver.port}/"))
        rules = settings(tmp_path, private_hosts=[NAME])
        await send_due(store, sender(store, rules, resolve=resolver("127.0.0.1"), tls=client_context(authority)))
    assert receiver.calls == []
    assert store.webhook.state == "pending"
    assert "certificate is not valid" in store.webhook.error


async def test_a_name_that_cannot_be_resolved_and_a_closed_port_are_tried_again(tmp_path: Path) -> None:
    async def fails(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    with socket.socket() as closed:  # it has the port, so that nobody else can listen there meanwhile
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/done"
        for resolve, error in ((fails, "could not be resolved"), (resolver("127.0.0.1"), "could not be reached")):
            store = DueJobs(ended_job(url))
            await send_due(store, sender(store, settings(tmp_path), resolve=resolve))
            assert store.webhook.state == "pending"
            assert error in store.webhook.error


async def test_proxies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving(status(200)) as receiver, receiving(status(200)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        store = DueJobs(ended_job(url_of(receiver)))
        await send_due(store, sender(store, settings(tmp_path)))
    assert (len(receiver.calls), len(proxy.calls)) == (1, 0)


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
