"""Middleware for Serve's own HTTP proxy: what must be fixed before a request reaches the ingress.

Some headers let any client steer the proxy. `x-request-disconnect-disabled` keeps a GPU working for
a client that has left, `x-request-timeout-seconds` replaces our 504 problem by the proxy's
plain-text 408, and others choose the replica, or end in a plain-text 500 if they are not UTF-8. The
proxy also has no limits: not on the head of a request, nor on the time that a body takes, nor on
the memory of all bodies.

Serve loads this module by the environment variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.http.proxy:middlewares``. It must be set where Ray
is started, with the variables that ``middlewares`` reads; `ryla serve` sets them all
(docs/operations.md describes them).
"""

import logging
import os
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.telemetry.metric import OTHER
from serve.config import Limits, ProxySettings
from serve.http.callers.auth import OPEN_PREFIXES, ApiKeys, RequireKey
from serve.http.head_limits import check_head
from serve.http.middleware import Cors
from serve.http.openai.errors import OpenAIErrors
from serve.http.protocol.body_limit import BodyLimit
from serve.http.protocol.bounded_protocol import CALLER_KNOWN, EXTENSION, install
from serve.http.protocol.plain_errors import SERVE_PREFIX, PlainErrors
from serve.http.protocol.whole_body import WholeBody
from serve.http.reports.access_log import leave_out_probes
from serve.http.reports.problem_log import log_problem
from serve.http.reports.route_templates import template_of
from serve.http.request_id import choose_request_id, send_with_request_id
from serve.problems import Problem
from serve.route_table import ENDPOINTS, Row
from serve.telemetry.metrics import REQUESTS, outcome_of_status

logger = logging.getLogger("ray.serve")

IMPORT_PATH = "serve.http.proxy:middlewares"
CONTROL_HEADERS = frozenset(
    {
        "x-request-disconnect-disabled",
        "x-request-timeout-seconds",
        "serve-multiplexed-model-id",
        os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id").lower().replace("_", "-"),
    }
)
"""Request headers that steer the proxy or its choice of a replica. Ray reads `_` and `-` alike."""
COUNTED_AS = {path: name for name, paths in ENDPOINTS.items() for path in paths} | {Row.CREATE_VIDEO.path: OTHER}
"""The endpoint as which a request to a path is counted; OpenAI's API names it in the body only."""
CONTROL_PREFIX = "x-serve-router-"
"""The prefix of the headers that Ray's request router reads."""


class ProxyBoundary:
    """Drops the headers that steer the proxy and gives each request one id for all logs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not _steers(name)]
        headers = MutableHeaders(scope=scope)
        headers["x-request-id"] = request_id = choose_request_id(headers.get("x-request-id"))

        try:
            check_head(scope)
            # The ingress and the proxy both name the request; one of the two headers is enough.
            await self._app(scope, receive, send_with_request_id(send, request_id))
        except Problem as problem:
            log_problem(problem, scope, request_id)
            _count(problem, scope)
            await problem.response(request_id)(scope, receive, send)


def _count(problem: Problem, scope: Scope) -> None:
    """Count a request to make something that never reaches the ingress, which counts the others."""
    if scope["method"] == "POST" and (endpoint := COUNTED_AS.get(template_of(scope))) is not None:
        REQUESTS.add(endpoint=endpoint, outcome=outcome_of_status(problem.status))


def _steers(name: bytes) -> bool:
    normalized = name.decode("latin-1").lower().replace("_", "-")
    return normalized in CONTROL_HEADERS or normalized.startswith(CONTROL_PREFIX)


class RequireBoundedConnection:
    """Refuses every request that did not come through ``BoundedProtocol``.

    Otherwise a new version of Ray or uvicorn that starts its server in another way would run
    without limits, and nobody would notice. It also tells the connection that its caller is known:
    uvicorn has put the one whom a trusted proxy names into the scope by now.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            bounded = scope.get("extensions", {}).get(EXTENSION)
            if bounded is None:
                logger.error(
                    "Serve's proxy does not use serve.http.protocol.bounded_protocol, so its connections have no limits"
                )
                raise Problem(500, "internal", "the service runs without limits for connections, so it answers no request")
            # Taken out, since the scope is sent to another process.
            if (caller_known := bounded.pop(CALLER_KNOWN, None)) is not None:
                caller_known()
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Return the middleware that Serve's proxy wraps around itself, and bound its connections.

    Serve calls this before it starts the server.
    """
    settings = ProxySettings.model_validate_json(os.environ.get("RYLA_PROXY") or "{}")
    max_bytes = int(os.environ.get("RYLA_MAX_BODY_BYTES") or Limits().max_body_bytes)
    keys = bool(os.environ.get("RYLA_API_KEYS"))
    origins = tuple((os.environ.get("RYLA_CORS_ORIGINS") or "").split())
    install(settings)
    leave_out_probes()
    # Serve wraps them in this order: the last one is the outermost.
    return [
        Middleware(PlainErrors),
        Middleware(WholeBody, settings=settings, max_bytes=max_bytes, keys=keys),
        Middleware(BodyLimit, max_bytes=max_bytes),
        *_key_check(),
        Middleware(RequireBoundedConnection),
        Middleware(ProxyBoundary),
        Middleware(OpenAIErrors),
        *([Middleware(Cors, origins=origins)] if origins else []),
    ]


def _key_check() -> list[Middleware]:
    """Return the check of keys, so that no body is read without one. The ingress checks again."""
    path = os.environ.get("RYLA_API_KEYS")
    if not path:
        return []
    prefixes = (*OPEN_PREFIXES, SERVE_PREFIX)
    open_verify = bool(os.environ.get("RYLA_OPEN_VERIFY"))
    return [Middleware(RequireKey, keys=ApiKeys(Path(path)), open_prefixes=prefixes, open_verify=open_verify)]
