"""What one connection may take before its request is served. The server is Serve's own."""

import asyncio
import contextlib
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve.http.protocol.bounded_protocol import BoundedProtocol
from tests.unit.serve.http.asgi import EchoApp, until
from tests.unit.serve.http.front import Caller, front

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD_LIMIT = 2048


def post(body: bytes, path: bytes = b"/a", *, length: int | None = None) -> bytes:
    """Return a request with a body of which ``length`` bytes are announced."""
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, length or len(body), body)


class LengthApp(EchoApp):
    """An application whose answers have a Content-Length."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sized(message: Message) -> None:
            if message["type"] == "http.response.body":
                body = message["body"]
                assert isinstance(body, bytes)
                headers = [(b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send(message)

        await super().__call__(scope, receive, sized)


class HeldApp:
    """An application that takes requests and answers none until ``gate`` is set."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        self.gate = asyncio.Event()
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        self.begun.set()
        while True:
            message = asyncio.ensure_future(receive())
            gate = asyncio.ensure_future(self.gate.wait())
            await asyncio.wait({message, gate}, return_when=asyncio.FIRST_COMPLETED)
            for task in (message, gate):
                if not task.done():
                    task.cancel()
            if self.gate.is_set():
                break
            if message.result()["type"] == "http.disconnect":
                self.left.set()
                return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /", *[b"y" * 1024] * 64],
        [b"GET / HTTP/1.1\r\nHost: x\r\nX: ", *[b"y" * 1024] * 64],
        [b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X: y\r\n" * 100] * 64],
        [b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: %b\r\n\r\n" % (b"y" * HEAD_LIMIT)],
        [b"\r\n" * 512] * 64,
        [b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 300 + b"\r\n"],
        [CHUNKED + b"1;", *[b"y" * 1024] * 64],
        [CHUNKED, b"1\r\na\r\n0\r\nX: ", *[b"y" * 1024] * 64],
        [CHUNKED, b"1\r\na\r\n0\r\n", *[b"a: b\r\n" * 100] * 64],
        [CHUNKED, *[b"1\r\na\r\n" * 100] * 64],
    ],
    ids=[
        *("endless target", "endless header", "endless headers", "long header in one piece", "endless empty lines"),
        *("many tiny headers", "endless extension", "endless trailer", "endless trailers", "endless tiny chunks"),
    ],
)
async def test_whatever_is_not_a_body_has_a_limit(pieces: list[bytes]) -> None:
    app = LengthApp()
    async with front(app, max_head_bytes=HEAD_LIMIT) as service:
        caller = await service.call()
        with contextlib.suppress(ConnectionError):  # the service stops reading some time after its answer
            await caller.send(*pieces)
        answer = await caller.answer()
        assert (answer.status, answer.slug) == (431, "head-too-large")
        assert answer.headers["connection"] == "close"
        assert await caller.closed()
        assert app.bodies == []
        assert (await (await service.call(GET)).answer()).status == 200


async def test_a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    begin, end = b"GET /a HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    filler = b"y" * (HEAD_LIMIT - len(begin) - len(end))
    async with front(LengthApp(), max_head_bytes=HEAD_LIMIT) as service:
        assert (await (await service.call(begin + filler + end)).answer()).status == 200
        assert (await (await service.call(begin + filler + b"y" + end)).answer()).status == 431


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_requests_are_the_same_however_they_are_cut(size: int) -> None:
    app = LengthApp()
    chunked = CHUNKED + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    stream = b"\r\n" + GET + post(b"one\r\n\r\ntwo") + post(b"", b"/b") + chunked
    async with front(app) as service:
        caller = await service.call(*[stream[at : at + size] for at in range(0, len(stream), size)])
        bodies = [(await caller.answer()).body for _ in range(4)]
        assert bodies == [b"", b"one\r\n\r\ntwo", b"", b"abcde"]
        await caller.send(GET)
        assert (await caller.answer()).status == 200
    assert [scope["path"] for scope in app.scopes] == ["/a", "/a", "/b", "/a", "/a"]
    assert all(name != b"trailer" for name, _ in app.scopes[3]["headers"])


