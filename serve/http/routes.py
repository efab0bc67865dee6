"""The table of routes, read by the router, the OpenAPI document and tests.

Which paths need no key is in ``callers.auth``, which the proxy reads, too.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan
from swagger_ui_bundle import swagger_ui_path

from serve.config import AppConfig
from serve.http.callers.admission import Admission
from serve.http.callers.auth import VERIFY, is_open, open_posts
from serve.http.callers.quotas import Quotas
from serve.http.endpoint_handler import EndpointHandler
from serve.http.endpoints import Endpoint, make_endpoints
from serve.http.jobs.handlers import JobHandlers
from serve.http.jobs.listeners import Listeners
from serve.http.jobs.operations import job_operations
from serve.http.jobs.record import SignLink
from serve.http.jobs.submission import Submissions
from serve.http.openai.operations import openai_operations
from serve.http.openai.videos import OpenAIVideos
from serve.http.openapi import endpoint_operation, openapi_document, service_operation, verify_operation, warm_operation
from serve.http.service_handlers import ROOT_TYPES, DocsHandlers, ServiceHandlers
from serve.http.verify_handlers import VerifyHandlers
from serve.job_settings import JobSettings
from serve.jobs.desk import Jobs
from serve.models import MODELS
from serve.pipelines.handles import Handles
from serve.pipelines.readiness import Readiness
from serve.provenance.verifier import Verifier
from serve.provenance.watermark.secret import load_secrets

DOCS_ASSETS = "/docs/assets"
"""The path below which the files of Swagger UI are."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row: a method and path, its handler and its OpenAPI operation."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    operation: dict[str, Any]
    open_posts: frozenset[str] = frozenset()
    """The paths whose POST needs no key."""

    @property
    def needs_key(self) -> bool:
        """Whether the route needs a key where keys are configured."""
        return not is_open(self.method, self.path, self.open_posts)


def make_listeners(settings: JobSettings) -> Listeners:
    """Return the places of those who listen to one replica."""
    return Listeners(limit=settings.max_listeners, limit_of_one=settings.max_listeners_per_caller)


def make_routes(
    config: AppConfig, jobs: Jobs, handles: Handles, readiness: Readiness, *, sign: SignLink, listeners: Listeners
) -> tuple[Route, ...]:
    """Return all routes of the service. ``sign`` signs the links of jobs."""
    endpoints = make_endpoints(config)
    admission = Admission(config.ingress.max_concurrent_requests)
    submissions = Submissions(jobs.desk, config.jobs, endpoints)
    quotas = Quotas(jobs.store, per_minute=config.jobs.requests_per_minute)
    job_handlers = JobHandlers(
        desk=jobs.desk,
        store=jobs.store,
        files=jobs.files,
        listeners=listeners,
        max_wait_s=config.jobs.max_wait_s,
        redirects=config.jobs.redirect_after_s is not None,
        sign=sign,
    )
    videos = OpenAIVideos(
        endpoints=endpoints,
        submit=submissions.submit,
        desk=jobs.desk,
        store=jobs.store,
        files=jobs.files,
        jobs=job_handlers,
        quotas=quotas,
        admission=admission,
        timeout_s=config.limits.request_timeout_s,
    )
    service = ServiceHandlers(
        config=config,
        endpoints=endpoints,
        handles=handles,
        readiness=readiness,
        admission=admission,
    )
    checks, marks = config.provenance.verify, config.provenance.watermark
    verifier = Verifier(
        max_cpu_s=checks.max_cpu_s,
        max_memory_bytes=config.provenance.c2pa.max_memory_bytes,
        max_pixels=config.limits.max_image_pixels,
        trust_anchors=checks.trust_anchors,
        secrets=load_secrets(marks.key, marks.keys) if marks.enabled or marks.keys else [],
    )
    verify = VerifyHandlers(
        verifier,
        Quotas(jobs.store, per_minute=checks.per_minute),
        # Verifying may need no key, so it has places of its own.
        Admission(config.ingress.max_concurrent_requests),
        concurrency=checks.concurrency,
    )
    handlers = {
        endpoint.name: EndpointHandler(
            endpoint,
            config=config,
            submissions=submissions,
            admission=admission,
            quotas=quotas,
            jobs=job_handlers,
        )
        for endpoint in endpoints
    }
    routes = (
        *_endpoint_routes(endpoints, handlers),
        *job_routes(job_handlers),
        *openai_routes(videos),
        *_service_routes(service),
        *_verify_routes(verify, open_posts(verify=checks.open)),
    )
    operations = [(route.path, route.method, route.operation) for route in routes]
    docs = DocsHandlers(openapi_document(operations, keys=config.ingress.api_keys is not None))
    return (*routes, *_docs_routes(docs))


