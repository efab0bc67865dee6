"""How far a job is, as lines in a log and as a bar on a terminal."""

from typing import Any

import pytest
from rich.progress import Progress

from serve.cli.console import error_console
from serve.cli.progress_bar import JobProgress, describe, job_progress
from serve.client import JobRecord
from serve.client.answers import RUNNING
from tests.unit.serve.client.job_answers import raw_record

Captured = pytest.CaptureFixture[str]


def record(state: str = "running", **fields: Any) -> JobRecord:
    return JobRecord.from_json(raw_record(state, **fields))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (record("queued", steps=0), "queued"),
        (record("queued", queue_position=0, eta_seconds=59.6), "queued (position 0), 0:01:00 left"),
        (record("queued", queue_position=3, detail="full", step=1), "queued (position 3)"),
        (record("starting", detail="loads the weights", steps=0), "starting (loads the weights)"),
        (record(step=1, steps=4), "denoising 1/4"),
        (record(step=1, steps=4, detail="[bold]", eta_seconds=0), "denoising 1/4 ([bold]), 0:00:00 left"),
        (record(steps=0), "denoising"),
        (record("succeeded", step=4, detail="done", eta_seconds=5), "succeeded"),
        (record("failed", stage="decoding", eta_seconds=5), "failed"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_job_is_described_by_what_is_known_of_it(given: JobRecord, words: str) -> None:
    assert describe(given) == words


def test_in_a_log_there_is_a_line_for_each_stage_and_each_tenth(capsys: Captured) -> None:
    with job_progress() as shown:
        for percent in (0, 4, 9.9, 10, 19, 35):
            shown.show(record(percent=percent))
        shown.show(record(stage="decoding", percent=36))
        shown.show(record("succeeded", percent=97))
    assert capsys.readouterr().err.splitlines() == [
        "denoising 0/4, 0 %",
        "denoising 0/4, 10 %",
        "denoising 0/4, 35 %",
        "decoding 0/4, 36 %",
        "succeeded, 100 %",
    ]


def test_a_reason_for_another_attempt_is_a_line_until_there_is_news(capsys: Captured) -> None:
    shown = JobProgress(None)
    for reason in ("no answer [/b]", "no answer [/b]", f"refused{RUNNING}", "no answer [/b]"):
        shown.note_retry(reason)
    shown.show(record())
    shown.note_retry("no answer [/b]")
    assert capsys.readouterr().err.splitlines() == [
        "no answer [/b]; trying again",
        "refused; trying again",
        "no answer [/b]; trying again",
        "denoising 0/4, 0 %",
        "no answer [/b]; trying again",
    ]


def test_on_a_terminal_the_bar_moves_and_ends_full(capsys: Captured) -> None:
    bar = Progress(disable=True)
    shown = JobProgress(bar)
    (task,) = bar.tasks
    shown.show(record(step=1, percent=12.5))
    assert (task.description, task.completed, task.total) == ("denoising 1/4", 12.5, 100)
    shown.show(record("succeeded", percent=97))
    assert (task.description, task.completed) == ("succeeded", 100)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("interactive", [False, True])
def test_the_display_ends_with_the_block_even_if_that_fails(monkeypatch: pytest.MonkeyPatch, interactive: bool) -> None:
    monkeypatch.setattr(error_console, "is_interactive", interactive)
    display: list[JobProgress] = []

    def fail() -> None:
        with job_progress() as shown:
            display.append(shown)
            shown.show(record(percent=5))
            raise KeyboardInterrupt

    with error_console.capture(), pytest.raises(KeyboardInterrupt):
        fail()
    bar = display[0]._bar
    assert (bar is not None) is interactive
    assert bar is None or not bar.live.is_started
