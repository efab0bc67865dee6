"""What a caller is told when there is no room for a job."""

import time

import pytest

from serve.http.jobs.store_problems import store_problems
from serve.jobs.store.limits import ALL_KEPT, KeptFull, NoRoom, ServiceFull, StorageFull
from serve.problems import Problem

GIB = 2**30
UNTIL = 1_790_000_000.5


def kept(kept: int, limit: int) -> str:
    """Return what a caller is told of these sizes in bytes."""
    with pytest.raises(Problem) as raised, store_problems():
        raise KeptFull(kept, limit, None)
    return raised.value.detail.partition(" and")[0]


@pytest.mark.parametrize(
    ("error", "status", "detail", "retry_after"),
    [
        (
            KeptFull(int(10.2 * GIB), 10 * GIB, UNTIL),
            429,
            "your jobs keep 10.2 of 10 GiB: delete some (DELETE /jobs/{id}); the oldest expires at 2026-09-21T14:13:21Z",
            "91",
        ),
        (
            KeptFull(GIB, GIB, None),
            429,
            "your jobs keep 1.0 of 1 GiB and none of them has ended: wait for them, or cancel some (DELETE /jobs/{id})",
            "60",
        ),
        (ServiceFull(900, 12.3), 503, "the queue is full: 900 jobs are waiting; try again later", "13"),
        (
            StorageFull(ALL_KEPT),
            503,
            "the files of all jobs take as much space as they may; try again later, or send a plain POST of up to 1 MiB",
            "60",
        ),
    ],
    ids=["kept", "none has ended", "queue", "storage"],
)
def test_a_refusal_says_what_to_do_and_when(
    monkeypatch: pytest.MonkeyPatch, error: NoRoom, status: int, detail: str, retry_after: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: UNTIL - 90.2)
    with pytest.raises(Problem) as raised, store_problems():
        raise error
    problem = raised.value
    assert (problem.status, problem.detail, problem.headers["Retry-After"]) == (status, detail, retry_after)
    assert problem.slug == {429: "quota", 503: "unavailable"}[status]


def test_sizes_are_in_the_unit_of_the_limit() -> None:
    assert kept(700 * 2**20, 1536 * 2**20) == "your jobs keep 0.7 of 1.5 GiB"
    assert kept(3 * 2**20, 5 * 2**20) == "your jobs keep 3.0 of 5 MiB"
    assert kept(12, 1000) == "your jobs keep 12 of 1000 bytes"
