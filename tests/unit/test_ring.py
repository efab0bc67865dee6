"""The plugin of `make unit`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.ring import ENGINE_LIBRARIES

ROOT = Path(__file__).parents[2]
PLUGIN = "tests.unit.ring"
SERVE = """
def sign(number):
    if number < 0:
        return -1
    if number > 0:
        return 1
    return 0
"""
TESTS = """
import pytest
from serve.sign import sign

@pytest.fixture
def nothing():
    return sign(0)

@pytest.mark.parametrize("number", [{first}, {second}])
def test_sign(number, nothing):
    assert sign(number) * number > 0
"""


def test_fast_tests_import_no_library_of_the_engines(request: pytest.FixtureRequest) -> None:
    if not request.config.pluginmanager.hasplugin(PLUGIN):
        pytest.skip("only `make unit` leaves out the tests that import them")
    assert ENGINE_LIBRARIES & sys.modules.keys() == set(), "tests that need them belong in tests/engines/"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_coverage_counts_the_first_call_of_each_function_of_serve(tmp_path: Path, processes: int) -> None:
    for path, text in {
        "pytest.ini": "[pytest]",
        "serve/__init__.py": "",
        "serve/sign.py": SERVE,
        "tests/unit/serve/test_sign.py": TESTS.format(first=2, second=-2),
        "tests/unit/elsewhere/test_other.py": TESTS.format(first=-2, second=2),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-n", str(processes), "--cov=serve", "--cov-report=term-missing"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        [*command, "tests/unit"], cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 passed" in run.stdout
    (report,) = [line for line in run.stdout.splitlines() if line.startswith("serve/sign.py")]
    # `return -1` runs in the second call and in a test of another package, which are not traced.
    assert report.split()[1:] == ["6", "1", "83%", "4"]
