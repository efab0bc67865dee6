"""The size of the modules."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400


@pytest.mark.parametrize("folder", ["serve", "deployments", "demo", "training", "loadtest", "benchmarks", "helm", "tests"])
def test_no_module_is_over_its_number_of_lines(folder: str) -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert sizes != {}
    assert {str(path.relative_to(ROOT)): lines for path, lines in sizes.items() if lines > MAX_LINES} == {}
