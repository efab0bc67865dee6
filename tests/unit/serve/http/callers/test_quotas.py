import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.callers.quotas import Quotas, queue_full
from serve.http.jobs.store_problems import store_problems
from serve.http.middleware import RequestBoundary
from serve.jobs.store.job_store import KeyReused, StoreUnavailable
from serve.jobs.store.limits import QueueFull
from serve.problems import Problem
from tests.unit.serve.http.asgi import Exchange, http_scope
from tests.unit.serve.jobs.fake_jobs import FakeJobs


def quotas(per_minute: int | None) -> Quotas:
    return Quotas(FakeJobs(), per_minute=per_minute, now=lambda: 1_800_000_017.5)  # type: ignore[arg-type]


async def answer_of(quotas: Quotas, *callers: str, error: Exception | None = None) -> Exchange:
    """Return the answer to the request that the last of ``callers`` sends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with store_problems():
            await quotas.count(scope["path"], Request(scope))
            if error is not None:
                raise error
        await Response("done")(scope, receive, send)

    for caller in callers:
        exchange = Exchange()
        await RequestBoundary(app)(http_scope(caller), exchange.receive, exchange.send)
    return exchange


async def test_every_request_of_a_caller_counts_and_the_answers_say_so() -> None:
    two = quotas(2)
    first = await answer_of(two, "anna")
    assert (first.headers["ratelimit-policy"], first.headers["ratelimit"]) == ('"requests";q=2;w=60', '"requests";r=1;t=43')
    assert (await answer_of(two, "anna")).headers["ratelimit"] == '"requests";r=0;t=43'
    refused = await answer_of(two, "anna")
    assert (refused.status, refused.headers["retry-after"]) == (429, "43")
    assert refused.headers["ratelimit"] == '"requests";r=0;t=43'
    assert (await answer_of(two, "ben")).headers["ratelimit"] == '"requests";r=1;t=43'


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Problem(422, "invalid-field", "wrong"), 422),
        (QueueFull(3, 9.0), 429),
        (ClientDisconnect(), 499),
        (RuntimeError(), 500),
        (StoreUnavailable(), 503),
        (TimeoutError(), 504),  # while a body is read
    ],
    ids=str,
)
async def test_whatever_a_request_ends_with_the_answer_says_what_is_left(error: Exception, status: int) -> None:
    answer = await answer_of(quotas(5), "anna", error=error)
    assert (answer.status, answer.headers["ratelimit"]) == (status, '"requests";r=4;t=43')


async def test_without_a_quota_nothing_is_counted() -> None:
    assert "ratelimit" not in (await answer_of(quotas(None), "anna")).headers


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [(StoreUnavailable("down"), 503, "5"), (QueueFull(256, 7.2), 429, "8"), (KeyReused(), 422, None)],
)
def test_errors_of_the_store_are_problems(error: Exception, status: int, retry_after: str | None) -> None:
    with pytest.raises(Problem) as raised, store_problems():
        raise error
    assert (raised.value.status, raised.value.headers.get("Retry-After")) == (status, retry_after)


def test_a_full_queue_says_how_many_wait() -> None:
    problem = queue_full(256, 0.2)
    assert (problem.status, problem.slug, problem.headers) == (429, "quota", {"Retry-After": "1"})
    assert "256 jobs of yours" in problem.detail
