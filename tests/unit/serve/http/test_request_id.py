import pytest
from starlette.testclient import TestClient

from serve.http.request_id import choose_request_id, send_with_request_id
from tests.unit.serve.http.asgi import Exchange


@pytest.mark.parametrize("sent", ["a-1_b.C", "x" * 128, "7"])
def test_a_valid_id_is_kept(sent: str) -> None:
    assert choose_request_id(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "no spaces, please", "x" * 129, "caf\u00e9", "a\n", "<b>"])
def test_any_other_id_is_replaced_by_a_new_one(sent: str | None) -> None:
    one, other = choose_request_id(sent), choose_request_id(sent)
    assert len(one) == len(other) == 32
    assert one != other
    assert choose_request_id(one) == one


async def test_an_answer_has_exactly_one_id() -> None:
    exchange = Exchange()
    send = send_with_request_id(exchange.send, "the-id")
    headers = [(b"x-request-id", b"one"), (b"x-request-id", b"two"), (b"x-seed", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data"})
    assert exchange.headers.getlist("x-request-id") == ["the-id"]
    assert exchange.headers["x-seed"] == "7"
    assert exchange.body == b"data"


def test_the_whole_service_answers_with_one_id(client: TestClient) -> None:
    good = client.get("/health", headers={"x-request-id": "a-1_b.C"})
    assert good.headers.get_list("x-request-id") == ["a-1_b.C"]
    bad = client.get("/health", headers={"x-request-id": "no spaces, please"})
    (chosen,) = bad.headers.get_list("x-request-id")
    assert len(chosen) == 32
