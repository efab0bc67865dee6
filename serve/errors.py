"""Problems (RFC 9457): the one form in which a request fails, and what each error of the graph becomes."""

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray.exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.responses import Response

from deployments.errors import Cancelled, CheckpointRefused, RequestRefused

TITLES = {
    "bad-request": "Bad request",
    "body-too-large": "Body too large",
    "client-left": "Client closed the request",
    "cors": "Origin not allowed",
    "internal": "Internal error",
    "invalid-field": "Invalid request",
    "invalid-form": "Not a valid form",
    "invalid-json": "Not valid JSON",
    "media-too-large": "Media too large",
    "method-not-allowed": "Method not allowed",
    "not-acceptable": "Not acceptable",
    "not-found": "Not found",
    "not-implemented": "Not implemented",
    "replica-lost": "A model replica was lost",
    "timeout": "Time limit reached",
    "unauthorized": "No valid key",
    "unavailable": "Not available now",
    "unsupported-media-type": "Unsupported media type",
}
"""Every kind of problem, by the last part of its type."""


REQUIRED = "is required"


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field: its name in the request, and what to send instead."""

    field: str
    detail: str


class Problem(Exception):
    """A failed request. ``slug`` is the last part of the problem's type, listed in docs/http.md."""

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

    def about(self, part: str) -> "Problem":
        """The same, of a ``part`` of the field that it names."""
        errors = [FieldError(e.field, f"{part}: {e.detail}") for e in self.errors]
        return Problem(self.status, self.slug, _sentence(errors), errors=errors, headers=self.headers)

    def renamed(self, names: Mapping[str, str]) -> "Problem":
        """The same, with the names that the caller used for the fields."""
        if not self.errors:
            return self
        errors = [FieldError(names.get(e.field, e.field), e.detail) for e in self.errors]
        return Problem(self.status, self.slug, _sentence(errors), errors=errors, headers=self.headers)

    def response(self, request_id: str) -> Response:
        """The problem as application/problem+json."""
        body: dict[str, object] = {
            "type": f"urn:ryla:problem:{self.slug}",
            "title": TITLES[self.slug],
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:uuid:{uuid.uuid4()}",
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [{"pointer": f"#/{_pointer(e.field)}", "detail": e.detail} for e in self.errors]
        return Response(json.dumps(body), self.status, {**self.headers, "X-Request-Id": request_id}, "application/problem+json")


def invalid(field: str, detail: str) -> Problem:
    """422 for one field."""
    return invalid_fields([FieldError(field, detail)])


def invalid_fields(errors: list[FieldError]) -> Problem:
    """422 for several fields."""
    return Problem(422, "invalid-field", _sentence(errors), errors=errors)


def _sentence(errors: Iterable[FieldError]) -> str:
    return "; ".join(f"`{e.field}` {e.detail}" if e.detail == REQUIRED else f"`{e.field}`: {e.detail}" for e in errors)


def busy(detail: str, retry_after_s: float) -> Problem:
    """503 with an honest Retry-After."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))})


def problem_of(error: BaseException, retry_after_s: float = 10) -> Problem | None:
    """The problem that an error of the graph means to the caller, or None if it is a fault of ours.

    ``retry_after_s``: when a full queue may have room again.
    """
    for cause in _causes(error):
        if isinstance(cause, Problem):
            return cause
        if isinstance(cause, RequestRefused):
            return invalid(cause.field, cause.detail)
        if isinstance(cause, BackPressureError):
            return busy("the model's queue is full", retry_after_s)
        if isinstance(cause, DeploymentUnavailableError | CheckpointRefused):
            return busy("the model could not be started; /readyz says why", 60)
        if is_lost_replica(cause):
            return Problem(502, "replica-lost", "the replica that worked on this request died, and so did its replacement")
        if isinstance(cause, TimeoutError):
            return Problem(504, "timeout", "the request outlived its time limit")
    return None


def is_lost_replica(error: BaseException) -> bool:
    """Whether a replica, not the request, is what failed: another attempt may well succeed."""
    lost = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError, Cancelled)
    return any(isinstance(cause, lost) for cause in _causes(error))


def _causes(error: BaseException) -> Iterable[BaseException]:
    """``error`` and what Ray wrapped into it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = getattr(current, "cause", None)


def _pointer(field: str) -> str:
    return field.replace("~", "~0").replace("/", "~1")
