"""Shows on standard error how far a job is."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from serve.cli.console import error_console, print_note
from serve.client import JobRecord
from serve.client.answers import RUNNING

PERCENT_A_LINE = 10
"""Where lines are printed, the percent after which there is another one within a stage."""


class JobProgress:
    """The display of one job: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=100)
        self._said: tuple[str, int] | None = None
        self._reason = ""

    def show(self, record: JobRecord) -> None:
        """Show a record that has changed."""
        self._reason = ""
        percent = 100.0 if record.state == "succeeded" else record.progress.percent
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=describe(record), completed=percent)
            return
        new = (_stage(record), int(percent) // PERCENT_A_LINE)
        if new != self._said:
            self._said = new
            print_note(f"{describe(record)}, {percent:.0f} %")

    def note_retry(self, reason: str) -> None:
        """Print, above a bar, why a request is sent again; once for each reason."""
        if reason != self._reason:
            self._reason = reason
            print_note(f"{reason.removesuffix(RUNNING)}; trying again")


def describe(record: JobRecord) -> str:
    """Return the stage of a job in words, with what is known about its steps and its end."""
    progress = record.progress
    parts = [_stage(record)]
    if record.state == "queued" and progress.queue_position is not None:
        parts[0] += f" (position {progress.queue_position})"
    elif not record.ended:
        if progress.steps:
            parts[0] += f" {progress.step}/{progress.steps}"
        if progress.detail:
            parts[0] += f" ({progress.detail})"
    if not record.ended and progress.eta_s is not None:
        parts.append(f"{timedelta(seconds=round(progress.eta_s))} left")
    return ", ".join(parts)


@contextmanager
def job_progress() -> Iterator[JobProgress]:
    """Show a job's progress while the block runs. The bar is gone afterwards."""
    if not error_console.is_interactive:  # no terminal, or one that cannot move its cursor
        yield JobProgress(None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=error_console, transient=True) as bar:
        yield JobProgress(bar)


def _stage(record: JobRecord) -> str:
    return record.state if record.ended or record.state == "queued" else record.progress.stage
