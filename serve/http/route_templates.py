"""Paths as logs, metrics and traces name them: by their templates, without what callers put in."""

import re

from starlette.types import Scope

from serve.telemetry.metrics import ENDPOINT

TEMPLATES = (
    *(f"/{name}" for name in ENDPOINT.values),
    "/",
    "/docs",
    "/health",
    "/healthz",
    "/jobs",
    "/jobs/{id}",
    "/jobs/{id}/cancel",
    "/jobs/{id}/events",
    "/jobs/{id}/preview",
    "/jobs/{id}/result",
    "/limits",
    "/loras",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/videos",
    "/v1/videos/{id}",
    "/v1/videos/{id}/content",
    "/verify",
    "/video-faceswap",
    "/warm",
)
"""The templates of all routes. Serve's proxy, which has no router, reads them too."""
UNKNOWN = "an unknown path"

_KNOWN = frozenset(TEMPLATES)
_PATTERNS = tuple(
    (template, re.compile(re.escape(template).replace(r"\{id\}", r"(?P<id>[^/]+)")))
    for template in TEMPLATES
    if "{id}" in template
)
_JOB_ID = re.compile(r"[0-9a-f]{32}")


def template_of(scope: Scope) -> str:
    """Return the template of a request's path, or ``UNKNOWN``."""
    return _match(scope)[0]


def job_id_of(scope: Scope) -> str:
    """Return the id of the job that a path names, or nothing: only what can be one is returned."""
    identifier = _match(scope)[1]
    return identifier if _JOB_ID.fullmatch(identifier) else ""


def _match(scope: Scope) -> tuple[str, str]:
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    if path in _KNOWN:
        return path, ""
    for template, pattern in _PATTERNS:
        if (found := pattern.fullmatch(path)) is not None:
            return template, found["id"]
    return UNKNOWN, ""
