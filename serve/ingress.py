"""The ingress: routes, from the endpoint table. Validates, runs a pipeline, answers; everything else is a layer around it."""

import asyncio
import contextvars
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from swagger_ui_bundle import swagger_ui_path

from serve.auth import ApiKeys, RequireKey
from serve.bodies import read_body
from serve.body_limit import BodyLimit
from serve.config import AppConfig, Hardware
from serve.endpoints import Endpoint, make_endpoints
from serve.errors import Problem, busy, invalid, is_lost_replica, problem_of
from serve.graph import Graph
from serve.media import PICTURES, VIDEOS
from serve.meter import Meter
from serve.middleware import Cors, RequestBoundary
from serve.openapi import VERSION, openapi_document
from serve.pipelines import Outcome, Pipelines
from serve.preferences import choose_media_type, preferences, request_timeout
from serve.readiness import MODELS, ModelState, Readiness, StateUnknown
from serve.results import result_response
from serve.schemas import Parsed, VideoBody

logger = logging.getLogger("ray.serve")

ATTEMPTS = 2
"""Times that a request is tried when a replica dies under it."""

Handler = Callable[[Request], Awaitable[Response]]


@serve.deployment(
    name="Ingress",
    max_ongoing_requests=1000,  # the ingress counts by itself, and refuses in its own words
    graceful_shutdown_timeout_s=1800,
    health_check_period_s=10,
    health_check_timeout_s=30,
)
@serve.ingress()
class Ingress:
    """The Ray Serve deployment that HTTP requests reach."""

    def __init__(
        self,
        config: AppConfig,
        wan26: DeploymentHandle[Any],
        wan22_gguf: DeploymentHandle[Any],
        face_swapper: DeploymentHandle[Any],
    ) -> None:
        self._config = config
        self._handles = {"wan26": wan26, "wan22-gguf": wan22_gguf, "face-swapper": face_swapper}

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        readiness = Readiness(serve.get_replica_context().app_name)
        graph = Graph(self._handles, readiness, self._config.ingress.window)
        return make_app(self._config, graph, readiness)


def make_app(config: AppConfig, graph: Graph, readiness: Readiness) -> ASGIApp:
    """The ASGI application over a graph."""
    app: ASGIApp = Routes(config, graph, readiness).router()
    app = BodyLimit(app, config.limits.max_body_bytes)
    if config.ingress.api_keys is not None:
        app = RequireKey(app, ApiKeys(config.ingress.api_keys))
    else:
        logger.warning("no API keys are configured (ingress.api_keys): everyone who reaches this service may use it")
    app = RequestBoundary(app)
    if config.ingress.cors_origins:
        app = Cors(app, config.ingress.cors_origins)  # around all: a page must be able to read problems too
    return app


