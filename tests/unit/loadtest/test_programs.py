"""The programs as commands: what they run, and what they say if no service starts."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from loadtest import overload, run, soak
from loadtest.options import add_options
from loadtest.overhead import MEASURED, Overhead
from serve.cli.console import error_console
from serve.cli.presets import find_preset
from serve.client import CallFailed, Client
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

Main = Callable[[Sequence[str]], int]
MAINS = pytest.mark.parametrize("main", [run.main, overload.main, soak.main], ids=["load", "overload", "soak"])
SHORT = ("--seconds", "1", "--measure-seconds", "1", "--callers", "2", "--factors", "1", "4")


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_console, "width", 400)


@MAINS
def test_a_service_that_cannot_start_is_one_line(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server(Scripted()) as other:
        config = yaml.safe_load(find_preset("demo").read_text())
        config["http_options"]["port"] = other.server_port
        path = tmp_path / "busy.yaml"
        path.write_text(yaml.safe_dump(config))
        assert main(["--preset", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"port {other.server_port} on 127.0.0.1 is in use" in line


@MAINS
def test_a_preset_that_is_none_is_refused(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "demmo"]) == 2
    assert "no preset or file is named demmo" in capsys.readouterr().err


def test_locust_gets_only_options_that_it_knows() -> None:
    options = argparse.Namespace(users=3, seconds=60, shape="spike", threshold=["cost:*:max<=1"])
    command = run.locust_command("http://127.0.0.1:1", options)
    parser = argparse.ArgumentParser()
    add_options(parser)
    ours, _ = parser.parse_known_args(command)
    assert (ours.shape, ours.report) == ("spike", "test-output/load.html")
    assert ours.threshold == ["retry_after:*:count<=0", "cost:*:max<=1"]
    assert command[command.index("--users") + 1] == "3"
    assert command[command.index("--run-time") + 1] == "60s"


@pytest.mark.parametrize(("graph_s", "locust", "expected"), [(0.01, 0, 0), (0.01, 3, 3), (0.031, 0, 1), (0.031, 3, 3)])
def test_a_load_fails_with_locust_or_if_the_graph_adds_too_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], graph_s: float, locust: int, expected: int
) -> None:
    @contextmanager
    def demo(preset: Path) -> Iterator[Client]:
        with Client("http://127.0.0.1:1") as client:
            yield client

    def measured(client: Client, endpoint: str, rounds: int) -> Overhead:
        return Overhead(endpoint=endpoint, call_s=0.1, graph_s=graph_s if endpoint == MEASURED[-1] else 0.0)

    monkeypatch.setattr(run, "running", demo)
    monkeypatch.setattr(run, "measure_overhead", measured)
    monkeypatch.setattr(run, "locust_command", lambda url, options: [sys.executable, "-S", "-c", f"raise SystemExit({locust})"])
    assert run.main([]) == expected
    printed = capsys.readouterr()
    assert printed.out.count("kept: ") == (1 if graph_s > 0.03 else 2)
    assert printed.err.count(f"MISSED: /{MEASURED[-1]}") == (1 if graph_s > 0.03 else 0)


def test_all_options_can_be_sent_to_workers() -> None:
    """Locust packs plain values only, and its workers never begin if it cannot."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = vars(parser.parse_args(["--threshold", "errors<=3", "--shape", "soak"]))
    assert json.loads(json.dumps(options)) == options


def test_the_queue_is_as_long_as_the_preset_says() -> None:
    assert overload.queue_places("demo") == 128


@pytest.mark.slow
def test_an_overload_of_a_service_that_is_quick_enough_misses_no_bar_of_its_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bars of time depend on the machine."""
    monkeypatch.setattr(overload, "WARM_UP_S", 0.1)
    monkeypatch.setattr(overload, "PROBES", 3)
    with live_service(FakeGraph()) as url:
        overload.main([*SHORT, "--url", url])
    printed = capsys.readouterr()
    assert "1 times capacity: " in printed.out
    assert "4 times capacity: " in printed.out
    assert "beside long work" in printed.out
    assert "requests failed" not in printed.err


@pytest.mark.slow
def test_a_service_that_answers_nothing_right_ends_an_overload_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overload, "WARM_UP_S", 0.01)
    monkeypatch.setattr(overload, "PROBES", 2)
    with scripted_server(problem(500, "broken")) as server:
        assert overload.main([*SHORT, "--url", server.url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "an undisturbed request failed: 500" in line


@pytest.mark.slow
def test_long_work_that_cannot_begin_says_why() -> None:
    from loadtest.long_work import long_work

    with (
        scripted_server(problem(422, "no such thing")) as server,
        pytest.raises(CallFailed, match="no such thing"),
        long_work(server.url, None),
    ):
        raise AssertionError("nothing runs beside this block")