async def test_a_request_behind_a_chunked_body_in_one_piece_is_left_to_be_sent_again() -> None:
    app = LengthApp()
    async with front(app) as service:
        caller = await service.call(CHUNKED + b"1\r\na\r\n0\r\n\r\n" + GET)
        answer = await caller.answer()
        assert (answer.body, answer.headers["connection"]) == (b"a", "close")
        assert await caller.closed()
    assert len(app.scopes) == 1


async def test_a_request_is_not_parsed_while_another_one_is_in_progress() -> None:
    app = HeldApp()
    async with front(app) as service:
        caller = await service.call(GET + GET.replace(b"/a", b"/b"))
        await app.begun.wait()
        assert app.paths == ["/a"]
        app.gate.set()
        assert [(await caller.answer()).body for _ in range(2)] == [b"ok", b"ok"]
        assert app.paths == ["/a", "/b"]


async def test_a_flood_of_requests_behind_one_in_progress_is_dropped() -> None:
    app = HeldApp()
    async with front(app, max_head_bytes=HEAD_LIMIT) as service:
        caller = await service.call(GET * 10_000)
        await app.begun.wait()
        app.gate.set()
        answer = await caller.answer()
        assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
        assert await caller.closed()
    assert app.paths == ["/a"]


@pytest.mark.parametrize("behind", [b"", GET, GET * 10_000], ids=["nothing", "a request", "a flood"])
async def test_a_client_that_leaves_is_noticed_whatever_it_has_sent_before(behind: bytes) -> None:
    app = HeldApp()
    async with front(app, max_head_bytes=HEAD_LIMIT) as service:
        caller = await service.call(GET + behind)
        await app.begun.wait()
        caller.writer.close()
        await app.left.wait()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nX-a: b\r\n", b"POST"])
async def test_a_head_that_does_not_arrive_in_time_is_a_408(sent: bytes) -> None:
    async with front(LengthApp(), head_timeout_s=0.1) as service:
        caller = await service.call(sent)
        answer = await caller.answer()
        assert (answer.status, answer.slug) == (408, "too-slow")
        assert "within 0.1 s" in answer.problem["detail"]
        assert await caller.closed()


@pytest.mark.slow
async def test_lines_that_trickle_in_do_not_extend_the_time() -> None:
    async with front(LengthApp(), head_timeout_s=0.2) as service:
        caller = await service.call(b"GET / HTTP/1.1\r\n")

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await caller.send(b"X-a: b\r\n")
                    await asyncio.sleep(0.01)

        trickling = asyncio.ensure_future(trickle())
        assert (await caller.answer()).status == 408
        trickling.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_a_connection_without_a_request_is_closed_without_a_word(sent: bytes) -> None:
    async with front(LengthApp(), head_timeout_s=0.1) as service:
        assert await (await service.call(sent)).closed()


@pytest.mark.slow
async def test_the_time_for_a_head_begins_anew_with_each_request() -> None:
    async with front(LengthApp(), head_timeout_s=0.3) as service:
        caller = await service.call(GET)
        assert (await caller.answer()).status == 200
        await asyncio.sleep(0.4)  # an idle connection may be older than that
        await caller.send(GET)
        assert (await caller.answer()).status == 200
        await caller.send(b"GET")
        assert (await caller.answer()).status == 408


