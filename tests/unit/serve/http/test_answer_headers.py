from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.answer_headers import add_to_answer, send_with_headers
from tests.unit.serve.http.asgi import Exchange, http_scope


async def test_an_answer_has_the_headers_that_were_added_to_its_request_and_to_no_other() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("done", headers={"X-Own": "1", "X-Left": "9"})(scope, receive, send)

    answers = []
    for added in ({"X-Left": "3"}, {}):
        scope, exchange = http_scope("/wan2.6"), Exchange()
        add_to_answer(Request(scope), added)
        await app(scope, exchange.receive, send_with_headers(exchange.send, scope))
        answers.append(exchange.headers)
    assert [headers["x-own"] for headers in answers] == ["1", "1"]
    assert [headers.getlist("x-left") for headers in answers] == [["3"], ["9"]]
