"""Who may call: keys from a file that changes while the service runs."""

import hashlib
import logging
from pathlib import Path
from typing import cast

import pytest
from starlette.testclient import TestClient

from serve.auth import ApiKeys
from serve.config import AppConfig
from serve.graph import Graph
from serve.ingress import make_app
from serve.readiness import Readiness


def line(name: str, key: str) -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# who may call\n\n" + line("anna", "one") + line("ben", "two").upper().replace("BEN", "ben"))
    return path


@pytest.fixture
def client(keys: Path) -> TestClient:
    readiness = Readiness("ryla")
    graph = cast("Graph", object())  # no request of this file gets that far; a Graph needs a running Ray
    app = make_app(AppConfig.model_validate({"ingress": {"api_keys": keys}}), graph, readiness)
    return TestClient(app)


def test_a_request_needs_a_key_of_the_file(client: TestClient) -> None:
    missing = client.get("/limits")
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"] == 'Bearer realm="ryla"'
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["type"] == "urn:ryla:problem:unauthorized"
    assert "Authorization: Bearer KEY" in missing.json()["detail"]
    wrong = client.get("/limits", headers={"authorization": "Bearer three"})
    assert wrong.status_code == 401
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    basic = client.get("/limits", headers={"authorization": "Basic one"})
    assert basic.status_code == 401
    for key in ("one", "two"):
        assert client.get("/limits", headers={"authorization": f"bearer {key}"}).status_code == 200


def test_a_body_is_not_read_for_a_stranger(client: TestClient) -> None:
    def body() -> object:
        raise AssertionError("it was read")
        yield b""

    assert client.post("/wan2.6", content=body()).status_code == 401  # type: ignore[arg-type]


def test_probes_and_documentation_need_no_key(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/").json()["docs"] == "/docs"
    assert client.get("/limits").status_code == 401
    assert client.get("/docs").status_code == 200
    assert client.get("/docs/assets/swagger-ui.css").status_code == 200
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"key": []}]
    assert client.get("/docs/assets/../../limits").status_code in (401, 404)
    assert client.get("/healthz/").status_code in (401, 404)


def test_keys_change_with_the_file_and_a_broken_file_changes_nothing(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = ApiKeys(keys, max_age_s=0)
    assert known.name_of("one") == "anna"
    keys.write_text(line("carl", "three"))
    assert (known.name_of("one"), known.name_of("three")) == (None, "carl")
    for broken in ("anna one\n", "anna\n", line("a b", "x")):
        keys.write_text(broken)
        with caplog.at_level(logging.ERROR):
            assert known.name_of("three") == "carl"
        assert "were not read again" in caplog.text
        with pytest.raises(ValueError, match="line 1: must be a name and a SHA-256"):
            ApiKeys(keys)
    keys.unlink()
    assert known.name_of("three") == "carl"
    keys.write_text("")
    assert known.name_of("three") is None  # an empty file is a decision: nobody may call
