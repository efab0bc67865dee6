"""The programs about jobs in the guide work as they stand, but for the address."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from serve.client.ryla import client as ryla_client
from tests.unit.docs.markdown import ROOT, code_blocks
from tests.unit.serve.client.job_answers import FILM, event, events, film, record
from tests.unit.serve.scripted_server import scripted_server

ADDRESS = "http://127.0.0.1:8000"
PROGRAMS = [
    source
    for language, source in code_blocks((ROOT / "docs" / "getting-started.md").read_text())
    if language == "python" and "ryla.client" in source
]


@pytest.mark.parametrize(("program", "file"), list(zip(PROGRAMS, ("astronaut.mp4", "star.mp4"), strict=True)))
def test_a_program_of_the_guide_follows_a_job_and_writes_its_result(
    program: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ryla", ModuleType("ryla"))
    monkeypatch.setitem(sys.modules, "ryla.client", ryla_client)
    monkeypatch.chdir(tmp_path)
    Path("serve").symlink_to(ROOT / "serve")
    stream = events(event(1, step=1, percent=25.0), event(2, "succeeded", percent=100.0))
    with scripted_server(record("queued", 202), stream, film()) as server:
        assert ADDRESS in program
        exec(compile(program.replace(ADDRESS, server.url), "getting-started.md", "exec"), {"__name__": "__main__"})
    assert Path(file).read_bytes() == FILM
    assert capsys.readouterr().out.splitlines()[0].startswith("denoising 25 %")
