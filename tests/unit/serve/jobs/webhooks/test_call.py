"""One call of a receiver: which address gets it, and what its answer means."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from serve.jobs.webhooks.call import Answer, WebhookCaller
from tests.unit.serve.jobs.webhook_receiver import DueJobs, ended_job, endless, receiving, settings, silence, status
from tests.unit.serve.jobs.webhooks.senders import resolver, send_due, sender, url_of

NAME = "hooks.example.org"


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


@pytest.mark.parametrize(
    ("code", "headers", "answer"),
    [
        (200, [], Answer()),
        (204, ["Retry-After: 5"], Answer()),
        (404, [], Answer("the receiver answered 404")),
        (503, ["Retry-After: 120"], Answer("the receiver answered 503", retry_after_s=120)),
        (429, ["Retry-After: 999999"], Answer("the receiver answered 429", retry_after_s=999_999)),
        (429, ["Retry-After: 1000000"], Answer("the receiver answered 429")),
        (429, ["Retry-After: -5"], Answer("the receiver answered 429")),
        (429, ["Retry-After: 1e5"], Answer("the receiver answered 429")),
        (429, ["Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"], Answer("the receiver answered 429")),
        (410, ["Retry-After: 5"], Answer("the receiver answered 410: it does not want this webhook", final=True)),
        (307, ["Location: /"], Answer("the receiver answered 307, and redirects are not followed", final=True)),
    ],
)
async def test_the_status_tells_whether_it_is_sent_again_and_when(
    tmp_path: Path, code: int, headers: list[str], answer: Answer
) -> None:
    async with receiving(status(code, *headers)) as receiver:
        caller = WebhookCaller(settings(tmp_path), resolve=resolver("127.0.0.1"), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert await caller.call(url_of(receiver), {"webhook-id": "msg_1"}, b"the body") == answer
    (call,) = receiver.calls
    assert (call.path, call.body) == ("/done?token=t", b"the body")
    assert {name: call.headers[name] for name in ("webhook-id", "user-agent", "host")} == {
        "webhook-id": "msg_1",
        "user-agent": "ryla-webhooks",
        "host": f"127.0.0.1:{receiver.port}",
    }


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH_9.6\r\n"], ids=["nothing", "half a line", "ssh"])
async def test_a_receiver_that_answers_nothing_of_use_is_told_without_what_it_sent(tmp_path: Path, answer: bytes) -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with receiving(break_off) as receiver:
        caller = WebhookCaller(settings(tmp_path), resolve=resolver("127.0.0.1"), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        told = await caller.call(url_of(receiver), {}, b"the body")
    assert told == Answer("the receiver broke off the call (RemoteProtocolError)")


async def test_a_name_that_no_resolver_takes_is_refused_for_good(tmp_path: Path) -> None:
    """A job of an earlier release may have such a URL."""
    asked: list[str] = []
    rules, tls = settings(tmp_path, hosts=["*.example.org"]), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    caller = WebhookCaller(rules, resolve=resolver("8.8.8.8", asked=asked), tls=tls)
    answer = await caller.call("https://a..example.org/", {}, b"the body")
    assert (answer.final, answer.error.partition(":")[0], asked) == (True, "refused", [])
