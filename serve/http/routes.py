"""The routes of ``serve.route_table`` with their handlers, and the router made of them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan
from swagger_ui_bundle import swagger_ui_path

from serve.config import AppConfig
from serve.http.callers.admission import Admission
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
from serve.route_table import DOCS_ASSETS, Method, Row

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """A method and path with its handler and its OpenAPI operation."""

    method: Method
    path: str
    handler: Handler
    operation: dict[str, Any]


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
        *_verify_routes(verify, needs_key=not checks.open),
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


def _route(row: Row, handler: Handler, operation: dict[str, Any]) -> Route:
    return Route(method=row.method, path=row.path, handler=handler, operation=operation)


def _service_routes(service: ServiceHandlers) -> Iterable[Route]:
    models = [model.name for model in MODELS]

    def get(row: Row, handler: Handler, summary: str, **options: Any) -> Route:
        return _route(row, handler, service_operation(row.path, summary, **options))

    yield get(Row.HEALTH, service.health, "Says that the service is reachable; wakes no model")
    yield get(Row.HOME, service.root, "Names the service and its version; in a browser, a page", media_types=ROOT_TYPES)
    yield get(Row.HEALTHZ, service.healthz, "Says that this ingress process is alive")
    yield get(
        Row.READYZ,
        service.readyz,
        "Says whether a model can be used now, and the state of each model",
        query={"model": models},
    )
    yield get(
        Row.METRICS,
        service.metrics,
        "Returns the metrics of all processes of the service in Prometheus' format",
        media_types=("text/plain",),
    )
    yield get(Row.LIMITS, service.limits, "Lists the limits, defaults and prices in force")
    yield get(Row.LORAS, service.loras, "Lists the LoRAs that the field `loras` may name, for each model")
    yield _route(Row.WARM, service.warm, warm_operation(models))


def _verify_routes(verify: VerifyHandlers, *, needs_key: bool) -> Iterable[Route]:
    yield _route(Row.VERIFY, verify.verify, verify_operation(needs_key=needs_key))
    page = service_operation(Row.VERIFY_PAGE.path, "A page on which people can verify a file", media_types=("text/html",))
    yield _route(Row.VERIFY_PAGE, verify.page, {**page, "operationId": "verify-page"})


def job_routes(jobs: JobHandlers) -> Iterable[Route]:
    """Yield the routes of jobs."""
    handlers: dict[Row, Handler] = {
        Row.JOBS: jobs.list,
        Row.JOB: jobs.get,
        Row.DELETE_JOB: jobs.delete,
        Row.CANCEL_JOB: jobs.cancel,
        Row.JOB_EVENTS: jobs.events,
        Row.JOB_RESULT: jobs.result,
        Row.JOB_PREVIEW: jobs.preview,
    }
    operations = job_operations()
    for row, handler in handlers.items():
        yield _route(row, handler, operations[row])


def openai_routes(videos: OpenAIVideos) -> Iterable[Route]:
    """Yield the routes that speak OpenAI's dialect."""
    handlers: dict[Row, Handler] = {
        Row.CREATE_VIDEO: videos.create,
        Row.VIDEOS: videos.list,
        Row.VIDEO: videos.retrieve,
        Row.DELETE_VIDEO: videos.delete,
        Row.VIDEO_CONTENT: videos.content,
        Row.MODELS: videos.models,
        Row.MODEL: videos.model,
    }
    operations = openai_operations(videos.model_names)
    for row, handler in handlers.items():
        yield _route(row, handler, operations[row])


def _docs_routes(docs: DocsHandlers) -> Iterable[Route]:
    yield _route(Row.OPENAPI, docs.openapi, {})
    yield _route(Row.DOCS, docs.docs, {})


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
