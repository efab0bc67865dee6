"""Every file and every name in the code that docs/architecture.md mentions exists."""

import ast
import re
from functools import cache

import pytest

from tests.unit.docs.markdown import ROOT, prose, read

TEXT = prose(read("docs/architecture.md"))
NAMES = r"`[A-Za-z_][\w.]*`"
PATHS = sorted(set(re.findall(r"`([\w-]+(?:/[\w.-]+)*(?:/|\.(?:md|py|toml|yaml)))`", TEXT)))


def mentioned_symbols(text: str) -> set[tuple[str, str]]:
    """Return the pairs of file and name in "`file`: `name`, `name`" and "`name` (`file`)"."""
    pairs = set()
    for path, names in re.findall(rf"`([\w/]+\.py)`: ({NAMES}(?:(?:, | and ){NAMES})*)", text):
        pairs |= {(path, name.strip("`")) for name in re.findall(NAMES, names)}
    for name, path in re.findall(rf"({NAMES})\s\(`([\w/]+\.py)`\)", text):
        pairs.add((path, name.strip("`")))
    return pairs


def defined(statements: list[ast.stmt]) -> set[str]:
    """Return the names that ``statements`` define, those of a class's members after a dot."""
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.ClassDef):
            names |= {statement.name, *(f"{statement.name}.{member}" for member in defined(statement.body))}
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return names


@cache
def defined_in(path: str) -> set[str]:
    """Return the names that a file defines."""
    return defined(ast.parse((ROOT / path).read_text()).body)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


@pytest.mark.parametrize("package", ["serve", "deployments", "deployments/video", "deployments/faces"])
def test_every_package_has_its_place_in_the_layout(package: str) -> None:
    layout = TEXT[TEXT.index("## Code layout") : TEXT.index("## Flow control")]
    for folder in sorted(path.parent for path in (ROOT / package).glob("*/__init__.py")):
        assert f"`{folder.relative_to(ROOT)}/`" in layout


@pytest.mark.parametrize(("path", "name"), sorted(mentioned_symbols(TEXT)))
def test_every_name_is_defined_in_its_file(path: str, name: str) -> None:
    assert name in defined_in(path)


def test_paths_and_names_are_found() -> None:
    text = "`a/b.py`: `C.d`, `e` and `F`; run `g` (`h.py`), `i` and `j.py`"
    assert mentioned_symbols(text) == {("a/b.py", "C.d"), ("a/b.py", "e"), ("a/b.py", "F"), ("h.py", "g")}
    assert defined(ast.parse("class A:\n    b: int\n    def c(self): ...\nD, e = 1, 2\nF = 3").body) == {"A", "A.b", "A.c", "F"}
    assert len(PATHS) > 60
    assert len(mentioned_symbols(TEXT)) > 30
