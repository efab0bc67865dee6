import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve.http.callers import auth
from serve.http.callers.auth import ApiKeys, RequireKey
from serve.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import EchoApp, Exchange, http_scope, pass_lifespan
from tests.unit.serve.http.callers.key_file import line
from tests.unit.serve.http.service import make_client


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# who may call\n\n" + line("anna", "one") + line("ben", "two").upper().replace("BEN", "ben"))
    return path


@pytest.fixture
def client(graph: FakeGraph, keys: Path) -> TestClient:
    return make_client(graph, ingress={"api_keys": keys})


def test_a_request_needs_a_key_from_the_file(client: TestClient) -> None:
    missing = client.get("/limits")
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"] == 'Bearer realm="ryla"'
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["type"] == "urn:ryla:problem:unauthorized"
    assert "Authorization: Bearer KEY" in missing.json()["detail"]
    wrong = client.get("/limits", headers={"authorization": "Bearer three"})
    assert wrong.status_code == 401
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    for other in ("Basic one", "Bearer", "Bearer ", "one"):
        assert client.get("/limits", headers={"authorization": other}).status_code == 401
    for key in ("one", "two"):
        assert client.get("/limits", headers={"authorization": f"bearer {key}"}).status_code == 200


def test_a_body_without_a_key_is_not_read(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert client.post("/wan2.6", content=body()).status_code == 401


def test_probes_and_documentation_need_no_key(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json()["ready"] is True
    assert client.get("/").json()["docs"] == "/docs"
    assert client.get("/limits").status_code == 401
    assert client.get("/docs").status_code == 200
    assert client.get("/docs/assets/swagger-ui.css").status_code == 200
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"key": []}]
    assert client.get("/docs/assets/../../limits").status_code in (401, 404)
    assert client.get("/healthz/").status_code in (401, 404)


@pytest.mark.parametrize("path", ["/health", "/", "/docs/assets/swagger-ui.css"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_open_paths_are_open_for_reading_only(client: TestClient, method: str, path: str) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert client.head(path).status_code == 200
    assert client.request(method, path, content=body()).status_code == 401
    assert client.request(method, path, headers={"authorization": "Bearer one"}).status_code == 405


async def test_the_callers_name_is_passed_on_to_the_application(keys: Path) -> None:
    app = EchoApp()
    guarded = RequireKey(app, ApiKeys(keys), open_prefixes=("/assets/",))
    exchange = Exchange()
    await guarded(http_scope("/closed", headers={"authorization": "Bearer two"}), exchange.receive, exchange.send)
    assert app.scopes[0]["state"]["caller"] == "ben"
    for path in ("/health", "/assets/a.css"):
        await guarded(http_scope(path, "GET"), Exchange().receive, exchange.send)
    assert [scope["path"] for scope in app.scopes] == ["/closed", "/health", "/assets/a.css"]
    with pytest.raises(Problem, match="send your key"):
        await guarded(http_scope("/health/more"), Exchange().receive, exchange.send)
    await pass_lifespan(guarded)
    assert app.scopes[-1]["type"] == "lifespan"


async def test_open_paths_are_below_the_prefix_of_the_application(keys: Path) -> None:
    app = EchoApp()
    guarded = RequireKey(app, ApiKeys(keys))
    scope = {**http_scope("/photo/health", "GET"), "root_path": "/photo"}
    await guarded(scope, Exchange().receive, Exchange().send)
    assert app.scopes == [scope]


@pytest.fixture
def _reread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keys be read anew for each request."""
    monkeypatch.setattr(auth, "REREAD_S", -1.0)


@pytest.mark.usefixtures("_reread")
def test_keys_change_with_the_file_and_a_broken_file_changes_nothing(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = ApiKeys(keys)
    assert known.name_of("one") == "anna"
    keys.write_text(line("carl", "three"))
    assert (known.name_of("one"), known.name_of("three")) == (None, "carl")
    for broken in ("anna one\n", "anna\n", line("a b", "x")):
        keys.write_text(broken)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert known.name_of("three") == "carl"
        assert "could not be read again" in caplog.text
        with pytest.raises(ValueError, match="line 1: must be a name and a key's SHA-256"):
            ApiKeys(keys)
    keys.unlink()
    assert known.name_of("three") == "carl"
    with pytest.raises(FileNotFoundError):
        ApiKeys(keys)


def test_keys_are_not_read_again_before_their_time(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REREAD_S", 3600.0)
    known = ApiKeys(keys)
    keys.write_text("")
    assert known.name_of("one") == "anna"


def test_a_comment_may_follow_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("  " + line("anna", "one").strip() + "  # until March\n")
    assert ApiKeys(path).name_of("one") == "anna"


@pytest.mark.usefixtures("_reread")
@pytest.mark.parametrize("text", ["", "# nobody yet\n", "\n\n"])
def test_a_file_without_a_key_is_refused_and_the_last_good_keys_stay(tmp_path: Path, text: str) -> None:
    """An empty file would lock everyone out; it is mostly one that is just being written."""
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError, match="contains no key"):
        ApiKeys(path)
    path.write_text(line("anna", "one"))
    keys = ApiKeys(path)
    path.write_text(text)
    assert keys.name_of("one") == "anna"
