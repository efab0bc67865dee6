"""A call of our own code with more than three arguments names those that a reader cannot guess."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_UNNAMED = 3
KERNELS = "deployments/video/kernels/triton.py"
"""Its calls are compiled by Triton, and follow the order of its kernels' pointers and sizes."""


def own_names(tree: ast.Module) -> set[str]:
    """Return what a module defines or imports from our packages, without what takes `*args`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(node, ast.ClassDef) or node.args.vararg is None:
                names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("serve", "deployments"):
            names.update(name.asname or name.name for name in node.names)
    return names


def long_calls(source: str) -> Iterator[str]:
    """Yield the calls of our own functions, classes and methods that leave too much unnamed."""
    tree = ast.parse(source)
    own = own_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(isinstance(argument, ast.Starred) for argument in node.args):
            continue
        called = node.func
        is_method = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self"
        name = (
            called.id
            if isinstance(called, ast.Name)
            else called.attr
            if isinstance(called, ast.Attribute) and is_method
            else ""
        )
        if name in own and len(node.args) > MAX_UNNAMED:
            yield ast.unparse(node)


def test_calls_with_more_than_three_arguments_name_them() -> None:
    modules = [path for package in ("serve", "deployments") for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 300
    found = {str(path.relative_to(ROOT)): list(long_calls(path.read_text())) for path in modules}
    assert {path: calls for path, calls in found.items() if calls and path != KERNELS} == {}


OWN = """
def f(a, b, c, d): return a

def g(*each): return each

class C:
    def n(self, a, b, c, d): return a
    def m(self): return CALL
"""


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("f(1, 2, 3, 4)", False),
        ("self.n(1, 2, 3, 4)", False),
        ("f(1, 2, 3, d=4)", True),
        ("self.n(1, 2, 3, d=4)", True),
        ("g(1, 2, 3, 4)", True),
        ("print(1, 2, 3, 4)", True),
        ("other.n(1, 2, 3, 4)", True),
        ("f(*[1, 2, 3, 4])", True),
    ],
)
def test_only_calls_of_own_code_with_a_fixed_number_of_arguments_count(call: str, named: bool) -> None:
    assert list(long_calls(OWN.replace("CALL", call))) == ([] if named else [call])


def test_what_is_imported_from_our_packages_is_our_own() -> None:
    calls = "f(1, 2, 3, 4)\ng(1, 2, 3, 4)"
    assert list(long_calls(f"from serve.media import f\nfrom os import g\n{calls}")) == ["f(1, 2, 3, 4)"]
