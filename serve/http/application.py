"""The ASGI application: the routes and the layers around them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from serve.config import AppConfig
from serve.http.auth import OPEN_PATHS, OPEN_PREFIXES, ApiKeys, RequireKey
from serve.http.body_limit import BodyLimit
from serve.http.middleware import Cors, RequestBoundary
from serve.http.routes import make_router, make_routes
from serve.jobs.desk import Desk
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


def make_app(config: AppConfig, desk: Desk, handles: Handles, readiness: Readiness) -> ASGIApp:
    """Return the ASGI application. The layer added last is the outermost.

    ``desk`` takes the jobs; ``handles`` and ``readiness`` wake models and say how they are.
    """
    routes = make_routes(config, desk, handles, readiness)
    app: ASGIApp = make_router(routes, lambda _: _open(desk))
    app = BodyLimit(app, config.limits.max_body_bytes)
    if config.ingress.api_keys is not None:
        keys = ApiKeys(config.ingress.api_keys)
        app = RequireKey(app, keys, open_paths=OPEN_PATHS, open_prefixes=OPEN_PREFIXES)
    else:
        logger.warning("no API keys are configured (ingress.api_keys): everyone who reaches this service may use it")
    app = RequestBoundary(app)
    if config.ingress.cors_origins:
        # This is the outermost layer, so that pages can read problems too.
        app = Cors(app, config.ingress.cors_origins)
    return app
