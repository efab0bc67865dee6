"""Whose turn it is."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.jobs.store.turns import Waiting, queue, served_after, startable


def waiting(*callers: str, running: int = 0) -> list[Waiting]:
    """Return a job for each caller, in order; the first ones run."""
    return [
        Waiting(id=f"{number}", caller=caller, slot="s", number=number, running=number < running)
        for number, caller in enumerate(callers)
    ]


JOBS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=20).map(
    lambda rows: [
        Waiting(id=f"{number}", caller=caller, slot="s", number=number, running=running)
        for number, (caller, running) in enumerate(rows)
    ]
)
SERVED = st.frozensets(st.sampled_from("abcd"))


def test_callers_alternate() -> None:
    assert [job.id for job in queue(waiting("a", "a", "a", "b", "b"))] == ["0", "3", "1", "4", "2"]


def test_who_has_had_a_turn_comes_after_who_has_not() -> None:
    assert [job.id for job in queue(waiting("a", "a", "b"), served={"a"})] == ["2", "0", "1"]


def test_who_has_a_job_running_comes_after_who_has_none() -> None:
    assert [job.id for job in queue(waiting("a", "a", "b", running=1))] == ["2", "1"]


def test_one_place_is_shared_although_nothing_runs_when_it_is_free() -> None:
    jobs, served, order = waiting(*"aaaaaa", "b", "b", "c"), frozenset[str](), ""
    while jobs:
        [job] = startable(jobs, limit=1, max_running=1, served=served)
        served = served_after(served, [job])
        order += job.caller
        jobs.remove(job)
    assert order == "abcabaaaa"


@pytest.mark.slow
@given(JOBS, SERVED)
def test_each_queued_job_has_one_place_behind_the_older_ones_of_its_caller(jobs: list[Waiting], served: frozenset[str]) -> None:
    order = queue(jobs, served=served)
    assert sorted(job.number for job in order) == [job.number for job in jobs if not job.running]
    for caller in "abcd":
        numbers = [job.number for job in order if job.caller == caller]
        assert numbers == sorted(numbers)


@pytest.mark.slow
@given(JOBS, SERVED, st.integers(0, 6), st.integers(0, 4))
def test_no_limit_is_exceeded_and_no_place_is_left_free(
    jobs: list[Waiting], served: frozenset[str], limit: int, max_running: int
) -> None:
    started = startable(jobs, limit=limit, max_running=max_running, served=served)
    before = Counter(job.caller for job in jobs if job.running)
    after = before + Counter(job.caller for job in started)
    assert after.total() <= max(limit, before.total())
    assert all(after[caller] <= max(max_running, before[caller]) for caller in after)
    left = [job for job in jobs if not job.running and job not in started]
    assert after.total() >= limit or all(after[job.caller] >= max_running for job in left)


@given(st.integers(1, 30), st.integers(1, 4))
def test_a_caller_with_many_jobs_delays_another_by_one_job_at_each_place(many: int, places: int) -> None:
    jobs, served = waiting(*["a"] * many), frozenset[str]()
    for job in startable(jobs, limit=places, max_running=places, served=served):
        served = served_after(served, [job])
        jobs.remove(job)  # it ends before the other caller comes
    jobs.append(Waiting(id="b", caller="b", slot="s", number=many, running=False))
    assert startable(jobs, limit=1, max_running=1, served=served)[0].id == "b"
