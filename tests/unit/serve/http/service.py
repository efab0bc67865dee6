"""The whole ingress over a fake graph, as the tests of ``serve.http`` call it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

from starlette.testclient import TestClient
from starlette.types import ASGIApp

from deployments.wire import VideoRequest
from serve.config import AppConfig
from serve.http.application import make_app
from serve.http.endpoints import make_endpoints
from serve.http.examples import payload
from serve.http.jobs.record import no_signature
from serve.http.openapi import endpoint_operation
from serve.http.pages import home_page
from serve.http.routes import Route, make_listeners, make_routes
from serve.jobs.desk import Jobs
from serve.telemetry.exposition import MetricsUnreadable
from tests.unit.serve.fake_graph import FakeGraph, FakeVideoModel
from tests.unit.serve.local_jobs import LocalDesk

VIDEO = {"width": 64, "height": 48, "num_frames": 9, "steps": 2, "cfg": 3}
LIMITS = {
    "max_width": 256,
    "max_height": 256,
    "max_pixels": 50_000,
    "max_frames": 33,
    "max_steps": 30,
    "max_source_frames": 600,
    "max_source_pixels": 2_073_600,
    "max_source_seconds": 60,
}
T = TypeVar("T")
FACE: str = payload("wan2.6-i2v")["reference_image"]
"""A portrait as a data URI."""


def make_config(**settings: Any) -> AppConfig:
    """Return settings for small videos; ``settings`` replaces or completes whole sections.

    Results have no watermark unless the settings say so: tests look at the pixels of models.
    """
    sections: dict[str, Any] = {
        "wan26_defaults": VIDEO,
        "wan22_defaults": VIDEO,
        "limits": LIMITS,
        "provenance": {"watermark": {"enabled": False}},
    }
    for name, section in settings.items():
        sections[name] = {**sections.get(name, {}), **section}
    return AppConfig.model_validate(sections)


def kept(make: Callable[..., T]) -> Callable[..., T]:
    """Return ``make`` with a memory: it keeps what it made of equal arguments."""
    made: dict[tuple[object, ...], tuple[tuple[object, ...], T]] = {}

    def key_of(argument: object) -> object:
        if isinstance(argument, AppConfig):
            # The ingress has no part in them, and its file of keys is another in each test.
            return argument.model_dump_json(exclude={"ingress"})
        return argument if isinstance(argument, str) else id(argument)

    def get(*arguments: object) -> T:
        key = tuple(map(key_of, arguments))
        if key not in made:
            # The arguments are kept too, so that no other object takes over the identity of one.
            made[key] = arguments, make(*arguments)
        return made[key][1]

    return get


# Most tests make an application of their own. Nearly all of its cost is in parts that never change.
kept_endpoints = kept(make_endpoints)
KEPT = {
    "serve.http.routes.make_endpoints": kept_endpoints,
    "serve.http.routes.endpoint_operation": kept(endpoint_operation),
    "serve.http.service_handlers.home_page": kept(home_page),
}


class FakeExposition:
    """The metrics of a node without an agent. ``away`` says that no agent answers."""

    away = False

    async def text(self) -> str:
        """Return one metric."""
        if self.away:
            raise MetricsUnreadable("no agent of Ray's nodes answers")
        return METRICS_TEXT


METRICS_TEXT = '# TYPE ray_ryla_jobs gauge\nray_ryla_jobs{state="queued"} 2.0\n'


def make_service(graph: FakeGraph, **settings: Any) -> ASGIApp:
    """Return the application over ``graph`` with settings of ``make_config``."""
    return make_service_of(make_config(**settings), graph)


def make_service_of(config: AppConfig, graph: FakeGraph) -> ASGIApp:
    """Return the application over ``graph`` with the settings ``config``."""
    return make_service_over(config, local_jobs(config, graph), graph)


def make_service_over(config: AppConfig, jobs: Jobs, graph: FakeGraph) -> ASGIApp:
    """Return an application whose jobs are ``jobs``, which several applications may share."""
    with ExitStack() as patches:
        for name, make in KEPT.items():
            patches.enter_context(mock.patch(name, make))
        patches.enter_context(mock.patch("serve.http.service_handlers.Exposition", FakeExposition))
        return make_app(config, jobs, graph.handles(), graph.readiness)


def routes_over(config: AppConfig, graph: FakeGraph) -> tuple[Route, ...]:
    """Return all routes of the application with the settings ``config``."""
    listeners = make_listeners(config.jobs)
    jobs = local_jobs(config, graph)
    return make_routes(config, jobs, graph.handles(), graph.readiness, sign=no_signature, listeners=listeners)


def local_jobs(config: AppConfig, graph: FakeGraph) -> Jobs:
    """Return jobs that run in this process."""
    desk = LocalDesk(config, graph)
    return Jobs(desk, desk.store, desk.files)


def make_client(graph: FakeGraph, **settings: Any) -> TestClient:
    """Return a client of the application over ``graph``."""
    return TestClient(make_service(graph, **settings))


@dataclass
class HeldVideoModel(FakeVideoModel):
    """A video model that holds each request between denoising and decoding until ``gate`` is set.

    ``begun`` is set once it has a request, ``stopped`` is true once a request has ended.
    """

    gate: asyncio.Event | None = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: bool = False

    def let_go(self) -> None:
        """Let held requests go on."""
        assert self.gate is not None
        self.gate.set()

    async def generate(self, request: VideoRequest, stream: object, origin: object = None) -> AsyncGenerator[Any, None]:
        """Yield the events of a video."""
        self.begun.set()
        try:
            async for event in super().generate(request, stream):
                yield event
        finally:
            self.stopped = True
