"""The size of the modules, and that each module with code has a file of tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
TESTED_TOGETHER = {
    "deployments/wan22_gguf.py": "tests/unit/deployments/test_wan.py",
    "deployments/wan26.py": "tests/unit/deployments/test_wan.py",
}
"""Modules whose tests are the same but for a name, so that one file runs them for both."""


@pytest.mark.parametrize("folder", ["serve", "deployments", "demo", "training", "loadtest", "benchmarks", "helm", "tests"])
def test_no_module_is_over_its_number_of_lines(folder: str) -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert sizes != {}
    assert {str(path.relative_to(ROOT)): lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


IMPORT_OF_A_TEST = re.compile(r"^from tests[\w.]*(\.test_\w+ import| import .*\btest_)", re.MULTILINE)


def modules() -> list[Path]:
    """Return the modules of ``serve``, and those of ``deployments`` that are no engine's."""
    parts = [*(ROOT / "serve").rglob("*.py"), *(ROOT / "deployments").glob("*.py")]
    parts += (path for room in ("replica", "telemetry") for path in (ROOT / "deployments" / room).glob("*.py"))
    return sorted(path.relative_to(ROOT) for path in parts)


def has_code(module: Path) -> bool:
    """Return whether a module does anything: constants, types and protocols do not."""
    return any(
        not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))  # a docstring
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
    )


def file_of_tests(module: Path) -> Path:
    """Return the file of a module's tests; that of a package is beside the package's folder."""
    place = module.parent if module.name == "__init__.py" else module.with_suffix("")
    own = Path("tests", "unit", place).with_name(f"test_{place.name}.py")
    return Path(TESTED_TOGETHER.get(str(module), own))


def test_every_module_with_code_has_a_file_of_tests() -> None:
    with_code = [module for module in modules() if has_code(module)]
    assert len(with_code) > 200
    assert [str(module) for module in with_code if not (ROOT / file_of_tests(module)).exists()] == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("serve/jobs/desk.py", False),
        ("serve/media/sound.py", False),
        ("serve/provenance/trial.py", False),
        ("serve/jobs/store/record.py", True),
        ("serve/http/pages/__init__.py", True),
        ("deployments/engine.py", False),
        ("deployments/replica/collector.py", True),
    ],
)
def test_a_protocol_and_a_record_without_methods_are_no_code(module: str, code: bool) -> None:
    assert has_code(Path(module)) is code


def test_no_test_module_is_imported_by_another_module() -> None:
    """What tests share is in modules of its own, so that a test can be changed without others."""
    texts = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    assert len(texts) > 300
    assert [str(path) for path, text in texts.items() if IMPORT_OF_A_TEST.search(text)] == []
