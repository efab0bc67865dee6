"""Log lines of problems: one line each, whatever a caller sends."""

import logging

import pytest

from serve.http.reports.problem_log import call_of, client_left, log_problem, one_line
from serve.problems import FieldError, Problem, invalid_fields, invalid_header
from tests.unit.serve.http.asgi import http_scope

FORGED = "x\r\n2026-11-25 CRITICAL forged\x1b[31m\u2028\x00y"


def test_nothing_that_a_caller_sends_begins_a_line_or_colours_it() -> None:
    assert one_line(FORGED) == "x??2026-11-25 CRITICAL forged?[31m??y"
    assert one_line("Grüße, 世界") == "Grüße, 世界"


JOB = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/wan2.6", "/wan2.6"),
        ("/a prompt", "an unknown path"),
        ("/" + "a" * 1000, "an unknown path"),
        ("/v1/models/a prompt", "/v1/models/{id}"),
        (f"/jobs/{JOB}/events", f"/jobs/{JOB}/events"),
        (f"/v1/videos/{JOB}", f"/v1/videos/{JOB}"),
        ("/jobs/a prompt/result", "/jobs/{id}/result"),
        (f"/jobs/{JOB}/a prompt", "an unknown path"),
    ],
)
def test_a_call_is_named_by_its_route_and_never_by_what_a_caller_writes(path: str, shown: str) -> None:
    assert call_of(http_scope(path)) == f"POST {shown}"


@pytest.mark.parametrize(
    ("status", "level"), [(404, logging.INFO), (499, logging.INFO), (500, logging.WARNING), (503, logging.WARNING)]
)
def test_a_problem_is_one_line_with_its_request_and_a_level_by_who_is_at_fault(
    status: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        log_problem(Problem(status, "not-found", FORGED), http_scope("/v1/models/a\nb"), "the-id")
    (record,) = caplog.records
    assert record.levelno == level
    why = one_line(FORGED) if status >= 499 else "not-found"
    assert record.getMessage() == f"{status} POST /v1/models/{{id}}: {why} (request id the-id)"


def test_a_fault_of_the_caller_is_named_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    errors = [FieldError(name, "`a secret` is no number") for name in ("width", "width", "x\n" * 30, "a", "b", "c", "d", "e")]
    with caplog.at_level(logging.INFO, "ray.serve"):
        log_problem(invalid_fields(errors), http_scope("/wan2.6"), "the-id")
        log_problem(invalid_header("Prefer", "`a secret` is no number"), http_scope("/wan2.6"), "the-id")
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"422 POST /wan2.6: invalid-field in `width`, `{'x?' * 20}`, `a`, `b`, `c` (request id the-id)"
    assert second == "422 POST /wan2.6: invalid-field in `Prefer` (request id the-id)"


def test_a_client_that_left_has_a_status_of_its_own() -> None:
    assert (client_left().status, client_left().detail) == (499, "the client left")
