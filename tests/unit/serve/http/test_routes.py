import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http.callers.admission import Admission
from serve.http.examples import payload
from serve.http.reports.route_templates import TEMPLATES
from serve.http.routes import Route, make_router
from serve.problems import unavailable
from serve.route_table import DOCS_ASSETS, ENDPOINTS, Row
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import FACE, make_client, make_config, make_service, routes_over

GRAPH = FakeGraph()
CONFIG = make_config()
ROUTES = routes_over(CONFIG, GRAPH)


@pytest.fixture(scope="module")
def served() -> TestClient:
    return make_client(FakeGraph())


def test_the_table_has_every_route_once() -> None:
    posts = [route.path for route in ROUTES if route.method == "POST"]
    gets = [route.path for route in ROUTES if route.method == "GET"]
    assert sorted(posts) == [
        "/batch-video-faceswap",
        "/image-faceswap",
        "/jobs/{id}/cancel",
        "/v1/videos",
        "/verify",
        "/video-faceswap",
        "/wan2.6",
        "/wan2.6-i2v",
        "/wan2.6-i2v-faceswap",
        "/wan22-i2v",
        "/wan22-i2v-faceswap",
        "/warm",
    ]
    deletes = [route.path for route in ROUTES if route.method == "DELETE"]
    assert sorted(gets) == [
        "/",
        "/docs",
        "/health",
        "/healthz",
        "/jobs",
        "/jobs/{id}",
        "/jobs/{id}/events",
        "/jobs/{id}/preview",
        "/jobs/{id}/result",
        "/limits",
        "/loras",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/v1/models",
        "/v1/models/{id}",
        "/v1/videos",
        "/v1/videos/{id}",
        "/v1/videos/{id}/content",
        "/verify",
    ]
    assert sorted(deletes) == ["/jobs/{id}", "/v1/videos/{id}"]


def test_logs_know_the_template_of_every_route() -> None:
    assert {route.path for route in ROUTES} == set(TEMPLATES)


def test_every_row_of_the_table_has_a_route_and_every_route_a_row() -> None:
    endpoints = [("POST", path) for paths in ENDPOINTS.values() for path in paths]
    assert sorted((route.method, route.path) for route in ROUTES) == sorted(
        [*endpoints, *((row.method, row.path) for row in Row)]
    )


@pytest.mark.parametrize("verify_is_open", [False, True])
def test_exactly_the_routes_that_the_table_opens_need_no_key(tmp_path: Path, verify_is_open: bool) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"anna {'0' * 64}\n")
    client = make_client(FakeGraph(), ingress={"api_keys": keys}, provenance={"verify": {"open": verify_is_open}})
    answered = {
        (route.method, route.path)
        for route in ROUTES
        if client.request(route.method, route.path.replace("{id}", "0" * 32)).status_code != 401
    }
    opened = {(row.method, row.path) for row in Row if row.key == "no key" or (row.key == "verify.open" and verify_is_open)}
    assert answered == opened


def test_every_route_that_makes_work_has_a_place_for_each_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admission, "check", refuse)
    client = make_client(FakeGraph())
    for route in ROUTES:
        if route.method == "POST" and "{id}" not in route.path:
            response = client.post(route.path, json=body_of(route))
            assert (response.status_code, "it is full" in response.text) == (503, True), route.path


def refuse(_: Admission, caller: str) -> None:
    """Refuse every caller, as a full ingress does."""
    assert caller == "testclient"
    raise unavailable("it is full", retry_after_s=1)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_served_and_has_no_other_method(served: TestClient, route: Route) -> None:
    response = served.request(route.method, route.path.replace("{id}", "0" * 32), json=body_of(route))
    if "{id}" in route.path:
        assert response.status_code == 404
        unknown = "unknown model" if "models" in route.path else "no job with this id"
        assert unknown in response.json()["detail"], "the route is known, and only what it names is not"
    else:
        assert response.status_code == (202 if route.path == "/warm" else 200)
    methods = {each.method for each in ROUTES if each.path == route.path}
    other = served.request("PUT", route.path)
    assert other.status_code == 405
    assert methods <= set(other.headers["allow"].split(", "))


def body_of(route: Route) -> Any:
    """Return a body that the route takes."""
    if route.path == "/verify" and route.method == "POST":
        return {"file": FACE}
    if route.path == "/v1/videos" and route.method == "POST":
        return {"prompt": "a cat"}
    if route.method != "POST" or route.path in ("/warm", "/jobs/{id}/cancel"):
        return None
    return payload("batch-video-faceswap" if route.path == "/video-faceswap" else route.path[1:])


def test_the_document_describes_every_route_but_its_own(served: TestClient) -> None:
    summaries = {
        (method.upper(), path): operation["summary"]
        for path, item in served.get("/openapi.json").json()["paths"].items()
        for method, operation in item.items()
    }
    described = {(route.method, route.path): route.operation["summary"] for route in ROUTES if route.operation}
    assert summaries == described
    assert all(summaries.values())
    assert {route.path for route in ROUTES if not route.operation} == {"/docs", "/openapi.json"}


def test_the_files_of_swagger_ui_are_served() -> None:
    client = TestClient(make_router(ROUTES))
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert f"{DOCS_ASSETS[1:]}/{name}" in page.text
        assert len(client.get(f"{DOCS_ASSETS}/{name}").content) > 10_000
    assert 'url: "openapi.json"' in page.text
    assert client.get(f"{DOCS_ASSETS}/../../pyproject.toml").status_code == 404


def test_the_service_works_below_a_route_prefix() -> None:
    client = TestClient(make_service(FakeGraph()), root_path="/films")
    assert client.get("/films/health").json()["status"] == "healthy"
    assert client.post("/films/wan2.6", json={"prompt": "x"}).headers["x-model"] == "wan2.6"
    page = client.get("/films/docs").text
    for link in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert client.get(f"/films/{link}").status_code == 200  # links are relative to the folder of /docs
