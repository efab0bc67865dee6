"""The package `ryla`, laid out as a wheel has it, with httpx as the only other library."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import serve.client
from serve.client.ryla import client as published

ROOT = Path(__file__).parents[5]
PROGRAM = """
import sys
from ryla.client import AsyncClient, CallFailed, Client, JobRecord, Progress
import serve.client
assert Client is serve.client.Client and AsyncClient is serve.client.AsyncClient
print(*sorted(name for name in sys.modules if "." not in name))
"""
HEAVY = {"av", "cv2", "deployments", "numpy", "PIL", "pydantic", "ray", "starlette", "torch", "typer"}


@pytest.mark.slow
def test_programs_import_the_client_as_ryla_client_and_load_little(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        (tmp_path / target).symlink_to(ROOT / source)
    program = f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]!r}\n{PROGRAM}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert {"ryla", "serve", "httpx"} <= loaded
    assert loaded & HEAVY == set()


def test_it_offers_exactly_the_classes_that_programs_need_and_they_are_the_services_own() -> None:
    assert set(published.__all__) == {
        "Answer", "AsyncClient", "AsyncJobHandle", "CallFailed", "Client", "JobHandle", "JobRecord", "Progress", "Retries",
    }  # fmt: skip
    for name in published.__all__:
        assert getattr(published, name) is getattr(serve.client, name), name
