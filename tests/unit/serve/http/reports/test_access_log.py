"""Probes that succeed are not logged, in the form in which Serve's own code logs requests."""

import logging
from collections.abc import Iterator

import pytest
from ray.serve._private import logging_utils
from ray.serve._private.constants import SERVE_LOGGER_NAME

from serve.http.reports.access_log import PROBES, is_worth_a_line, leave_out_probes
from serve.route_table import Row


@pytest.fixture
def serve_logger(caplog: pytest.LogCaptureFixture) -> Iterator[logging.Logger]:
    logger = logging.getLogger(SERVE_LOGGER_NAME)
    leave_out_probes()
    leave_out_probes()
    with caplog.at_level(logging.INFO, SERVE_LOGGER_NAME):
        yield logger
    assert logger.filters.count(is_worth_a_line) == 1
    logger.removeFilter(is_worth_a_line)


def access(logger: logging.Logger, method: str, route: str, status: str, client: str = "") -> None:
    """Log a request as Serve's proxy and its replicas do."""
    message = logging_utils.access_log_msg(method=method, route=route, status=status, latency_ms=12.3, client=client)
    logger.info(message, extra={"serve_access_log": True})


@pytest.mark.parametrize("with_client", [False, True])
@pytest.mark.parametrize("path", PROBES)
def test_only_probes_that_succeed_are_left_out(
    path: str,
    with_client: bool,
    serve_logger: logging.Logger,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging_utils, "RAY_SERVE_LOG_CLIENT_ADDRESS", with_client)
    for method in ("GET", "HEAD"):
        access(serve_logger, method, path, "200", "10.0.0.1:99")
        access(serve_logger, method, f"/prefix{path}", "200", "[::1]:99")
    assert caplog.messages == []
    others = [("GET", path, "503"), ("GET", path, "500"), ("POST", path, "405"), ("GET", "/health", "200")]
    for method, route, status in (*others, ("GET", f"{path}x", "200"), ("POST", "/wan2.6", "200")):
        access(serve_logger, method, route, status)
    assert [message.rsplit(" ", 1)[0] for message in caplog.messages[:4]] == [" ".join(other) for other in others]
    assert len(caplog.messages) == 6


def test_what_is_no_line_about_a_request_is_logged_whatever_it_says(
    serve_logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    serve_logger.info("GET /healthz 200 1.0ms")
    assert caplog.messages == ["GET /healthz 200 1.0ms"]


def test_the_probes_need_no_key() -> None:
    assert set(PROBES) <= {row.path for row in Row if row.key == "no key"}
