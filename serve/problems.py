"""Problems (RFC 9457): the one form in which a request fails, and what each error becomes."""

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray.exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.responses import Response

from deployments.errors import CheckpointRefused, NotFinite, RequestRefused
from serve.pipelines.attempts import causes, is_lost_replica
from serve.pipelines.errors import MediaOverLimit, ModelUnavailable

TITLES = {
    "bad-request": "Bad request",
    "body-too-large": "Body too large",
    "client-left": "Client closed the request",
    "conflict": "Not in this state",
    "cors": "Origin not allowed",
    "gone": "No longer there",
    "head-too-large": "Request head too large",
    "internal": "Internal error",
    "invalid-field": "Invalid request",
    "invalid-form": "Not a valid form",
    "invalid-json": "Not valid JSON",
    "media-too-large": "Media too large",
    "method-not-allowed": "Method not allowed",
    "not-acceptable": "Not acceptable",
    "not-found": "Not found",
    "precondition-failed": "Precondition failed",
    "quota": "Quota used up",
    "range-not-satisfiable": "Range not satisfiable",
    "replica-lost": "A model replica was lost",
    "timeout": "Time limit reached",
    "too-slow": "Request too slow",
    "unauthorized": "No valid key",
    "unavailable": "Not available now",
    "unsupported-media-type": "Unsupported media type",
}
"""The title of each kind of problem, by its slug: the last part of the problem's type."""

REQUIRED = "is required"
_RETRY = "retry_after_s"
_NO_ROOM = (
    ray.exceptions.ActorUnschedulableError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.PendingCallsLimitExceeded,
    ray.exceptions.TaskUnschedulableError,
)


Source = Literal["pointer", "header", "parameter"]
SOURCES: tuple[Source, ...] = ("pointer", "header", "parameter")
"""The keys under which a problem names a value: that of a field, a header or a query parameter."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one value of a request: its name, and what to send instead.

    ``source`` is the key under which the problem gives the name: a JSON pointer into the body, or
    the name of a header or of a query parameter.
    """

    field: str
    detail: str
    source: Source = "pointer"


class Problem(Exception):
    """A failed request. ``slug`` is the last part of the problem's type (see docs/http.md)."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def with_field_names(self, names: Mapping[str, str]) -> "Problem":
        """Return the same problem with the names that the caller used for the fields."""
        if not self.errors:
            return self
        errors = [replace(e, field=names.get(e.field, e.field)) for e in self.errors]
        return Problem(self.status, self.slug, _sentence(errors), errors=errors, headers=self.headers)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the problem as RFC 9457 writes it."""
        body: dict[str, Any] = {
            "type": f"urn:ryla:problem:{self.slug}",
            "title": TITLES[self.slug],
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:uuid:{uuid.uuid4()}",
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [{e.source: _name(e), "detail": e.detail} for e in self.errors]
        return body

    def record(self, request_id: str) -> dict[str, Any]:
        """Return the problem as a job's record keeps it: its body and when to try again."""
        body = self.body(request_id)
        return {**body, _RETRY: int(self.headers["Retry-After"])} if "Retry-After" in self.headers else body

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Problem":
        """Return the problem that a job's record keeps."""
        errors = []
        for error in record.get("errors", ()):
            source: Source = next(name for name in SOURCES if name in error)
            errors.append(FieldError(_field(error[source], source), error["detail"], source))
        headers = {"Retry-After": str(record[_RETRY])} if _RETRY in record else {}
        slug = record["type"].rpartition(":")[2]
        return cls(record["status"], slug, record["detail"], errors=errors, headers=headers)

    def response(self, request_id: str) -> Response:
        """Return the problem as an application/problem+json response."""
        text = json.dumps(self.body(request_id))
        headers = {**self.headers, "X-Request-Id": request_id}
        return Response(text, status_code=self.status, headers=headers, media_type="application/problem+json")


def invalid(field: str, detail: str) -> Problem:
    """Return a 422 for one field."""
    return invalid_fields([FieldError(field, detail)])


def invalid_header(name: str, detail: str) -> Problem:
    """Return a 422 for a header."""
    return invalid_fields([FieldError(name, detail, "header")])


def invalid_parameter(name: str, detail: str) -> Problem:
    """Return a 422 for a query parameter."""
    return invalid_fields([FieldError(name, detail, "parameter")])


def invalid_fields(errors: list[FieldError]) -> Problem:
    """Return a 422 for several fields."""
    return Problem(422, "invalid-field", _sentence(errors), errors=errors)


def unavailable(detail: str, retry_after_s: float) -> Problem:
    """Return a 503 that says when to try again."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


def over_quota(detail: str, retry_after_s: float) -> Problem:
    """Return a 429 for a caller that has as much as it may, with when to try again."""
    return Problem(429, "quota", detail, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


def replica_lost(detail: str, retry_after_s: float) -> Problem:
    """Return a 502 that says when to try again."""
    return Problem(502, "replica-lost", detail, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


def problem_of(error: BaseException, retry_after_s: float = 10) -> Problem | None:
    """Return the problem that an error means to the caller, or None if the fault is ours.

    ``retry_after_s`` says when a queue that is full now may have room again.
    """
    for cause in causes(error):
        if isinstance(cause, Problem):
            return cause
        if isinstance(cause, MediaOverLimit):
            errors = [FieldError(cause.field, cause.detail)]
            return Problem(413, "media-too-large", _sentence(errors), errors=errors)
        if isinstance(cause, RequestRefused):
            return invalid(cause.field, cause.detail)
        if isinstance(cause, ModelUnavailable):
            return unavailable(cause.detail, cause.retry_after_s)
        if isinstance(cause, BackPressureError):
            return unavailable("the model's queue is full", retry_after_s)
        if isinstance(cause, DeploymentUnavailableError | CheckpointRefused):
            return unavailable("the model could not be started; /readyz says why", 60)
        if isinstance(cause, NotFinite):
            return Problem(500, "internal", str(cause))
        if is_lost_replica(cause):
            return replica_lost("the replica that worked on this request died, and so did its replacement", 5)
        if isinstance(cause, _NO_ROOM):
            return unavailable("the cluster has no room for this request now", 30)
        if isinstance(cause, TimeoutError):
            return Problem(504, "timeout", "the request reached its time limit")
    return None


def _sentence(errors: Iterable[FieldError]) -> str:
    return "; ".join(f"`{e.field}` {e.detail}" if e.detail == REQUIRED else f"`{e.field}`: {e.detail}" for e in errors)


def _name(error: FieldError) -> str:
    """Return the name of a value; that of a field as a JSON pointer (RFC 6901)."""
    if error.source != "pointer":
        return error.field
    token = error.field.replace("~", "~0").replace("/", "~1")
    return f"#/{token}"


def _field(name: str, source: Source) -> str:
    """Return the name of a value whose name in a problem is ``name``."""
    return name.removeprefix("#/").replace("~1", "/").replace("~0", "~") if source == "pointer" else name
