"""Keeps `make unit` fast: a plugin of pytest for that command alone.

While a tracer is set, Python runs all code about twice as slowly, pytest's and the libraries' too.
So coverage traces the imports of the tests and, of each test function of `serve/`, the call with
its first set of parameters. A line that only other calls reach counts as missed, so that the true
figure is at least the one that is printed.
"""

import gc
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
from coverage import Coverage

TRACED = "tests/unit/serve/"
ENGINE_LIBRARIES = {"diffusers", "torch", "transformers"}
"""What takes seconds to import. Tests that need it belong in `tests/engines/`."""
LIBRARIES = ["ray.serve", "cv2"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # The garbage collector would search the growing heap again and again.
    gc.disable()
    # pytest loads this module before pytest-cov sets its tracer.
    for name in LIBRARIES:
        import_module(name)


class Tracing:
    """Sets the tracer for chosen calls and removes it after them."""

    def __init__(self) -> None:
        self._coverage: Coverage | None = None
        self._seen: set[tuple[object, ...]] = set()
        self._chosen = False
        self._traces = False

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Remove the tracer, once all tests are imported."""
        self._coverage = Coverage.current()
        # A worker of pytest-xdist has two, of which the other is that of a controller.
        while (running := Coverage.current()) is not None:
            running.stop()
            # It would warn of each module that was imported before it starts again.
            running._warn_preimported_source = False
        gc.freeze()
        gc.enable()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Choose a test, if it is of ``serve`` and the first one of its function."""
        function = (item.path, item.parent, getattr(item, "originalname", item.name))
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


def pytest_configure(config: pytest.Config) -> None:
    """Add the plugin."""
    config.pluginmanager.register(Tracing())
