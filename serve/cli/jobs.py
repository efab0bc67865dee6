"""The commands about jobs: `ryla jobs`, `ryla job`, `ryla cancel`, and `ryla call --job`."""

import os
import shlex
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Column, Table

from serve.cli.console import console, print_line, print_note
from serve.cli.output import accepted_by, fail, require_writable, write_result
from serve.cli.progress_bar import JobProgress, describe, job_progress
from serve.client import CallFailed, Client, JobRecord
from serve.client.job_calls import outcome

URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="RYLA_URL", help="URL of the service.")]
Key = Annotated[str | None, typer.Option(envvar="RYLA_API_KEY", help="Your key, if the service requires one.")]
JobId = Annotated[str, typer.Argument(help="The job's id, as `ryla call --job` and `ryla jobs` print it.")]
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


class JobState(StrEnum):
    """The states by which jobs can be listed."""

    queued = "queued"
    starting = "starting"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 20,
    url: Url = URL,
    key: Key = None,
) -> None:
    """List your jobs, newest first."""
    table = Table(Column("job", no_wrap=True, min_width=32), "model", "state", "percent", "made at", "result until")
    try:
        with Client(url, key=key) as client:
            for record in client.jobs(state=None if state is None else state.value, limit=limit):
                table.add_row(
                    record.id,
                    record.model,
                    describe(record),
                    f"{record.progress.percent:.0f}",
                    _time(record.created_at),
                    _time(record.expires_at),
                )
    except CallFailed as e:
        fail(str(e))
    if table.row_count:
        console.print(table, markup=False)
    else:
        print_line("There are no jobs." if state is None else f"No job is {state.value}.")


def job(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Show the progress until the job has ended.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write the result to, or - for standard output.")
    ] = None,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Show a job, follow it, or write its result to a file."""
    _require_id(job_id)
    if output is not None:
        require_writable(output)
        accepted_by(output)
    answer = None
    try:
        with job_progress() as shown, Client(url, key=key, on_retry=shown.note_retry) as client:
            record = _follow(client, job_id, shown) if follow else client.status(job_id)
            if output is not None and record.state == "succeeded":
                answer = client.result(job_id, wait=False)
    except KeyboardInterrupt:
        _explain_interrupt(job_id, output, url)
    except CallFailed as e:
        fail(str(e))
    if output is None:
        _print_record(record)
        if follow and record.state != "succeeded":
            raise typer.Exit(1)
    elif answer is not None:
        write_result(answer, output, endpoint=record.model)
    else:
        fail(str(outcome(record) or f"job {job_id} has no result yet ({describe(record)}): --follow waits for it"))


def cancel(job_id: JobId, url: Url = URL, key: Key = None) -> None:
    """Cancel a job. The result of a job that has ended stays."""
    _require_id(job_id)
    try:
        with Client(url, key=key) as client:
            record = client.cancel(job_id)
    except CallFailed as e:
        fail(str(e))
    if record.ended and record.state != "cancelled":
        fail(f"job {job_id} cannot be cancelled: it has {record.state}")
    print_line(f"job {job_id}: {record.state}" if record.ended else f"job {job_id} is being cancelled")


def call_job(
    endpoint: str, body: Mapping[str, Any], *, output: Path | None, url: str, key: str | None, cancel_on_interrupt: bool
) -> None:
    """Make a job, follow it to its end through lost connections, and write its result."""
    job_id = ""
    try:
        with job_progress() as shown, Client(url, key=key, on_retry=shown.note_retry) as client:
            accept = "*/*" if output is None else accepted_by(output)
            job_id = client.submit(endpoint, body, accept=accept).id
            print_note(f"job {job_id}")
            record = _follow(client, job_id, shown)
            failure = outcome(record)
            answer = None if failure else client.result(job_id, wait=False)
    except KeyboardInterrupt:
        if not job_id:
            fail("interrupted; if the job was made already, `ryla jobs` lists it", status=INTERRUPTED)
        if cancel_on_interrupt:
            cancel(job_id, url, key)
            raise typer.Exit(INTERRUPTED) from None
        _explain_interrupt(job_id, output or Path(endpoint), url)
    except CallFailed as e:
        if job_id:
            fail(str(e), f"{_command('job', job_id, output=output or Path(endpoint), url=url)} goes on with the job")
        if e.status not in (404, 405):
            fail(str(e))
        from serve.http.endpoints import path_hint

        fail(f"{e}{path_hint(endpoint)}")
    if answer is None:
        fail(str(failure))
    write_result(answer, output or Path(f"{endpoint}.{answer.extension}"), endpoint=endpoint)


def _follow(client: Client, job_id: str, shown: JobProgress) -> JobRecord:
    """Show a job's progress to its end, and return its last record."""
    for record in client.subscribe(job_id):
        shown.show(record)
    return record


def _explain_interrupt(job_id: str, output: Path | None, url: str) -> NoReturn:
    """Say that the job goes on and how to return to it or end it; exit."""
    fail(
        f"interrupted; job {job_id} goes on:",
        f"  {_command('job', job_id, output=output, url=url)}",
        f"  {_command('cancel', job_id, output=None, url=url)}",
        status=INTERRUPTED,
    )


def _command(name: str, job_id: str, output: Path | None, url: str) -> str:
    """Return the command with which a user returns to a job, or cancels it."""
    words = ["ryla", name, job_id]
    if name == "job":
        words += ["--follow"] + ([] if output is None else ["-o", str(output)])
    if url != os.environ.get("RYLA_URL", URL):
        words += ["--url", url]
    return shlex.join(words)


def _print_record(record: JobRecord) -> None:
    lines = {
        "job": record.id,
        "model": record.model,
        "state": describe(record),
        "percent": f"{record.progress.percent:.0f}",
        "seed": "" if record.seed is None else str(record.seed),
        "attempts": str(record.attempts),
        "made at": _time(record.created_at),
        "ended at": _time(record.finished_at),
        "result until": _time(record.expires_at),
        "error": str((record.error or {}).get("detail", "")),
    }
    for name, value in lines.items():
        if value:
            print_line(f"{name}: {value}")


def _require_id(job_id: str) -> None:
    """Exit with 2 for the id of no job."""
    if not job_id.strip():
        fail("name a job: `ryla jobs` lists yours", status=2)


def _time(time: datetime | None) -> str:
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
