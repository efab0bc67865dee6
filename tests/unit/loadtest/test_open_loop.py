"""Load that does not wait for answers."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from loadtest.open_loop import as_request, send_at_rate, send_in_turn
from tests.unit.serve.scripted_server import Scripted, scripted_server

REQUEST = as_request("/image-faceswap", {"a": 1})


def right(_: httpx.Response) -> str:
    return ""


@contextmanager
def held_server(count: int) -> Iterator[str]:
    """Serve answers, each of which is held back until ``count`` requests have arrived."""
    barrier = threading.Barrier(count)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            barrier.wait(60)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 50

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            barrier.abort()
            server.shutdown()
            thread.join()


def test_requests_begin_although_none_is_answered() -> None:
    """No answer comes before the last request: callers who wait would never send it."""
    with held_server(12) as url:
        outcomes = asyncio.run(send_at_rate(url, [REQUEST], a_second=200, seconds=0.06, check=right))
    assert [outcome.status for outcome in outcomes] == [200] * 12


@pytest.mark.slow
def test_the_times_of_requests_are_those_of_the_rate() -> None:
    with scripted_server(Scripted()) as server:
        outcomes = asyncio.run(send_at_rate(server.url, [REQUEST], a_second=20, seconds=0.5, check=right))
    begun = sorted(outcome.begun for outcome in outcomes)
    assert len(begun) == 10
    assert begun[-1] - begun[0] >= 0.45 - 0.01, "no request begins before its time"
    assert server.requests[0].body == {"a": 1}


def test_a_refusal_must_say_when_to_come_back() -> None:
    with scripted_server(Scripted(status=503, headers={"Retry-After": "3"}), Scripted(status=503)) as server:
        outcomes = asyncio.run(send_at_rate(server.url, [REQUEST], a_second=50, seconds=0.04, check=right))
    said = sorted((outcome.retry_after_s or 0, outcome.error) for outcome in outcomes)
    assert said == [(0, "503 without a Retry-After of a second or more"), (3, "")]
    assert all(outcome.refused and not outcome.accepted for outcome in outcomes)


def test_no_answer_is_an_outcome_too() -> None:
    with scripted_server(Scripted(cut=-1)) as server:
        (outcome,) = asyncio.run(send_at_rate(server.url, [REQUEST], a_second=1, seconds=1, check=right))
    assert outcome.status == 0
    assert outcome.error
    assert not outcome.accepted


def test_a_result_that_the_check_finds_wrong_has_its_fault() -> None:
    with scripted_server(Scripted(b"x")) as server:
        (outcome,) = asyncio.run(send_at_rate(server.url, [REQUEST], a_second=1, seconds=1, check=lambda r: f"wrong: {r.text}"))
    assert (outcome.accepted, outcome.error) == (True, "wrong: x")


@pytest.mark.slow
def test_callers_in_turn_stop_in_time() -> None:
    with scripted_server(Scripted()) as server:
        outcomes = asyncio.run(send_in_turn(server.url, REQUEST, callers=3, seconds=0.3, check=right))
    assert len(outcomes) >= 3
    assert all(outcome.accepted for outcome in outcomes)