def _endpoint_routes(endpoints: Sequence[Endpoint], handlers: dict[str, EndpointHandler]) -> Iterable[Route]:
    for endpoint in endpoints:
        for path in endpoint.paths:
            yield Route(
                method="POST",
                path=path,
                handler=handlers[endpoint.name].__call__,
                operation=endpoint_operation(endpoint, path),
            )


def _service_routes(service: ServiceHandlers) -> Iterable[Route]:
    models = [model.name for model in MODELS]

    def get(path: str, handler: Handler, summary: str, **options: Any) -> Route:
        return Route(method="GET", path=path, handler=handler, operation=service_operation(path, summary, **options))

    yield get("/health", service.health, "Says that the service is reachable; wakes no model")
    yield get("/", service.root, "Names the service and its version; in a browser, a page", media_types=ROOT_TYPES)
    yield get("/healthz", service.healthz, "Says that this ingress process is alive")
    yield get(
        "/readyz",
        service.readyz,
        "Says whether a model can be used now, and the state of each model",
        query={"model": models},
    )
    yield get(
        "/metrics",
        service.metrics,
        "Returns the metrics of all processes of the service in Prometheus' format",
        media_types=("text/plain",),
    )
    yield get("/limits", service.limits, "Lists the limits, defaults and prices in force")
    yield get("/loras", service.loras, "Lists the LoRAs that the field `loras` may name, for each model")
    yield Route(method="POST", path="/warm", handler=service.warm, operation=warm_operation(models))


def _verify_routes(verify: VerifyHandlers, posts: frozenset[str]) -> Iterable[Route]:
    operation = verify_operation(needs_key=not is_open("POST", VERIFY, posts))
    yield Route(method="POST", path=VERIFY, handler=verify.verify, operation=operation, open_posts=posts)
    page = service_operation(VERIFY, "A page on which people can verify a file", media_types=("text/html",))
    yield Route(method="GET", path=VERIFY, handler=verify.page, operation={**page, "operationId": "verify-page"})


def job_routes(jobs: JobHandlers) -> Iterable[Route]:
    """Yield the routes of jobs."""
    handlers: tuple[tuple[Literal["GET", "POST", "DELETE"], str, Handler], ...] = (
        ("GET", "/jobs", jobs.list),
        ("GET", "/jobs/{id}", jobs.get),
        ("DELETE", "/jobs/{id}", jobs.delete),
        ("POST", "/jobs/{id}/cancel", jobs.cancel),
        ("GET", "/jobs/{id}/events", jobs.events),
        ("GET", "/jobs/{id}/result", jobs.result),
        ("GET", "/jobs/{id}/preview", jobs.preview),
    )
    operations = job_operations()
    for method, path, handler in handlers:
        yield Route(method=method, path=path, handler=handler, operation=operations[method, path])


def openai_routes(videos: OpenAIVideos) -> Iterable[Route]:
    """Yield the routes that speak OpenAI's dialect."""
    handlers: tuple[tuple[Literal["GET", "POST", "DELETE"], str, Handler], ...] = (
        ("POST", "/v1/videos", videos.create),
        ("GET", "/v1/videos", videos.list),
        ("GET", "/v1/videos/{id}", videos.retrieve),
        ("DELETE", "/v1/videos/{id}", videos.delete),
        ("GET", "/v1/videos/{id}/content", videos.content),
        ("GET", "/v1/models", videos.models),
        ("GET", "/v1/models/{id}", videos.model),
    )
    operations = openai_operations(videos.model_names)
    for method, path, handler in handlers:
        yield Route(method=method, path=path, handler=handler, operation=operations[method, path])


def _docs_routes(docs: DocsHandlers) -> Iterable[Route]:
    yield Route(method="GET", path="/openapi.json", handler=docs.openapi, operation={})
    yield Route(method="GET", path="/docs", handler=docs.docs, operation={})


def make_router(routes: Iterable[Route], lifespan: Lifespan[Any] | None = None) -> Router:
    """Return Starlette's router for the table, with the files of Swagger UI.

    ``lifespan`` is a context in which the application runs.
    """
    by_path: dict[str, dict[str, Handler]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method] = route.handler
    return Router(
        [
            *(StarletteRoute(path, _handler_of(rows), methods=list(rows)) for path, rows in by_path.items()),
            Mount(DOCS_ASSETS, StaticFiles(directory=swagger_ui_path)),
        ],
        lifespan=lifespan,
    )


def _handler_of(rows: dict[str, Handler]) -> Handler:
    """Return one handler for all methods of a path, so that a 405 lists all of them in `Allow`."""
    if len(rows) == 1:
        return next(iter(rows.values()))

    async def dispatch(request: Request) -> Response:
        return await rows["GET" if request.method == "HEAD" else request.method](request)

    return dispatch
