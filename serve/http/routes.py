"""The table of routes, read by the router, the OpenAPI document, the key check and tests."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from serve.config import AppConfig
from serve.http.admission import Admission
from serve.http.endpoint_handler import EndpointHandler
from serve.http.endpoints import Endpoint, make_endpoints
from serve.http.openapi import endpoint_operation, openapi_document, service_operation, warm_operation
from serve.http.service_handlers import DocsHandlers, ServiceHandlers
from serve.models import MODELS
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.readiness import Readiness

DOCS_ASSETS = "/docs/assets"
"""The path below which the files of Swagger UI are."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One row: a method and path, its handler and OpenAPI operation, and whether it needs a key."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    operation: dict[str, Any]
    needs_key: bool = True


def make_routes(config: AppConfig, pipelines: Pipelines, readiness: Readiness) -> tuple[Route, ...]:
    """Return all routes of the service."""
    endpoints = make_endpoints(config)
    admission = Admission(config.ingress.max_concurrent_requests)
    service = ServiceHandlers(config, endpoints, pipelines.handles, readiness, admission)
    handlers = {endpoint.name: EndpointHandler(endpoint, config, pipelines, admission) for endpoint in endpoints}
    routes = (*_endpoint_routes(endpoints, handlers), *_service_routes(service))
    operations = [(route.path, route.method, route.operation) for route in routes]
    docs = DocsHandlers(openapi_document(operations, keys=config.ingress.api_keys is not None))
    return (*routes, *_docs_routes(docs))


def _endpoint_routes(endpoints: Sequence[Endpoint], handlers: dict[str, EndpointHandler]) -> Iterable[Route]:
    for endpoint in endpoints:
        for path in endpoint.paths:
            yield Route("POST", path, handlers[endpoint.name].__call__, endpoint_operation(endpoint, path))


def _service_routes(service: ServiceHandlers) -> Iterable[Route]:
    models = [model.name for model in MODELS]
    yield Route("GET", "/health", service.health, service_operation("Is the service there? Wakes no model"), needs_key=False)
    yield Route("GET", "/", service.root, service_operation("What is this? Needs no model"), needs_key=False)
    yield Route("GET", "/healthz", service.healthz, service_operation("Is this ingress process alive?"), needs_key=False)
    yield Route(
        "GET",
        "/readyz",
        service.readyz,
        service_operation("Are requests accepted? The state of each model", query={"model": models}),
        needs_key=False,
    )
    yield Route("GET", "/limits", service.limits, service_operation("The limits, defaults and prices in force"))
    yield Route("POST", "/warm", service.warm, warm_operation(models))


def _docs_routes(docs: DocsHandlers) -> Iterable[Route]:
    yield Route("GET", "/openapi.json", docs.openapi, {}, needs_key=False)
    yield Route("GET", "/docs", docs.docs, {}, needs_key=False)


def make_router(routes: Iterable[Route]) -> Router:
    """Return Starlette's router for the table, with the files of Swagger UI."""
    return Router(
        [
            *(StarletteRoute(route.path, route.handler, methods=[route.method]) for route in routes),
            Mount(DOCS_ASSETS, StaticFiles(directory=swagger_ui_path)),
        ]
    )


def open_paths(routes: Iterable[Route]) -> frozenset[str]:
    """Return the paths that need no key: probes and the documentation."""
    return frozenset(route.path for route in routes if not route.needs_key)
