"""The places of those who wait for news of jobs."""

import pytest

from serve.http.jobs.listeners import Listeners
from serve.problems import Problem


def test_there_is_a_limit_for_all_listeners_together() -> None:
    listeners = Listeners(limit=2, limit_of_one=2)
    first = listeners.admit("anna")
    listeners.admit("ben")
    with pytest.raises(Exception, match="too many connections wait"):
        listeners.admit("cleo")
    first()
    first()  # giving a place back twice frees one place
    assert listeners.count == 1
    listeners.admit("cleo")


def test_one_caller_has_so_many_places_and_leaves_the_others_to_others() -> None:
    listeners = Listeners(limit=10, limit_of_one=2)
    for _ in range(2):
        listeners.admit("anna")
    with pytest.raises(Problem, match=r"2 connections of yours wait for jobs.*read the job's record instead") as refused:
        listeners.admit("anna")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "10")
    assert listeners.count == 2, "who is refused takes no place"
    listeners.admit("ben")
    assert listeners.count == 3


def test_a_place_belongs_to_who_took_it() -> None:
    listeners = Listeners(limit=3, limit_of_one=2)
    first, second = listeners.admit("anna"), listeners.admit("anna")
    listeners.admit("ben")
    for release in (first, first, second):
        release()
    assert listeners.count == 1
    for _ in range(2):
        listeners.admit("anna")
    with pytest.raises(Problem, match="too many connections wait"):
        listeners.admit("ben")


def test_nothing_is_kept_of_callers_who_have_left() -> None:
    listeners = Listeners(limit=1, limit_of_one=1)
    release = listeners.admit("anna")
    for number in range(100):
        with pytest.raises(Problem):
            listeners.admit(f"caller {number}")
    release()
    for number in range(100):
        listeners.admit(f"caller {number}")()
    assert (listeners.count, len(listeners._held)) == (0, 0)
