"""Keeps `make unit` fast: a plugin of pytest for that command alone.

It leaves all but a few sets of parameters of each test function to `make test`.

While a tracer is set, Python runs all code about twice as slowly, pytest's and the libraries' too.
So coverage traces the import of `serve/` and, of each test function of `serve/`, the call with its
first set of parameters. A line that only other calls reach counts as missed, so that the true
figure is at least the one that is printed.
"""

import gc
import os
import pkgutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
from coverage import Coverage

TRACED = "tests/unit/serve/"
ENGINE_LIBRARIES = {"diffusers", "torch", "transformers"}
"""What takes seconds to import. Tests that need it belong in `tests/engines/`."""
LIBRARIES = ["ray.serve", "cv2"]
MAX_SETS = 2
"""How many sets of parameters each test function runs with."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # The garbage collector would search the growing heap again and again.
    gc.disable()
    # pytest loads this module before pytest-cov sets its tracer.
    for name in LIBRARIES:
        import_module(name)


Function = tuple[object, ...]


def import_all(package: str) -> None:
    """Import all modules of a package."""
    for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        import_module(module.name)


def function_of(item: pytest.Item) -> Function:
    """Return what the tests of one test function have in common."""
    return item.parent, getattr(item, "originalname", item.name)


def spread(count: int, most: int) -> set[int]:
    """Return the indices of up to ``most`` of ``count`` things, from the first one to the last."""
    return set(range(count)) if count <= most else {round(i * (count - 1) / (most - 1)) for i in range(most)}


class Tracing:
    """Sets the tracer for chosen calls and removes it after them."""

    def __init__(self) -> None:
        self._coverage: Coverage | None = None
        self._seen: set[Function] = set()
        self._chosen = False
        self._traces = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """Import ``serve``, and remove the tracer before the tests are imported."""
        self._coverage = Coverage.current()
        if session.config.getoption("dist", "no") == "no":  # not the controller of pytest-xdist
            import_all("serve")
        # A worker of pytest-xdist has two, of which the other is that of a controller.
        while (running := Coverage.current()) is not None:
            running.stop()
            # It would warn of each module that was imported before it starts again.
            running._warn_preimported_source = False
        try:
            return (yield)
        finally:
            gc.freeze()
            gc.enable()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Choose a test, if it is of ``serve`` and the first one of its function."""
        function = function_of(item)
        self._chosen = item.nodeid.startswith(TRACED) and function not in self._seen
        self._seen.add(function)
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self) -> Generator[None, object, object]:
        """Trace a fixture of a chosen test."""
        with self._traced():
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_pyfunc_call(self) -> Generator[None, object, object]:
        """Trace a chosen test."""
        with self._traced():
            return (yield)

    @contextmanager
    def _traced(self) -> Iterator[None]:
        if self._coverage is None or not self._chosen or self._traces:
            yield
            return
        self._coverage.start()
        self._traces = True
        try:
            yield
        finally:
            self._traces = False
            self._coverage.stop()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests with further sets of parameters."""
    functions: dict[Function, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(function_of(item), []).append(item)
    kept = {tests[i] for tests in functions.values() for i in spread(len(tests), MAX_SETS)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_report_header() -> str:
    """Say what is left out."""
    return f"of each test function, {MAX_SETS} sets of parameters at most"


def pytest_configure(config: pytest.Config) -> None:
    """Add the plugin."""
    config.pluginmanager.register(Tracing())
