import asyncio
import gc
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.config import ProxySettings
from serve.http.protocol import body_room, whole_body
from serve.http.protocol.whole_body import FIRST_BYTES, SMALL_BYTES, WholeBody
from serve.problems import Problem
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope, pass_lifespan, until

MIB = 2**20
CHUNKED = {"transfer-encoding": "chunked"}


@dataclass
class Trickle(Exchange):
    """A client that sends its body piece by piece, as the test says."""

    pieces: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def receive(self) -> Message:
        """Return the next piece once it is there."""
        message = await self.pieces.get()
        self.received += 1
        return message

    def give(self, body: bytes, *, more: bool = True) -> None:
        """Send a piece."""
        self.pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        """Close the connection."""
        self.pieces.put_nowait({"type": "http.disconnect"})


def whole(app: ASGIApp, *, max_bytes: int = 8 * MIB, keys: bool = False, **settings: Any) -> WholeBody:
    return WholeBody(app, ProxySettings.model_validate(settings), max_bytes, keys=keys)


def declared(length: int) -> dict[str, str]:
    return {"content-length": str(length)}


@pytest.mark.parametrize("headers", [declared(11), CHUNKED], ids=["known length", "unknown length"])
async def test_a_body_is_passed_on_once_it_is_complete(headers: dict[str, str]) -> None:
    exchange = Exchange(body_messages(b"one", b"two", b"three"))
    seen: list[Message] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        assert exchange.received == 3  # all of it has arrived before the application is called
        seen.append(await receive())
        exchange.leave()
        seen.append(await receive())

    await whole(app)(http_scope(headers=headers), exchange.receive, exchange.send)
    assert seen == [*body_messages(b"onetwothree"), {"type": "http.disconnect"}]


async def test_bodies_without_a_key_leave_the_room_of_others_alone() -> None:
    layer = whole(EchoApp(), keys=True)
    assert layer.keyless is not None
    exchanges = [Trickle() for _ in range(3)]
    scopes = [http_scope(headers=declared(8 * MIB)) for _ in exchanges]
    scopes[2]["state"] = {"caller": "anna"}
    tasks = [
        asyncio.ensure_future(layer(scope, exchange.receive, exchange.send))
        for scope, exchange in zip(scopes, exchanges, strict=True)
    ]
    for exchange in exchanges[::-1]:
        exchange.give(bytes(FIRST_BYTES + 1))
    keyless = layer.keyless
    assert keyless is not None
    await until(lambda: len(keyless._waiting) == 1)  # one large body has it, and another one waits
    assert layer.large.capacity - layer.large.free == 8 * MIB  # that of the caller with a key
    for exchange in exchanges:
        exchange.leave()
    await asyncio.gather(*tasks)
    assert (layer.keyless.free, layer.large.free) == (layer.keyless.capacity, layer.large.capacity)


