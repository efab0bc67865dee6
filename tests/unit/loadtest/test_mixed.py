"""The requests of a soak test, and long work beside them, against a fake graph."""

import time
from collections.abc import Iterator

import pytest

from loadtest.long_work import long_work
from loadtest.mixed import KINDS, WEIGHTS, Mixed
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

FAR = 600.0


@pytest.fixture
def service() -> Iterator[str]:
    with live_service(FakeGraph()) as url:
        yield url


def test_every_kind_of_request_has_its_share() -> None:
    assert len(WEIGHTS) == len(KINDS)
    assert sum(WEIGHTS) == 100
    assert all(WEIGHTS)


@pytest.mark.slow
def test_all_requests_of_a_soak_end_as_they_should(service: str) -> None:
    mixed = Mixed(service, None)
    mixed.run(60, callers=3, deadline=time.monotonic() + FAR)
    assert mixed.errors == {}
    assert mixed.sent == 60
    assert set(mixed.done) >= {"image-faceswap", "job", "cancelled job", "hung up"}


def test_the_deadline_ends_the_requests(service: str) -> None:
    mixed = Mixed(service, None)
    mixed.run(1000, callers=2, deadline=time.monotonic())
    assert mixed.sent == 0


def test_who_is_refused_comes_back_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.mixed.PAUSE_S", 0)
    monkeypatch.setattr("loadtest.mixed.WEIGHTS", (1, 0, 0, 0, 0, 0, 0, 0))
    with scripted_server(problem(503, "full"), problem(503, "full"), problem(500, "broken")) as server:
        mixed = Mixed(server.url, None)
        mixed.run(1, callers=1, deadline=time.monotonic() + FAR)
    assert mixed.refused == 2
    assert mixed.errors == {"image-faceswap: image-faceswap: 500 broken": 1}


def test_a_wrong_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.mixed.WEIGHTS", (1, 0, 0, 0, 0, 0, 0, 0))
    with scripted_server(Scripted(b"no picture")) as server:
        mixed = Mixed(server.url, None)
        mixed.run(2, callers=1, deadline=time.monotonic() + FAR)
    assert mixed.errors.total() == 2


@pytest.mark.slow
def test_long_work_goes_on_while_the_block_runs(service: str) -> None:
    with long_work(service, None) as work:
        assert all(count >= 1 for count in work.made.values())
    assert work.failures == []
    assert not any(thread.is_alive() for thread in work._threads)