class Routes:
    """The handlers."""

    def __init__(self, config: AppConfig, graph: Graph, readiness: Readiness) -> None:
        self._config = config
        self._graph = graph
        self._readiness = readiness
        self._pipelines = Pipelines(graph, config.ingress, config.limits)
        self._endpoints = make_endpoints(config)
        self._openapi = openapi_document(self._endpoints, keys=config.ingress.api_keys is not None)
        self._hardware = {
            "wan26": config.wan26.hardware,
            "wan22-gguf": config.wan22_gguf.hardware,
            "face-swapper": config.face_swapper.hardware,
        }
        self._under_way = 0
        self._recent_s: dict[str, float] = {}  # seconds that the last request of a model took: when to come back
        self._waking: dict[str, asyncio.Task[None]] = {}

    def router(self) -> Router:
        """All routes."""
        gets: dict[str, Handler] = {
            "/": self._root,
            "/health": self._health,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/limits": self._limits,
            "/openapi.json": self._document,
            "/docs": self._docs,
        }
        posts: dict[str, Handler] = {path: self._handler(endpoint) for endpoint in self._endpoints for path in endpoint.paths}
        posts["/warm"] = self._warm
        return Router(
            [
                *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
                *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
                Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
            ]
        )

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: Request) -> Response:
            self._require_room()
            self._under_way += 1
            try:
                return await self._post(endpoint, request)
            finally:
                self._under_way -= 1

        return handle

    def _require_room(self) -> None:
        if self._under_way >= self._config.ingress.max_concurrent_requests:
            raise busy("too many requests are under way", 10)

    async def _post(self, endpoint: Endpoint, request: Request) -> Response:
        wishes = preferences(request.headers.getlist("prefer"))
        _refuse_jobs(wishes, request)
        timeout_s = request_timeout(request.headers.get("request-timeout"), self._config.limits.request_timeout_s)
        media_type = choose_media_type(request.headers.get("accept"), endpoint.media_types)
        begun = time.monotonic()
        async with asyncio.timeout(timeout_s):  # a slow upload is part of the request
            given = await read_body(request, form=endpoint.form)
        parsed = await asyncio.to_thread(endpoint.schema.parse, given, strict=wishes.get("handling") == "strict")
        given.clear()  # the base64 need not be held beside the bytes
        meter = Meter({model: self._hardware[model] for model in endpoint.models})
        work = self._run(endpoint, parsed, media_type, meter)
        outcome = await _while_connected(request, work, timeout_s - (time.monotonic() - begun))
        self._recent_s[endpoint.models[0]] = time.monotonic() - begun
        return result_response(outcome, endpoint.name, meter, parsed.ignored, request.state.request_id)

    async def _run(self, endpoint: Endpoint, parsed: Parsed, media_type: str, meter: Meter) -> Outcome:
        """The seam between routes and pipelines. A request whose replica dies is tried once more, with the same seed."""
        body = parsed.body
        seed = secrets.randbelow(2**32)
        if isinstance(body, VideoBody) and body.seed is not None:
            seed = body.seed
        for attempt in range(1, ATTEMPTS + 1):
            meter.clear()
            try:
                outcome = await endpoint.run(self._pipelines, body, seed, media_type, meter, _ignore)
                outcome.attempts = attempt
                return outcome
            except Exception as error:
                if attempt < ATTEMPTS and is_lost_replica(error):
                    logger.warning("%s: a replica was lost (%s); trying again", endpoint.name, type(error).__name__)
                    continue
                problem = problem_of(error, retry_after_s=self._recent_s.get(endpoint.models[0], 10))
                if problem is None:
                    raise
                raise problem.renamed(parsed.sent_as) from error
        raise AssertionError("unreachable")

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "healthy", "app": "ryla", "version": VERSION})

    async def _root(self, _: Request) -> Response:
        """Where many load balancers look whether a backend is well, if nobody tells them."""
        return JSONResponse({"app": "ryla", "version": VERSION, "docs": "/docs"})

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _readyz(self, request: Request) -> Response:
        states = await self._states()
        wanted = request.query_params.get("model")
        self._require_room()
        if wanted is None:
            return JSONResponse({"ready": True, "models": {name: asdict(state) for name, state in states.items()}})
        if wanted not in states:
            raise invalid("model", f"`{wanted[:50]}` is no model; there are {', '.join(MODELS)}")
        state = states[wanted]
        if state.state == "ready":
            return JSONResponse({"ready": True, "models": {wanted: asdict(state)}})
        why = f" ({state.reason})" if state.reason else ""
        raise busy(f"{wanted} is {state.state}{why}", 5)

    async def _warm(self, request: Request) -> Response:
        names = (await read_body(request, form=False, optional=True)).get("models")
        if names is not None and not (isinstance(names, list) and all(isinstance(n, str) and n in MODELS for n in names)):
            raise invalid("models", f"must be a list of names out of {', '.join(MODELS)}")
        states = await self._states()
        wanted = [name for name in MODELS if names is None or name in names]
        for name in wanted:
            if states[name].state != "ready" and name not in self._waking:
                # In a context of its own: what is started here outlives this request.
                task = asyncio.get_running_loop().create_task(self._bring_up(name), context=contextvars.Context())
                self._waking[name] = task
                task.add_done_callback(partial(self._awake, name))
        return JSONResponse({"models": {name: asdict(states[name]) for name in wanted}}, 202)

    def _awake(self, name: str, _: "asyncio.Task[None]") -> None:
        del self._waking[name]

    async def _states(self) -> dict[str, ModelState]:
        try:
            return await self._readiness.all()
        except StateUnknown:
            raise busy("Serve's controller does not answer; the state of the models is not known", 5) from None

    async def _bring_up(self, model: str) -> None:
        try:
            await self._graph.wake(model)
        except Exception as error:  # nobody waits for this: the log is where it is said
            logger.warning("warming %s failed: %s", model, error)

    async def _limits(self, _: Request) -> Response:
        return JSONResponse(
            {
                "limits": self._config.limits.model_dump(),
                "media": {"pictures": PICTURES, "videos": VIDEOS},
                "prices": {model: _price(hardware) for model, hardware in self._hardware.items()},
                "endpoints": {
                    path: {
                        "defaults": _defaults(endpoint),
                        **({"distilled_defaults": endpoint.schema.distilled} if endpoint.schema.distilled else {}),
                        "media_types": {
                            "request": ["application/json", *(["multipart/form-data"] if endpoint.form else [])],
                            "response": endpoint.media_types,
                        },
                        "models": endpoint.models,
                    }
                    for endpoint in self._endpoints
                    for path in endpoint.paths
                },
            }
        )

    async def _document(self, _: Request) -> Response:
        return JSONResponse(self._openapi)

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(_DOCS)


def _refuse_jobs(wishes: dict[str, str], request: Request) -> None:
    """Long requests are not there yet: what a caller relies on is refused, not ignored."""
    wanted = [f"Prefer: {wish}" for wish in ("respond-async", "wait") if wish in wishes]
    wanted += ["Idempotency-Key"] if "idempotency-key" in request.headers else []
    if wanted:
        raise Problem(501, "not-implemented", f"`{wanted[0]}` is not supported yet; send the request without it and wait")


async def _while_connected(request: Request, work: Coroutine[Any, Any, Outcome], timeout_s: float) -> Outcome:
    """The result of ``work``, which is cancelled, and waited for, when the client leaves or the time is over."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if left.done():
            raise ClientDisconnect
        raise Problem(504, "timeout", f"the request outlived its limit of {timeout_s:g} s; ask for fewer frames or steps")
    finally:
        for pending in (task, left):
            pending.cancel()
        await asyncio.wait({task, left})


async def _disconnect(request: Request) -> None:
    """Returns when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ignore(_: object) -> None:
    """Nobody watches the progress of a plain request."""


def _price(hardware: Hardware) -> dict[str, Any]:
    return {"hardware": hardware.label, "usd_per_hour": hardware.price_usd_per_hour}


def _defaults(endpoint: Endpoint) -> dict[str, Any]:
    properties = endpoint.schema.json_schema()["properties"]
    return {name: entry["default"] for name, entry in properties.items() if "default" in entry}


_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>ryla-serve</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui"})</script>
</body>
</html>
"""