async def test_with_two_callers_the_bodies_of_one_do_not_shut_out_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bodies of one caller take all of the room for large ones, and arrive fast enough."""
    monkeypatch.setattr(body_room, "GIVE_WAY_AFTER", 0.0)
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 3600.0)
    layer = whole(EchoApp(), max_receiving_bytes=32 * MIB)
    exchanges = [Trickle() for _ in range(4)]
    tasks = []
    for number, exchange in enumerate(exchanges):
        scope = {**http_scope(headers=declared(8 * MIB)), "client": ("192.0.2.2" if number == 3 else "192.0.2.1", 1)}
        exchange.give(bytes(FIRST_BYTES + 1))
        tasks.append(asyncio.ensure_future(layer(scope, exchange.receive, exchange.send)))
        if number < 3:
            await until(lambda held=number + 1: layer.large.free == (24 - 8 * held) * MIB)  # type: ignore[misc]
    with pytest.raises(Problem) as dropped:
        await tasks[0]
    assert dropped.value.status == 503
    exchanges[3].give(bytes(8 * MIB - FIRST_BYTES - 1), more=False)
    await tasks[3]
    assert exchanges[3].status == 200
    for exchange in exchanges[1:3]:
        exchange.leave()
    await asyncio.gather(*tasks[1:3])


@pytest.mark.parametrize("headers", [{}, declared(0)])
async def test_a_request_without_a_body_waits_for_nothing(headers: dict[str, str]) -> None:
    exchange, called = Exchange([]), []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        called.append(exchange.received)

    await whole(app)(http_scope(headers=headers), exchange.receive, exchange.send)
    assert called == [0]


async def test_a_large_body_arrives_unchanged_in_large_pieces() -> None:
    body = bytes(range(256)) * 4 * 1024 * 3
    exchange = Exchange(body_messages(*[body[at : at + 1000] for at in range(0, len(body), 1000)]))
    pieces: list[bytes] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        while (message := await receive())["more_body"]:
            pieces.append(message["body"])
        pieces.append(message["body"])

    await whole(app)(http_scope(headers=declared(len(body))), exchange.receive, exchange.send)
    assert b"".join(pieces) == body
    assert len(pieces) <= len(body) / 2**16 + 1


async def test_large_pieces_are_passed_on_as_they_are_between_small_ones() -> None:
    large = bytes(2**16)
    exchange = Exchange(body_messages(b"a", b"b", large, b"c", large, b"", b"d"))
    pieces: list[bytes] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        while (message := await receive())["more_body"]:
            pieces.append(message["body"])
        pieces.append(message["body"])

    await whole(app)(http_scope(headers=CHUNKED), exchange.receive, exchange.send)
    assert pieces == [b"ab", large, b"c", large, b"d"]
    assert pieces[1] is large


@pytest.mark.parametrize("headers", [declared(100), declared(5 * MIB), CHUNKED], ids=["small", "large", "unknown length"])
async def test_a_client_that_leaves_is_logged_and_goes_no_further(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app, exchange = EchoApp(), Trickle()
    layer = whole(app)
    exchange.give(b"one")
    exchange.leave()
    with caplog.at_level(logging.INFO, "ray.serve"):
        await layer(http_scope("/wan2.6", headers=headers), exchange.receive, exchange.send)
    assert app.scopes == exchange.sent == []
    assert [record.message.partition(" (")[0] for record in caplog.records] == ["499 POST /wan2.6: the client left"]
    assert caplog.records[0].exc_info is None
    assert (layer.small.free, layer.large.free) == (layer.small.capacity, layer.large.capacity)


SLOW: Mapping[str, Any] = {"stall_timeout_s": 0.1, "min_bytes_per_s": 1000}


@pytest.mark.parametrize("headers", [declared(MIB), CHUNKED], ids=["known length", "unknown length"])
@pytest.mark.parametrize("first", [b"", b"x" * 50, b"x" * 100_000], ids=["nothing", "a little", "much"])
async def test_a_body_that_stalls_is_a_408(headers: dict[str, str], first: bytes) -> None:
    app, exchange = EchoApp(), Trickle()
    layer = whole(app, **SLOW)
    if first:
        exchange.give(first)
    with pytest.raises(Problem) as refused:
        await layer(http_scope(headers=headers), exchange.receive, exchange.send)
    assert (refused.value.status, refused.value.slug) == (408, "too-slow")
    assert "at least 1000 bytes per second, measured over 0.1 s" in refused.value.detail
    assert app.scopes == []
    assert layer.small.free == layer.small.capacity


async def test_bytes_that_trickle_in_do_not_extend_the_time() -> None:
    exchange = Trickle()

    async def trickle() -> None:
        while True:
            exchange.give(b"x")
            await asyncio.sleep(0.01)

    trickling = asyncio.ensure_future(trickle())
    with pytest.raises(Problem, match="too slowly"):
        await whole(EchoApp(), stall_timeout_s=0.2, min_bytes_per_s=10_000)(
            http_scope(headers=declared(MIB)), exchange.receive, exchange.send
        )
    trickling.cancel()


async def test_a_body_that_is_fast_enough_has_the_whole_time_and_no_more() -> None:
    exchange = Trickle()

    async def send() -> None:
        while True:
            exchange.give(b"x" * 1000)
            await asyncio.sleep(0)

    sending = asyncio.ensure_future(send())
    with pytest.raises(Problem, match=r"the whole body within 0\.2 s"):
        await whole(EchoApp(), stall_timeout_s=3600, min_bytes_per_s=1, body_timeout_s=0.2, max_bytes=2**40)(
            http_scope(headers=declared(2**39)), exchange.receive, exchange.send
        )
    sending.cancel()


async def test_a_body_counts_until_its_last_message_is_passed_on() -> None:
    exchange = Exchange(body_messages(bytes(3 * MIB)))
    free: list[int] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        messages = [await receive()]
        while messages[-1]["more_body"]:
            messages.append(await receive())
        free.append(layer.large.free)
        copied = pickle.loads(pickle.dumps(messages))  # as Serve's proxy passes them to the ingress
        assert [type(message) for message in copied] == [dict] * len(messages)
        assert b"".join(message["body"] for message in copied) == bytes(3 * MIB)
        messages.clear()
        gc.collect()
        free.append(layer.large.free)

    layer = whole(app)
    await layer(http_scope(headers=declared(3 * MIB)), exchange.receive, exchange.send)
    assert free == [layer.large.capacity - 3 * MIB, layer.large.capacity]


async def test_a_body_that_nobody_takes_is_forgotten_with_its_request() -> None:
    async def app(*_: object) -> None:
        """Answer without a look at the body."""

    layer = whole(app)
    exchange = Exchange(body_messages(bytes(3 * MIB)))
    await layer(http_scope(headers=declared(3 * MIB)), exchange.receive, exchange.send)
    gc.collect()
    assert layer.large.free == layer.large.capacity


async def test_large_bodies_wait_for_room_and_small_ones_do_not() -> None:
    echo = EchoApp()
    layer = whole(echo, max_receiving_bytes=16 * MIB, body_queue_timeout_s=3600)
    holder, waiting = Trickle(), Exchange(body_messages(bytes(2 * MIB)))
    first = asyncio.ensure_future(layer(http_scope(headers=declared(11 * MIB)), holder.receive, holder.send))
    holder.give(bytes(MIB))
    await until(lambda: layer.large.free < layer.large.capacity)
    second = asyncio.ensure_future(layer(http_scope(headers=declared(2 * MIB)), waiting.receive, waiting.send))
    small = Exchange(body_messages(b"small"))
    await layer(http_scope(headers=declared(5)), small.receive, small.send)
    assert echo.bodies == [b"small"]
    await until(lambda: waiting.received == 1)
    assert not second.done()
    for _ in range(10):
        holder.give(bytes(MIB))
    holder.give(b"", more=False)
    await asyncio.gather(first, second)
    assert sorted(len(body) for body in echo.bodies) == [5, 2 * MIB, 11 * MIB]


@pytest.mark.parametrize("headers", [declared(MIB), declared(8 * MIB), CHUNKED], ids=["small", "large", "unknown"])
async def test_bodies_of_which_nothing_arrives_leave_room_for_others(headers: dict[str, str]) -> None:
    echo = EchoApp()
    layer = whole(echo, max_receiving_bytes=16 * MIB, body_queue_timeout_s=3600)
    idle = [Trickle() for _ in range(40)]
    requests = [asyncio.ensure_future(layer(http_scope(headers=headers), one.receive, one.send)) for one in idle]
    await until(lambda: layer.small.capacity - layer.small.free == 40 * FIRST_BYTES)
    assert layer.large.free == layer.large.capacity
    for size in (1000, MIB, 2 * MIB):
        honest = Exchange(body_messages(bytes(size)))
        await layer(http_scope(headers=declared(size)), honest.receive, honest.send)
    assert [len(body) for body in echo.bodies] == [1000, MIB, 2 * MIB]
    for one in idle:
        one.leave()
    await asyncio.gather(*requests)


async def test_a_body_that_stalls_gives_way_to_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.protocol.body_room.BUSY_STALL_S", 0.0)
    echo = EchoApp()
    layer = whole(echo, max_receiving_bytes=16 * MIB, body_queue_timeout_s=3600)
    stalled, honest = Trickle(), Exchange(body_messages(bytes(2 * MIB)))
    stalled.give(bytes(MIB))
    first = asyncio.ensure_future(layer(http_scope(headers=declared(11 * MIB)), stalled.receive, stalled.send))
    await until(lambda: stalled.received == 1)
    await layer(http_scope(headers=declared(2 * MIB)), honest.receive, honest.send)
    assert [len(body) for body in echo.bodies] == [2 * MIB]
    with pytest.raises(Problem) as refused:
        await first
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "3600"})


async def test_a_body_of_unknown_length_claims_the_largest_size_once_it_is_not_small() -> None:
    exchange = Trickle()
    layer = whole(EchoApp(), max_bytes=8 * MIB, max_receiving_bytes=32 * MIB)
    request = asyncio.ensure_future(layer(http_scope(headers=CHUNKED), exchange.receive, exchange.send))

    exchange.give(bytes(MIB))
    await until(lambda: exchange.received == 1)
    assert (layer.small.capacity - layer.small.free, layer.large.capacity - layer.large.free) == (SMALL_BYTES, 0)
    exchange.give(b"x")
    await until(lambda: layer.large.capacity - layer.large.free == 8 * MIB)
    assert layer.small.free == layer.small.capacity
    exchange.give(b"", more=False)
    await request
    gc.collect()
    assert layer.large.free == layer.large.capacity


async def test_many_tiny_pieces_take_no_more_memory_than_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_body, "_PIECE_BYTES", 4096)
    exchange = Exchange(body_messages(*[b"x"] * 20_000))
    messages: list[Message] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        messages.append(await receive())
        while messages[-1]["more_body"]:
            messages.append(await receive())

    await whole(app)(http_scope(headers=CHUNKED), exchange.receive, exchange.send)
    assert [len(message["body"]) for message in messages] == [4096] * 4 + [20_000 - 4 * 4096]


async def test_the_lifespan_passes() -> None:
    app = EchoApp()
    await pass_lifespan(whole(app))
    assert app.scopes == [{"type": "lifespan"}]
