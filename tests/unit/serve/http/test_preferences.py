import pytest
from starlette.datastructures import Headers

from serve.http.negotiation import MAX_URL_CHARS, Preferences, read_preferences
from serve.problems import Problem


def read(*headers: tuple[str, str]) -> Preferences:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return read_preferences(Headers(raw=raw), max_wait_s=100)


def test_a_plain_request_waits_and_ends_with_its_connection() -> None:
    plain = read()
    assert plain == Preferences()
    assert (plain.durable, plain.detached, plain.patience_s, plain.applied) == (False, False, None, "")


@pytest.mark.parametrize(
    ("prefer", "patience_s", "applied"),
    [
        ("respond-async", 0, "respond-async"),
        ("wait=30", 30, "wait=30"),
        ("wait=0", 0, "wait=0"),
        ("wait=5000", 100, "wait=100"),
        ('Respond-Async, wait="10"', 10, "respond-async, wait=10"),
    ],
)
def test_prefer_detaches_a_request_from_its_connection(prefer: str, patience_s: float, applied: str) -> None:
    preferences = read(("prefer", prefer))
    assert (preferences.durable, preferences.detached) == (True, True)
    assert (preferences.patience_s, preferences.applied) == (patience_s, applied)


def test_several_prefer_headers_are_one() -> None:
    preferences = read(("prefer", "handling=strict"), ("prefer", "respond-async"))
    assert (preferences.strict, preferences.respond_async) == (True, True)


@pytest.mark.parametrize("name", ["idempotency-key", "webhook-url"])
def test_a_key_or_a_webhook_makes_a_request_durable_and_still_waits(name: str) -> None:
    preferences = read((name, "https://hooks.test/done"))
    assert (preferences.durable, preferences.detached, preferences.patience_s) == (True, False, None)


@pytest.mark.parametrize("key", ["a", "x" * 255, '"quoted"', "8e03978e-40d5-43dd-bc93-6894a57f9324"])
def test_an_idempotency_key_is_taken_as_it_is(key: str) -> None:
    assert read(("idempotency-key", key)).idempotency_key == key


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "ä", "tab\tbed", "\x7f"])
def test_another_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(Problem, match="1 to 255 visible ASCII") as refused:
        read(("idempotency-key", key))
    assert (refused.value.status, refused.value.errors[0].field) == (422, "Idempotency-Key")
    assert refused.value.errors[0].source == "header"


def test_two_idempotency_keys_are_refused() -> None:
    with pytest.raises(Problem, match="send one key"):
        read(("idempotency-key", "a"), ("idempotency-key", "b"))


@pytest.mark.parametrize("wait", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=²", "wait=9999999999"])
def test_a_wait_that_is_no_number_is_refused(wait: str) -> None:
    with pytest.raises(Problem, match="whole number of seconds"):
        read(("prefer", wait))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.test/done",
        "ftp://hooks.test",
        "https://",
        "https://a b",
        "https://a:b",
        "https://ä.test",
        "https://[",
        "https://a/" + "x" * MAX_URL_CHARS,
    ],
)
def test_a_webhook_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(Problem, match="http or https URL") as refused:
        read(("webhook-url", url))
    assert refused.value.errors[0].field == "Webhook-Url"
