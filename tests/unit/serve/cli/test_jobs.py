"""The commands about jobs, against a service that follows a script."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serve.cli.console import console, error_console
from serve.cli.main import app
from serve.client import Client
from serve.client.flow import Pause
from tests.unit.serve.client.job_answers import DROPPED, FILM, ID, event, events, film, raw_record, record
from tests.unit.serve.scripted_server import Scripted, ScriptedServer, problem, scripted_server

MADE = record("queued", 202, queue_position=2)
PROGRESS = (
    event(1, stage="starting", detail="loads the weights"),
    event(2, step=1, percent=25.0, eta_seconds=63.2),
    event(3, step=1, percent=26.0),
    event(4, step=2, percent=50.0),
)
DONE = events(*PROGRESS, event(5, "succeeded", percent=100.0))
FAILED = {"status": 502, "detail": "the replica died twice"}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on a terminal that breaks no line, and make no pauses."""
    for shown in (console, error_console):
        monkeypatch.setattr(shown, "width", 400)
    monkeypatch.delenv("RYLA_URL", raising=False)
    monkeypatch.delenv("RYLA_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)

    def pause(client: Client, pause: Pause) -> None:
        if client._on_retry is not None and pause.reason:
            client._on_retry(pause.reason)

    monkeypatch.setattr(Client, "_pause", pause)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C at the first pause between two attempts."""

    def pause(client: Client, pause: Pause) -> None:
        monkeypatch.setattr(Client, "_pause", lambda *_: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "_pause", pause)


def run(server: ScriptedServer, *words: str) -> Result:
    result = CliRunner().invoke(app, [*words, "--url", server.url])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_job_is_made_followed_and_written() -> None:
    with scripted_server(MADE, DONE, film()) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "cat.mp4")
    assert result.exit_code == 0, result.output
    assert Path("cat.mp4").read_bytes() == FILM
    assert result.stderr.splitlines() == [
        f"job {ID}",
        "starting 0/4 (loads the weights), 0 %",
        "denoising 1/4, 0:01:03 left, 25 %",
        "denoising 2/4, 50 %",
        "succeeded, 100 %",
    ]
    assert re.search(rf"^x-frames: 5\ncat\.mp4: {len(FILM)} bytes in ", result.stdout, re.MULTILINE)
    assert server.requests[0].body == {"prompt": "a cat"}
    assert server.requests[0].headers["accept"] == "video/mp4"


def test_without_a_name_the_file_has_that_of_the_endpoint() -> None:
    with scripted_server(MADE, DONE, film()) as server:
        assert run(server, "call", "/wan2.6", "prompt=a cat", "--job").exit_code == 0
    assert Path("wan2.6.mp4").read_bytes() == FILM


def test_standard_output_has_the_result_alone() -> None:
    with scripted_server(MADE, DONE, film()) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "-")
    assert result.stdout_bytes == FILM
    assert "denoising 2/4" in result.stderr
    assert list(Path().iterdir()) == []


def test_a_job_survives_what_breaks_on_the_way() -> None:
    answers = (DROPPED, MADE, events(*PROGRESS[:2], cut=len(PROGRESS[0])), DROPPED, DROPPED, DONE, film(cut=9), film(9))
    with scripted_server(*answers) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "cat.mp4")
    assert result.exit_code == 0, result.output
    assert Path("cat.mp4").read_bytes() == FILM
    keys = {request.headers["idempotency-key"] for request in server.requests if request.method == "POST"}
    assert len(keys) == 1
    again = [line for line in result.stderr.splitlines() if line.endswith("; trying again")]
    assert again[0].startswith(f"wan2.6: no answer from {server.url} (")
    assert all("is the service running" not in line for line in again)
    assert len(again) == len(set(again)) == 4, "the same reason twice in a row is one line"


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_console, "_force_terminal", True)
    monkeypatch.setattr(error_console, "is_interactive", True)
    monkeypatch.setenv("TERM", "xterm")
    with scripted_server(MADE, DONE, film()) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "cat.mp4")
    assert result.exit_code == 0, result.output
    assert "━" in result.stderr
    assert "100 %" in result.stderr
    assert "cat.mp4: " in result.stdout
    assert "━" not in result.stdout


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (event(2, "failed", error=FAILED), f"job {ID} failed: 502 the replica died twice"),
        (event(2, "cancelled"), f"job {ID} was cancelled"),
    ],
)
def test_a_job_that_has_no_result_fails_the_command(last: bytes, message: str) -> None:
    with scripted_server(MADE, events(event(1), last)) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "cat.mp4")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, message)
    assert list(Path().iterdir()) == []


def test_a_refused_job_fails_with_its_problem() -> None:
    with scripted_server(problem(422, "`prompt` is required")) as server:
        result = run(server, "call", "wan2.6", "--job")
    assert (result.exit_code, result.stderr, result.stdout) == (1, "wan2.6: 422 `prompt` is required\n", "")


def test_a_service_that_is_lost_for_good_leaves_the_way_back_to_the_job() -> None:
    gone = Scripted(b'{"detail": "starting"}', 503, {"Retry-After": "9999"})
    with scripted_server(MADE, gone) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "my cat.mp4")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        f"job {ID}: 503 starting",
        f"ryla job {ID} --follow -o 'my cat.mp4' --url {server.url} goes on with the job",
    ]


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_job_goes_on_and_the_way_back_is_printed() -> None:
    with scripted_server(MADE, events(event(1))) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "-o", "cat.mp4")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-3:] == [
        f"interrupted; job {ID} goes on:",
        f"  ryla job {ID} --follow -o cat.mp4 --url {server.url}",
        f"  ryla cancel {ID} --url {server.url}",
    ]
    assert all(request.method != "DELETE" for request in server.requests)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_job_is_cancelled_where_that_was_asked_for() -> None:
    with scripted_server(MADE, events(event(1)), record("cancelled", 202)) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "--cancel-on-interrupt")
    assert (result.exit_code, result.stdout) == (130, f"job {ID}: cancelled\n")
    assert [request.path for request in server.requests].count(f"/jobs/{ID}/cancel") == 1


@pytest.mark.usefixtures("interrupted")
def test_an_interrupt_before_the_job_is_known_says_where_to_look() -> None:
    with scripted_server(DROPPED) as server:
        result = run(server, "call", "wan2.6", "prompt=a cat", "--job", "--cancel-on-interrupt")
    assert (result.exit_code, result.stderr) == (130, "interrupted; if the job was made already, `ryla jobs` lists it\n")


def test_a_job_is_shown() -> None:
    with scripted_server(record(step=1, percent=25.0, eta_seconds=4)) as server:
        result = run(server, "job", ID)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        f"job: {ID}",
        "model: wan2.6",
        "state: denoising 1/4, 0:00:04 left",
        "percent: 25",
        "seed: 7",
        "attempts: 1",
    ]
    assert any(re.fullmatch(r"result until: 2026-11-2\d \d\d:\d\d:\d\d", line) for line in lines)


def test_a_job_is_followed_to_its_result() -> None:
    with scripted_server(DONE, film()) as server:
        result = run(server, "job", ID, "--follow", "-o", "cat.mp4")
    assert result.exit_code == 0, result.output
    assert Path("cat.mp4").read_bytes() == FILM
    assert "denoising 2/4" in result.stderr


def test_the_result_of_an_ended_job_is_written() -> None:
    with scripted_server(record("succeeded"), film()) as server:
        result = run(server, "job", ID, "-o", "cat.webp")
    assert result.exit_code == 0
    assert Path("cat.webp").read_bytes() == FILM
    assert result.stderr == "warning: cat.webp contains video/mp4, not image/webp: the format is chosen when the job is made\n"


@pytest.mark.parametrize(
    ("words", "answer", "message"),
    [
        ((), record(), f"job {ID} has no result yet (denoising 0/4): --follow waits for it\n"),
        ((), record("failed", error=FAILED), f"job {ID} failed: 502 the replica died twice\n"),
        (("--follow",), events(event(1, "cancelled")), f"cancelled, 0 %\njob {ID} was cancelled\n"),
    ],
)
def test_a_job_without_a_result_writes_no_file(words: tuple[str, ...], answer: Scripted, message: str) -> None:
    with scripted_server(answer) as server:
        result = run(server, "job", ID, "-o", "cat.mp4", *words)
    assert (result.exit_code, result.stderr, result.stdout) == (1, message, "")
    assert list(Path().iterdir()) == []


def test_following_a_job_that_fails_shows_why_and_fails() -> None:
    with scripted_server(events(event(1, "failed", error=FAILED))) as server:
        result = run(server, "job", ID, "--follow")
    assert result.exit_code == 1
    assert "state: failed\n" in result.stdout
    assert "error: the replica died twice\n" in result.stdout


def test_jobs_are_listed() -> None:
    page = [raw_record(id="a1"), raw_record("queued", id="b2", queue_position=4, model="wan22-[i2v]")]
    with scripted_server(Scripted(json.dumps({"jobs": page}).encode())) as server:
        result = run(server, "jobs", "--state", "running", "--limit", "2")
    assert result.exit_code == 0
    assert re.search(r"a1 .*wan2\.6 .*denoising 0/4 .*\n.*b2 .*wan22-\[i2v\] .*queued \(position 4\)", result.stdout)
    assert server.requests[0].path == "/jobs?state=running&limit=2"


def test_no_jobs_are_said_to_be_none() -> None:
    with scripted_server(Scripted(b'{"jobs": []}')) as server:
        assert run(server, "jobs").stdout == "There are no jobs.\n"
        assert run(server, "jobs", "--state", "failed").stdout == "No job is failed.\n"


@pytest.mark.parametrize(
    ("answers", "code", "out", "err"),
    [
        ((record("cancelled", 202),), 0, f"job {ID}: cancelled\n", ""),
        ((record("running", 202),), 0, f"job {ID} is being cancelled\n", ""),
        ((record("cancelled"),), 0, f"job {ID}: cancelled\n", ""),
        ((record("succeeded"),), 1, "", f"job {ID} cannot be cancelled: it has succeeded\n"),
        ((record("failed"),), 1, "", f"job {ID} cannot be cancelled: it has failed\n"),
        ((problem(404, "no such job"),), 1, "", f"job {ID}: 404 no such job\n"),
    ],
)
def test_a_job_is_cancelled(answers: tuple[Scripted, ...], code: int, out: str, err: str) -> None:
    with scripted_server(*answers) as server:
        result = run(server, "cancel", ID)
    assert (result.exit_code, result.stdout, result.stderr) == (code, out, err)
    assert [f"{request.method} {request.path}" for request in server.requests] == [f"POST /jobs/{ID}/cancel"]
