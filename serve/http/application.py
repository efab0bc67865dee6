"""The ASGI application: the routes and the layers around them."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.config import AppConfig
from serve.http.auth import ApiKeys, RequireKey
from serve.http.body_limit import BodyLimit
from serve.http.middleware import Cors, RequestBoundary
from serve.http.routes import make_router, make_routes
from serve.media.worker_pool import WorkerPool
from serve.pipelines.handles import Handles
from serve.pipelines.pipelines import make_pipelines
from serve.pipelines.readiness import Readiness

logger = logging.getLogger("ray.serve")


@asynccontextmanager
async def _media_processes(pool: WorkerPool) -> AsyncIterator[None]:
    """Start the processes that decode media before the first request, and end them at the end."""
    await pool.warm_up()
    try:
        yield
    finally:
        pool.close()


class Service:
    """The application as a whole, with the routes of its router.

    From ``routes`` Serve learns the path to name in its access logs and metrics. Without it, every
    request is one to `/`.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def make_app(config: AppConfig, handles: Handles, readiness: Readiness) -> Service:
    """Return the ASGI application over the given models. The layer added last is the outermost."""
    pipelines = make_pipelines(config, handles)
    routes = make_routes(config, pipelines, readiness)
    router = make_router(routes, lambda _: _media_processes(pipelines.decoder.pool))
    app: ASGIApp = BodyLimit(router, config.limits.max_body_bytes)
    if config.ingress.api_keys is not None:
        app = RequireKey(app, ApiKeys(config.ingress.api_keys))
    else:
        logger.warning("no API keys are configured (ingress.api_keys): everyone who reaches this service may use it")
    app = RequestBoundary(app)
    if config.ingress.cors_origins:
        # This is the outermost layer, so that pages can read problems too.
        app = Cors(app, config.ingress.cors_origins)
    return Service(app, router.routes)
