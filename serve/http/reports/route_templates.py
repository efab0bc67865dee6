"""Paths as logs, metrics and traces name them: by their templates, without what callers put in."""

import itertools
import re

from starlette.types import Scope

from serve.route_table import ENDPOINTS, Row

TEMPLATES = (*itertools.chain(*ENDPOINTS.values()), *dict.fromkeys(row.path for row in Row))
"""The templates of all routes."""
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
