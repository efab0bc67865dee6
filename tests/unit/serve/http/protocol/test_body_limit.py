import pytest

from serve.http.protocol.body_limit import BodyLimit, body_too_large
from serve.problems import Problem
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope, pass_lifespan

LIMIT = 10


async def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read() -> None:
    app, exchange = EchoApp(), Exchange(body_messages(b"x" * (LIMIT + 1)))
    scope = http_scope(headers={"content-length": str(LIMIT + 1)})
    with pytest.raises(Problem) as refused:
        await BodyLimit(app, LIMIT)(scope, exchange.receive, exchange.send)
    assert (refused.value.status, refused.value.slug) == (413, "body-too-large")
    assert exchange.received == 0
    assert app.scopes == []


@pytest.mark.parametrize("headers", [{}, {"content-length": "2"}, {"content-length": "-5"}, {"content-length": "many"}])
async def test_any_other_body_is_refused_as_soon_as_it_exceeds_the_limit(headers: dict[str, str]) -> None:
    app, exchange = EchoApp(), Exchange(body_messages(b"12345", b"67890", b"1", b"more"))
    with pytest.raises(Problem, match="over 10 bytes"):
        await BodyLimit(app, LIMIT)(http_scope(headers=headers), exchange.receive, exchange.send)
    assert exchange.received == 3
    assert exchange.sent == []


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}])
async def test_a_body_of_exactly_the_limit_passes(headers: dict[str, str]) -> None:
    app, exchange = EchoApp(), Exchange(body_messages(b"12345", b"67890"))
    await BodyLimit(app, LIMIT)(http_scope(headers=headers), exchange.receive, exchange.send)
    assert app.bodies == [b"1234567890"]
    assert exchange.body == b"1234567890"


async def test_the_lifespan_passes() -> None:
    app = EchoApp()
    await pass_lifespan(BodyLimit(app, 0))
    assert app.scopes == [{"type": "lifespan"}]


def test_the_problem_says_what_to_do_and_closes_the_connection() -> None:
    problem = body_too_large(12345)
    assert "over 12345 bytes (see /limits)" in problem.detail
    assert "multipart form" in problem.detail
    assert problem.headers == {"Connection": "close"}
