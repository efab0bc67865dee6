"""The ASGI application: the routes and the layers around them."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.config import AppConfig
from serve.http.callers.auth import ApiKeys, RequireKey
from serve.http.jobs.listeners import Listeners
from serve.http.jobs.record import no_signature
from serve.http.middleware import Cors, RequestBoundary
from serve.http.protocol.body_limit import BodyLimit
from serve.http.routes import make_listeners, make_router, make_routes
from serve.jobs.desk import Desk, Jobs
from serve.pipelines.handles import Handles
from serve.pipelines.readiness import Readiness

logger = logging.getLogger("ray.serve")


@asynccontextmanager
async def _open(desk: Desk) -> AsyncIterator[None]:
    """Open the desk before the first request, and close it at the end."""
    await desk.open()
    try:
        yield
    finally:
        await desk.close()


class Service:
    """The application as a whole, with the routes of its router.

    From ``routes`` Serve learns the path to name in its access logs and metrics. Without it, every
    request is one to `/`. ``listeners`` counts the requests that only wait for news of jobs.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], listeners: Listeners) -> None:
        self._app = app
        self.routes = routes
        self._listeners = listeners
        self._requests = 0

    @property
    def at_work(self) -> int:
        """How many requests there are now that do not only wait for news of jobs."""
        return self._requests - self._listeners.count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1


def make_app(config: AppConfig, jobs: Jobs, handles: Handles, readiness: Readiness) -> Service:
    """Return the ASGI application. The layer added last is the outermost.

    ``jobs`` run the requests; ``handles`` and ``readiness`` wake models and say how they are.
    """
    keys = None if config.ingress.api_keys is None else ApiKeys(config.ingress.api_keys)
    sign = no_signature if keys is None else keys.sign_link
    listeners = make_listeners(config.jobs)
    routes = make_routes(config, jobs, handles=handles, readiness=readiness, sign=sign, listeners=listeners)
    router = make_router(routes, lambda _: _open(jobs.desk))
    app: ASGIApp = BodyLimit(router, config.limits.max_body_bytes)
    if keys is not None:
        app = RequireKey(app, keys, open_verify=config.provenance.verify.open)
    else:
        logger.warning("no API keys are configured (ingress.api_keys): everyone who reaches this service may use it")
    app = RequestBoundary(app)
    if config.ingress.cors_origins:
        # This is the outermost layer, so that pages can read problems too.
        app = Cors(app, config.ingress.cors_origins)
    return Service(app, router.routes, listeners)
