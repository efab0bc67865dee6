import gc
import logging
import os
import warnings
from collections.abc import Iterator

import pytest

# Before any import of the libraries; nothing may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "serve.http.proxy:middlewares"
# Ray gives up on parts of itself that start slowly, as they do on a busy machine.
os.environ.update({"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120", "RAY_agent_register_timeout_ms": "120000"})
os.environ["TRITON_INTERPRET"] = "1"  # kernels for GPUs run on the CPU

# The engines start a thread for each core that they may use. In parallel runs each process gets one
# core, because the threads of several engines would wait for each other in busy loops.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(autouse=True, scope="module")
def spare_libraries() -> None:
    """Keep the garbage collector away from the libraries, whose objects stay for good.

    A search through all of them takes a second, and some tests start one several times. The tests
    of a module import further libraries, so it is done anew for each.
    """
    with warnings.catch_warnings():
        # In a cycle, such as that of an error and its frames, a file may be freed before its spool.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """Let the loggers of a process be as before, after a test that sets up a replica in it."""
    from deployments.telemetry.logs import PACKAGES

    loggers = [logging.getLogger(name) for name in PACKAGES]
    kept = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, kept, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
