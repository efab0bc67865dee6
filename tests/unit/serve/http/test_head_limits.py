"""Parts of a head that are read as lists are bounded before anything reads them."""

import pytest
from starlette.testclient import TestClient

from serve.http.head_limits import LISTS, MAX_LIST_BYTES
from serve.http.proxy import ProxyBoundary
from tests.unit.serve.http.asgi import EchoApp, Exchange, http_scope


@pytest.mark.parametrize("name", sorted(LISTS))
@pytest.mark.parametrize("text", ["," * 60_000, ";" * 60_000])
def test_a_list_in_a_header_has_a_limit(client: TestClient, name: bytes, text: str) -> None:
    for path in ("/", "/wan2.6", "/jobs", "/v1/videos"):
        response = client.post(path, content=b"{}", headers={name.decode(): text})
        assert response.status_code == 431, response.text
        assert f"`{name.decode().title()}` has 60000 bytes; send at most {MAX_LIST_BYTES}" in response.text


def test_many_headers_of_one_name_are_one_list(client: TestClient) -> None:
    response = client.get("/", headers=[("prefer", "x" * 100)] * 50)
    assert response.status_code == 431


def test_a_query_has_a_limit(client: TestClient) -> None:
    assert client.get("/jobs", params="a&" * 3_000).status_code == 431
    assert client.get("/jobs", params="a&" * 1_000).status_code == 200


def test_what_is_within_the_limit_is_read(client: TestClient) -> None:
    accept = "text/x-other, " * 200 + "text/html"
    assert client.get("/", headers={"accept": accept}).headers["content-type"].startswith("text/html")


async def test_the_proxy_checks_it_before_anything_else() -> None:
    exchange, app = Exchange(), EchoApp()
    await ProxyBoundary(app)(http_scope(headers={"accept": "," * 5_000}), exchange.receive, exchange.send)
    assert (exchange.status, app.scopes) == (431, [])
