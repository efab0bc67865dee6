"""No command prints its caller's key or the prompt, however the call ends."""

import json
import logging
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from serve.cli.main import app
from serve.client import Client
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

KEY = "sk-kolibri-x"
PROMPT = "a nectar tree"
ANSWERS = {
    "unauthorized": problem(401, "send your key"),
    "refused": problem(422, "`size` is wrong"),
    "failed": problem(500, "the service failed"),
    "no JSON": Scripted(b"<html>", 502),
    "no record": Scripted(json.dumps({"id": 7}).encode(), headers={"Content-Type": "application/json"}),
    "cut": Scripted(b"abc", headers={"Content-Length": "9"}, cut=1),
}
COMMANDS = (
    ("call", "wan2.6", f"prompt={PROMPT}"),
    ("call", "wan2.6", f"prompt={PROMPT}", "--job"),
    ("jobs",),
    ("job", "0" * 32),
    ("cancel", "0" * 32),
)


@pytest.mark.slow
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words)[:10])
def test_no_command_prints_its_key_or_its_prompt(
    command: tuple[str, ...],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)  # a result is written there
    monkeypatch.setattr(Client, "_pause", interrupt)  # the command would try again for minutes
    with caplog.at_level(logging.DEBUG), scripted_server(ANSWERS[answer]) as server:
        result = CliRunner().invoke(app, [*command, "--url", server.url, "--key", KEY], env={"RYLA_API_KEY": f"{KEY}-2"})
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert result.exit_code != 0
    for text in (result.output, caplog.text):
        assert not any(mark in text for mark in ("kolibri", "nectar"))


def test_help_shows_no_key_of_the_environment() -> None:
    result = CliRunner().invoke(app, ["call", "--help"], env={"RYLA_API_KEY": KEY})
    assert "RYLA_API_KEY" in result.output
    assert KEY not in result.output


def test_a_traceback_of_a_command_shows_no_values() -> None:
    """Typer would print the local variables of each frame, and so the key."""
    assert app.pretty_exceptions_show_locals is False
