import pytest

from serve.http.callers.quotas import Quotas, queue_full
from serve.http.jobs.store_problems import counted, store_problems
from serve.jobs.store.job_store import KeyReused, StoreUnavailable
from serve.jobs.store.limits import QueueFull
from serve.problems import Problem
from tests.unit.serve.jobs.fake_jobs import FakeJobs


def quotas(per_minute: int | None) -> Quotas:
    return Quotas(FakeJobs(), per_minute=per_minute, now=lambda: 1_800_000_017.5)  # type: ignore[arg-type]


async def test_every_request_of_a_caller_counts_and_the_headers_say_so() -> None:
    counted = quotas(2)
    async with counted.counted("anna") as headers:
        assert headers == {"RateLimit-Policy": '"requests";q=2;w=60', "RateLimit": '"requests";r=1;t=43'}
    async with counted.counted("anna") as headers:
        assert headers["RateLimit"] == '"requests";r=0;t=43'
    with pytest.raises(Problem) as refused:
        async with counted.counted("anna"):
            pytest.fail("a refused request must not be answered")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "43")
    assert refused.value.headers["RateLimit"] == '"requests";r=0;t=43'
    async with counted.counted("ben") as headers:
        assert headers["RateLimit"] == '"requests";r=1;t=43'


async def test_a_problem_has_the_headers_too() -> None:
    with pytest.raises(Problem) as raised:
        async with quotas(5).counted("anna"):
            raise Problem(422, "invalid-field", "wrong", headers={"X-Own": "1"})
    assert raised.value.headers["X-Own"] == "1"
    assert raised.value.headers["RateLimit"] == '"requests";r=4;t=43'


async def test_without_a_quota_nothing_is_counted() -> None:
    async with quotas(None).counted("anna") as headers:
        assert headers == {}


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


@pytest.mark.parametrize(
    ("error", "status"), [(QueueFull(3, 9.0), 429), (KeyReused(), 422), (StoreUnavailable(), 503)], ids=lambda value: str(value)
)
async def test_what_the_store_refuses_has_the_headers_too(error: Exception, status: int) -> None:
    with pytest.raises(Problem) as raised:
        async with counted(quotas(5), "anna"):
            raise error
    assert raised.value.status == status
    assert raised.value.headers["RateLimit"] == '"requests";r=4;t=43'