@pytest.mark.parametrize(
    "sent",
    [
        *(b"hello there\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /\xff HTTP/1.1\r\n\r\n"),
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with front(LengthApp()) as service:
            caller = await service.call(sent)
            answer = await caller.answer()
            assert (answer.status, answer.slug) == (400, "bad-request")
            assert await caller.closed()
    assert f"(request id {answer.problem['request_id']})" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("headers", [b"Upgrade: websocket", b"Upgrade: h2c"])
async def test_an_upgrade_is_answered_like_any_request(headers: bytes) -> None:
    app = LengthApp()
    upgrade = headers + b"\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n"
    async with front(app) as service:
        caller = await service.call(GET.replace(b"\r\n\r\n", b"\r\n" + upgrade + b"\r\n") + b"frames")
        answer = await caller.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await caller.closed()
    assert [scope["type"] for scope in app.scopes] == ["http"]


async def test_the_connection_that_has_waited_longest_makes_room() -> None:
    async with front(LengthApp(), max_connections=3) as service:
        slow, idle, last = [await service.call(sent) for sent in (b"GET /", b"", GET)]
        assert (await last.answer()).status == 200
        for gone in (slow, idle):
            assert (await (await service.call(GET)).answer()).status == 200
            assert await gone.closed()
        assert service.connections() == 3


def _has_more_than(service: Any, number: int) -> bool:
    return bool(service.connections() > number)


@pytest.mark.parametrize("begun", [post(b"x", length=1000), CHUNKED, CHUNKED + b"9\r\nx"])
async def test_the_connection_whose_body_has_been_arriving_longest_makes_room(begun: bytes) -> None:
    app = HeldApp()
    app.gate.set()
    async with front(app, max_connections=3) as service:
        senders = []
        for number in range(3):
            senders.append(await service.call(begun))
            await until(partial(_has_more_than, service, number))
        assert (await (await service.call(GET)).answer()).status == 200
        assert await senders[0].closed()
        await (await service.call(GET)).answer()  # the idle connection goes before another body
        assert service.connections() == 3
        assert not senders[1].reader.at_eof()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all addresses of 127.0.0.0/8")
@pytest.mark.parametrize("begun", [b"", b"GET /", post(b"x", length=1000)], ids=["idle", "a head", "a body"])
async def test_the_caller_with_the_most_connections_makes_room(begun: bytes) -> None:
    app = HeldApp()
    app.gate.set()
    async with front(app, max_connections=5) as service:
        modest = [await service.call(sent, address="127.0.0.2") for sent in (b"", post(b"x", length=1000))]
        await until(partial(_has_more_than, service, 1))
        greedy = []
        for number in range(2, 5):
            greedy.append(await service.call(begun))
            await until(partial(_has_more_than, service, number))
        for _ in range(3):
            greedy.append(await service.call(begun))
            gone = greedy.pop(0)
            assert await gone.closed()
        assert not any(caller.reader.at_eof() for caller in modest)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all addresses of 127.0.0.0/8")
async def test_connections_count_for_the_callers_whom_a_trusted_proxy_names() -> None:
    app = HeldApp()
    app.gate.set()
    async with front(app, max_connections=7) as service:
        behind_proxy = []
        for number in range(4):
            named = post(b"x", length=1000).replace(b"\r\n", b"\r\nX-Forwarded-For: 192.0.2.%d\r\n" % (number % 2), 1)
            behind_proxy.append(await service.call(named))
            await until(partial(_has_more_than, service, number))
        connections = cast("set[BoundedProtocol]", service.server.server_state.connections)
        await until(lambda: {connection.caller() for connection in connections} == {"192.0.2.0", "192.0.2.1"})
        direct = []
        for number in range(4, 7):
            direct.append(await service.call(address="127.0.0.2"))
            await until(partial(_has_more_than, service, number))
        await service.call(address="127.0.0.3")
        assert await direct[0].closed()
        assert not any(caller.reader.at_eof() for caller in behind_proxy)


async def test_a_connection_that_was_refused_before_its_body_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"anna {'0' * 64}\n")
    monkeypatch.setenv("RYLA_API_KEYS", str(keys))
    async with front(LengthApp(), max_connections=2) as service:
        lingering = [await service.call(post(b"x", length=1000)) for _ in range(2)]
        for caller in lingering:
            assert (await caller.answer()).status == 401
        for caller in lingering:
            assert (await (await service.call(GET)).answer()).status == 401
            assert await caller.closed()


async def test_connections_in_use_are_kept_and_further_ones_refused() -> None:
    app = HeldApp()
    async with front(app, max_connections=1) as service:
        busy = await service.call(GET)
        await app.begun.wait()
        answer = await (await service.call(GET)).answer()
        assert (answer.status, answer.slug, answer.headers["retry-after"]) == (503, "unavailable", "5")
        app.gate.set()
        assert (await busy.answer()).body == b"ok"


async def test_an_answer_before_the_end_of_a_body_can_be_read() -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    async with front(app) as service:
        caller: Caller = await service.call(CHUNKED)
        await caller.send(*[b"10000\r\n" + bytes(2**16) + b"\r\n"] * 10, b"0\r\n\r\n")
        assert (await caller.answer()).body == b"no"
        assert await caller.closed()


async def test_after_an_early_answer_the_rest_of_the_body_is_skipped() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async with front(app) as service:
        caller = await service.call(b"OPTIONS /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await caller.answer()).body == b"/a"
        await caller.send(GET.replace(b"/a", b"/b"))
        assert (await caller.answer()).body == b"/b"
