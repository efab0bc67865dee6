"""The smoke test: calls every endpoint of a service with its example and checks the answers."""

import os
import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from serve.cli.console import console, print_error, print_line, spinner
from serve.cli.overview import overview
from serve.client import Answer, CallFailed, Client, Decoded, check_answer
from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.http.examples import payload

ENDPOINTS = tuple(endpoint.name for endpoint in make_endpoints(AppConfig()))


def call_example(client: Client, endpoint: str, timeout_s: float) -> tuple[Answer, Decoded]:
    """Call an endpoint with its example; raise CallFailed if the answer is wrong."""
    if timeout_s <= 0:
        raise CallFailed(f"{endpoint}: not called: the time limit was reached")
    answer = client.call(endpoint, payload(endpoint), timeout_s)
    return answer, check_answer(endpoint, answer)


def run_smoke(client: Client, save: Path | None, deadline: float) -> bool:
    """Call all endpoints one after another and print a table; return whether all answers are right.

    ``deadline`` is a time of the monotonic clock. Files and an overview of them go to ``save``.
    """
    table = Table("endpoint", "seconds", "media type", "size", "frames", "swapped", "bytes", "GPU", "cost (USD)")
    answers: list[tuple[str, dict[str, Any], bytes]] = []
    refused = False
    with spinner() as progress:
        task = progress.add_task("", total=len(ENDPOINTS))
        for name in ENDPOINTS:
            progress.update(task, description=f"/{name}")
            try:
                answer, decoded = call_example(client, name, deadline - time.monotonic())
            except CallFailed as e:
                refused = refused or e.status == 401
                table.add_row(f"/{name}", Text(str(e), style="red"))
                continue
            finally:
                progress.advance(task)
            table.add_row(*_row(name, answer, decoded))
            answers.append((name, payload(name), answer.data))
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                (save / f"{name}.{answer.extension}").write_bytes(answer.data)
    console.print(table, markup=False)
    if refused:
        print_error(_advice(client))
    if save is not None and answers:
        overview(answers).save(save / "overview.png")
        print_line(f"Overview of all results: {save / 'overview.png'}")
    return len(answers) == len(ENDPOINTS)


def _advice(client: Client) -> str:
    """Return what to do about a 401."""
    secret = os.environ.get("RYLA_API_KEY_SECRET")  # set by the chart
    source = f"the Secret {secret} (auth.smokeKeySecret)" if secret else "the Secret that auth.smokeKeySecret names"
    if client.has_key:
        return f"the service does not know this key: RYLA_API_KEY, --key, or in the chart `key` of {source}"
    return (
        "the service requires a key, and none was given: set RYLA_API_KEY or --key; the chart takes it from `key` of "
        f"{source}, which must exist"
    )


def _row(name: str, answer: Answer, decoded: Decoded) -> list[str]:
    headers = answer.headers
    return [
        f"/{name}",
        f"{answer.seconds:.1f}",
        decoded.media_type,
        f"{decoded.width}x{decoded.height}",
        str(decoded.frames),
        headers.get("x-frames-swapped", ""),
        str(len(answer.data)),
        headers["x-gpu-type"],
        headers["x-cost-usd"],
    ]
