import json
from pathlib import Path
from typing import Any

import pytest

from serve.http.openai.errors import OpenAIErrors, error_of
from serve.http.protocol.bounded_protocol import EXTENSION
from serve.problems import invalid, invalid_header, invalid_parameter
from tests.unit.serve.http.asgi import EchoApp, Exchange, http_scope, pass_lifespan
from tests.unit.serve.http.callers.key_file import line
from tests.unit.serve.http.wrapped_proxy import wrapped_as_serve_does


@pytest.mark.parametrize(("path", "form"), [("/v1/videos", "error"), ("/wan2.6", "problem")])
async def test_what_the_proxy_refuses_has_the_form_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, form: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("anna", "one"))
    monkeypatch.setenv("RYLA_API_KEYS", str(keys))
    exchange, app = Exchange(), EchoApp()
    scope = {**http_scope(path), "extensions": {EXTENSION: {}}}
    await wrapped_as_serve_does(app)(scope, exchange.receive, exchange.send)
    assert (exchange.status, app.scopes) == (401, [])
    assert exchange.headers["www-authenticate"].startswith("Bearer")
    assert "x-request-id" in exchange.headers
    assert int(exchange.headers["content-length"]) == len(exchange.body)
    if form == "problem":
        assert exchange.problem["type"] == "urn:ryla:problem:unauthorized"
    else:
        assert json.loads(exchange.body) == {
            "error": {
                "message": "send your key: `Authorization: Bearer KEY`",
                "type": "authentication_error",
                "code": "unauthorized",
                "param": None,
            }
        }


async def test_answers_pass_unchanged() -> None:
    exchange = Exchange()
    await OpenAIErrors(EchoApp(headers={"content-type": "video/mp4"}))(
        http_scope("/v1/videos"), exchange.receive, exchange.send
    )
    assert (exchange.status, exchange.headers["content-type"], exchange.body) == (200, "video/mp4", b"")
    await pass_lifespan(OpenAIErrors(EchoApp()))


async def test_the_prefix_of_the_service_is_no_part_of_the_path() -> None:
    for path, root, expected in (("/films/v1/videos", "/films", "error"), ("/v1/wan2.6", "/v1", "type")):
        exchange = Exchange()

        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await invalid("size", "is wrong").response("the-id")(scope, receive, send)

        scope = {**http_scope(path), "root_path": root}
        await OpenAIErrors(refuse)(scope, exchange.receive, exchange.send)
        assert expected in json.loads(exchange.body)


@pytest.mark.parametrize(
    ("problem", "param"),
    [
        (invalid("a/b~c", "is wrong"), "a/b~c"),
        (invalid_header("Prefer", "x"), "Prefer"),
        (invalid_parameter("limit", "x"), "limit"),
    ],
)
def test_the_value_that_is_wrong_is_named(problem: Any, param: str) -> None:
    error = error_of(json.loads(bytes(problem.response("the-id").body)))
    assert (error["param"], error["code"], error["type"]) == (param, "invalid_field", "invalid_request_error")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (403, "permission_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_the_type_follows_the_status(status: int, kind: str) -> None:
    assert error_of({"status": status})["type"] == kind
