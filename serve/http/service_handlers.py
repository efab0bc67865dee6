"""Handles the routes about the service itself: health, readiness, limits and documentation."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.config import AppConfig
from serve.http.bodies import REQUEST_TYPES, read_body
from serve.http.callers.admission import Admission
from serve.http.callers.caller import caller_of
from serve.http.endpoints import VIDEOS, Endpoint
from serve.http.lora_list import LoraList
from serve.http.negotiation import best_media_type
from serve.http.pages import docs_page, home_page
from serve.http.version import VERSION
from serve.jobs.runner_handle import detached
from serve.media import IMAGE_TYPES, VIDEO_TYPES
from serve.models import MODELS, find_model
from serve.pipelines.acceleration import PROFILES
from serve.pipelines.handles import Handles
from serve.pipelines.readiness import ModelState, Readiness, StateUnknown
from serve.problems import Problem, invalid, invalid_parameter, unavailable
from serve.telemetry.exposition import MEDIA_TYPE, Exposition, MetricsUnreadable

logger = logging.getLogger("ray.serve")

ROOT_TYPES = ("application/json", "text/html")
"""The media types of `/`, the default first."""


class ServiceHandlers:
    """The handlers, one method for each route."""

    def __init__(
        self,
        *,
        config: AppConfig,
        endpoints: Sequence[Endpoint],
        handles: Handles,
        readiness: Readiness,
        admission: Admission,
    ) -> None:
        # Rendering it takes milliseconds, and it never changes.
        self._limits = JSONResponse(_limits_document(config, endpoints)).body
        self._handles = handles
        self._readiness = readiness
        self._admission = admission
        self._home = home_page(endpoints)
        self._loras = LoraList(config)
        self._exposition = Exposition()
        self._warming: dict[str, asyncio.Task[None]] = {}

    async def root(self, request: Request) -> Response:
        """Name the service and its version: a page in a browser, and JSON for everyone else.

        Load balancers probe this path by default, so no Accept header is refused.
        """
        if best_media_type(request.headers.get("accept"), ROOT_TYPES) == "text/html":
            response = self._home.response()
        else:
            response = JSONResponse({"app": "ryla", "version": VERSION, "docs": "/docs"})
        response.headers["Vary"] = "Accept"
        return response

    async def health(self, _: Request) -> Response:
        """Say that the service is reachable."""
        return JSONResponse({"status": "healthy", "app": "ryla", "version": VERSION})

    async def healthz(self, _: Request) -> Response:
        """Say that this ingress process is alive."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Say whether a model can be used now, and the state of every model, or of one.

        Every request goes through the Runner, so without one nothing is ready.
        """
        wanted = request.query_params.get("model")
        if wanted is not None and find_model(wanted) is None:
            raise invalid_parameter("model", f"unknown model `{wanted[:50]}`; available: {_model_names()}")
        states, runner = await self._states(), await self._runner()
        if not runner.usable:
            raise unavailable(f"no request can run: {_sentence({'the Runner': runner})}", retry_after_s=5)
        if wanted is not None:
            states = {wanted: states[wanted]}
            if states[wanted].state != "ready":
                raise unavailable(_sentence(states), retry_after_s=5)
        elif not any(state.usable for state in states.values()):
            raise unavailable(f"no model is ready: {_sentence(states)}", retry_after_s=5)
        models = {name: asdict(state) for name, state in states.items()}
        return JSONResponse({"ready": True, "runner": {"state": runner.state, "replicas": runner.replicas}, "models": models})

    async def warm(self, request: Request) -> Response:
        """Start the models that are asleep, and answer at once."""
        with self._admission.admit(caller_of(request)):
            return await self._warm(request)

    async def _warm(self, request: Request) -> Response:
        names = (await read_body(request, form=False, optional=True)).get("models")
        if names is not None and not _are_model_names(names):
            raise invalid("models", f"must be a list of model names; available: {_model_names()}")
        states = await self._states()
        wanted = [model.name for model in MODELS if names is None or model.name in names]
        for name in wanted:
            if states[name].state != "ready" and name not in self._warming:
                task = self._warming[name] = detached(self._warm_up(name))
                task.add_done_callback(partial(self._end_warming, name))
        return JSONResponse({"models": {name: asdict(states[name]) for name in wanted}}, 202)

    async def _warm_up(self, model: str) -> None:
        try:
            await self._handles.of(model).warm()
        except Exception as error:  # the caller already has an answer, so only the log can say it
            logger.warning("warming %s failed: %s", model, error)

    def _end_warming(self, name: str, _: "asyncio.Task[None]") -> None:
        del self._warming[name]

    async def _states(self) -> dict[str, ModelState]:
        try:
            return await self._readiness.all()
        except StateUnknown:
            raise _unknown() from None

    async def _runner(self) -> ModelState:
        try:
            return await self._readiness.runner()
        except StateUnknown:
            raise _unknown() from None

    async def loras(self, _: Request) -> Response:
        """List the LoRAs of each video model, with the words that call them."""
        return JSONResponse({"loras": await self._loras.all()})

    async def metrics(self, _: Request) -> Response:
        """Return the service's own metrics, of all processes, for Prometheus."""
        try:
            text = await self._exposition.text()
        except MetricsUnreadable as error:
            logger.warning("metrics cannot be read: %s", error)
            raise unavailable("the agents of Ray, which have the metrics, do not answer", retry_after_s=15) from None
        return Response(text, media_type=MEDIA_TYPE)

    async def limits(self, _: Request) -> Response:
        """Return the limits, defaults, media types and prices in force."""
        return Response(self._limits, media_type="application/json")


