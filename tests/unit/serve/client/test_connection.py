"""What the two clients connect with, and the plain call that both make."""

import ssl
from typing import Any

import httpx
import pytest

from serve.client.answers import Answer, CallFailed
from serve.client.connection import connection_options, plain_call
from serve.client.flow import Send

URL = "http://service:8000"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("service:8000", URL),
        ("http://service:8000/", URL),
        ("https://films.example/api//", "https://films.example/api"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://bücher.example", "http://bücher.example"),
    ],
)
def test_a_url_needs_neither_a_scheme_nor_its_last_slash(url: str, base: str) -> None:
    options = connection_options(url, timeout_s=7, key=None)
    assert options["base_url"] == base
    assert options["timeout"] == 7
    httpx.Client(**options).close()


def test_a_key_is_sent_as_a_bearer_token_and_none_sends_no_credentials() -> None:
    assert connection_options(URL, timeout_s=1, key="secret")["headers"] == {"Authorization": "Bearer secret"}
    for none in (None, ""):
        assert connection_options(URL, timeout_s=1, key=none)["headers"] == {}


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "a\0b", "“quoted”"])
def test_a_key_that_no_header_can_have_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(CallFailed, match="characters that cannot be sent: use printable ASCII only") as refused:
        connection_options(URL, timeout_s=1, key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["http://service:port", "http://a..b", f"http://{'x' * 64}.example", "http://[::1"])
def test_what_is_no_url_is_refused_with_the_form_of_one(url: str) -> None:
    with pytest.raises(CallFailed, match="is not the URL of a service") as refused:
        connection_options(url, timeout_s=1, key=None)
    assert str(refused.value).startswith(url)
    assert str(refused.value).endswith("it is http://HOST:PORT")


def test_all_clients_check_certificates_by_one_context() -> None:
    first, second = (connection_options(URL, timeout_s=1, key=None)["verify"] for _ in range(2))
    assert first is second
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname


def ask(*, timeout_s: float | None = None) -> tuple[Any, Send]:
    """Begin a plain call; return it with the request that it sends."""
    call = plain_call(URL, "wan2.6", {"prompt": "a cat"}, timeout_s=timeout_s, accept="video/mp4")
    request = next(call)
    assert isinstance(request, Send)
    return call, request


@pytest.mark.parametrize(("timeout_s", "more"), [(None, {}), (0, {}), (9.5, {"timeout": 9.5})])
def test_a_call_posts_its_body_with_the_media_type_that_is_wanted(timeout_s: float | None, more: dict[str, float]) -> None:
    _, request = ask(timeout_s=timeout_s)
    assert (request.method, request.path) == ("POST", "/wan2.6")
    assert request.options == {"json": {"prompt": "a cat"}, "headers": {"Accept": "video/mp4"}, **more}


def test_a_result_ends_the_call() -> None:
    call, _ = ask()
    with pytest.raises(StopIteration) as ended:
        call.send(httpx.Response(200, content=b"film", headers={"Content-Type": "video/mp4", "X-Seed": "7"}))
    answer = ended.value.value
    assert isinstance(answer, Answer)
    assert (answer.data, answer.media_type, answer.headers["x-seed"]) == (b"film", "video/mp4", "7")
    assert answer.seconds > 0


@pytest.mark.parametrize("status", [202, 204, 303, 422, 503])
def test_any_other_answer_is_raised_with_its_status_and_never_sent_again(status: int) -> None:
    call, _ = ask()
    with pytest.raises(CallFailed, match=f"^wan2.6: {status} not this one$") as refused:
        call.send(httpx.Response(status, json={"detail": "not this one"}))
    assert refused.value.status == status
    with pytest.raises(StopIteration):
        next(call)


def test_a_request_without_an_answer_names_the_service_and_is_not_sent_again() -> None:
    call, _ = ask()
    with pytest.raises(CallFailed, match=f"^wan2.6: no answer from {URL} \\(refused\\); is the service running\\?$") as failed:
        call.throw(httpx.ConnectError("refused"))
    assert isinstance(failed.value.__cause__, httpx.ConnectError)
    with pytest.raises(StopIteration):
        next(call)
