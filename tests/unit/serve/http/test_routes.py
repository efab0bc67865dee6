import re

import pytest
from starlette.testclient import TestClient

from serve.http.auth import OPEN_PATHS, OPEN_PREFIXES
from serve.http.examples import payload
from serve.http.routes import DOCS_ASSETS, Route, make_router
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_client, make_config, make_service, routes_over

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
        "/video-faceswap",
        "/wan2.6",
        "/wan2.6-i2v",
        "/wan2.6-i2v-faceswap",
        "/wan22-i2v",
        "/wan22-i2v-faceswap",
        "/warm",
    ]
    assert sorted(gets) == ["/", "/docs", "/health", "/healthz", "/limits", "/openapi.json", "/readyz"]


def test_probes_and_documentation_are_open_and_nothing_else_is() -> None:
    open_paths = {route.path for route in ROUTES if not route.needs_key}
    assert open_paths == {"/", "/health", "/healthz", "/readyz", "/docs", "/openapi.json"} == OPEN_PATHS
    assert (f"{DOCS_ASSETS}/",) == OPEN_PREFIXES


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_served_and_has_no_other_method(served: TestClient, route: Route) -> None:
    name = "batch-video-faceswap" if route.path == "/video-faceswap" else route.path[1:]
    body = payload(name) if route.method == "POST" and route.path != "/warm" else None
    assert served.request(route.method, route.path, json=body).status_code == (202 if route.path == "/warm" else 200)
    other = served.request("POST" if route.method == "GET" else "GET", route.path)
    assert other.status_code == 405
    assert route.method in other.headers["allow"].split(", ")


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
