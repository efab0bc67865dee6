"""The report on a request to an endpoint: its outcome and its time, as metrics."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from serve.problems import problem_of
from serve.telemetry import metrics
from serve.telemetry.metrics import Outcome, outcome_of_status


class RequestReport:
    """The report on one request, whose ``endpoint`` may become known later."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._outcome: Outcome = "failed"
        self._start = time.monotonic()

    def answered(self, response: Response) -> Response:
        """Note the answer, and return it."""
        self._outcome = outcome_of_status(response.status_code)
        return response

    def raised(self, error: BaseException) -> None:
        """Note what the request failed with."""
        if isinstance(error, asyncio.CancelledError | ClientDisconnect):
            self._outcome = "left"
        else:
            problem = problem_of(error)
            self._outcome = outcome_of_status(500 if problem is None else problem.status)

    def end(self) -> None:
        """Record the request."""
        metrics.REQUESTS.add(endpoint=self.endpoint, outcome=self._outcome)
        metrics.REQUEST_SECONDS.observe(time.monotonic() - self._start, endpoint=self.endpoint)


@contextmanager
def reported(endpoint: str = "") -> Iterator[RequestReport]:
    """Report on the request that the block answers."""
    report = RequestReport(endpoint)
    try:
        yield report
    except BaseException as error:
        report.raised(error)
        raise
    finally:
        report.end()
