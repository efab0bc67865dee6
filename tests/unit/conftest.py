"""What the unit tests share: processes that decode files, which take long to start."""

import logging
from collections.abc import Iterator

import pytest

from deployments.telemetry.logs import PACKAGES
from tests.unit.shared_pool import KeptPool, SharedPool


@pytest.fixture(autouse=True)
def shared_pool(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Share processes between tests: those marked `own_pool` have a pool that they look into."""
    own = request.node.get_closest_marker("own_pool") is not None
    for module in ("serve.pipelines.decoder", "serve.provenance.marking", "serve.provenance.verifier"):
        monkeypatch.setattr(f"{module}.WorkerPool", KeptPool if own else SharedPool)


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """Let the loggers of a process be as before, after a test that sets up a replica in it."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    kept = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, kept, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