def _unknown() -> Problem:
    return unavailable("Serve's controller does not answer, so the state of the models is unknown", retry_after_s=5)


def _sentence(states: Mapping[str, ModelState]) -> str:
    """Return what each model is doing, with the reason of those that failed."""
    return "; ".join(
        f"{name} is {state.state}" + (f" ({state.reason})" if state.reason else "") for name, state in states.items()
    )


def _are_model_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and find_model(name) for name in names)


def _model_names() -> str:
    return ", ".join(model.name for model in MODELS)


def _limits_document(config: AppConfig, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    hardware = {model.name: config.deployment_of(model).hardware for model in MODELS}
    return {
        "limits": config.limits.model_dump(),
        "jobs": config.jobs.published(),
        "provenance": config.provenance.published(demo=config.models == "demo"),
        "media": {"pictures": IMAGE_TYPES, "videos": VIDEO_TYPES},
        "prices": {name: {"hardware": item.label, "usd_per_hour": item.price_usd_per_hour} for name, item in hardware.items()},
        "accelerations": {name: profile.describe() for name, profile in PROFILES.items()},
        "endpoints": {path: _limits_of(endpoint) for endpoint in endpoints for path in endpoint.paths},
    }


def _limits_of(endpoint: Endpoint) -> dict[str, Any]:
    schema = endpoint.schema
    of_video = {"distilled_defaults": schema.distilled, "max_loras": schema.max_loras} if endpoint.group == VIDEOS else {}
    return {
        "defaults": schema.defaults(),
        **of_video,
        "media_types": {"request": REQUEST_TYPES, "response": endpoint.media_types},
        "models": [model.name for model in endpoint.models],
    }


class DocsHandlers:
    """The OpenAPI document and the page that shows it."""

    def __init__(self, document: dict[str, Any]) -> None:
        # Rendering takes milliseconds, and everybody may ask for it.
        self._document = JSONResponse(document).body
        self._page = docs_page()

    async def openapi(self, _: Request) -> Response:
        """Return the OpenAPI document."""
        return Response(self._document, media_type="application/json")

    async def docs(self, _: Request) -> Response:
        """Return the page with Swagger UI."""
        return self._page.response()
