"""An application inside the middleware of Serve's proxy."""

from starlette.types import ASGIApp

from serve.http.proxy import middlewares


def wrapped_as_serve_does(app: ASGIApp) -> ASGIApp:
    """Return ``app`` inside the middleware of the proxy."""
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app
