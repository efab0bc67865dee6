"""What a change makes of a job, and which changes are refused."""

from dataclasses import replace
from typing import Any

import pytest

from serve.jobs.store import transitions
from serve.jobs.store.record import Delivery, Job, Progress, State
from tests.unit.serve.jobs.samples import NOW, RESULT, new_job

ENDS: tuple[State, ...] = ("succeeded", "failed", "cancelled")
HOOK = Delivery(url="https://example.org", id="w")


def running(**fields: Any) -> Job:
    """Return a job whose second attempt runs."""
    values: dict[str, Any] = {"state": "running", "owner": "one", "attempt": 2, "beat": 5, "started_at": NOW + 1}
    return new_job(**values | fields)


def finished(job: Job, attempt: int = 2, state: State = "succeeded") -> Job | None:
    return transitions.finished(
        job, attempt, state=state, at=NOW + 9, expires_at=NOW + 99, result=RESULT, problem={"status": 500}
    )


@pytest.mark.parametrize(
    ("owner", "known_beat", "given"),
    [("", None, True), ("", 5, True), ("one", None, False), ("one", 4, False), ("one", 6, False), ("one", 5, True)],
)
def test_a_lease_is_given_if_nobody_has_it_or_its_owner_has_shown_no_sign_of_life(
    owner: str, known_beat: int | None, given: bool
) -> None:
    job = running(owner=owner, begun=1, cancel_requested=True, progress=Progress(stage="denoising", percent=40, preview=True))
    taken = transitions.taken(job, "two", known_beat)
    assert (taken is not None) == given
    if taken is not None:
        # It waits anew, with a beat that nobody knows yet; that it is to be cancelled stays known.
        again: dict[str, Any] = {
            "owner": "two",
            "attempt": 3,
            "beat": 6,
            "state": "queued",
            "progress": Progress(),
            "started_at": None,
        }
        assert taken == replace(job, **again)


@pytest.mark.parametrize("state", ENDS)
def test_an_ended_job_changes_no_more(state: State) -> None:
    job = running(state=state, owner="")
    assert transitions.taken(job, "two", 5) is None
    assert transitions.progressed(job, 2, [Progress(stage="decoding")]) is None
    assert finished(job) is None
    assert transitions.cancelled(job, at=NOW + 9, expires_at=NOW + 99) is job


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_only_the_latest_attempt_writes(attempt: int) -> None:
    assert transitions.progressed(running(), attempt, []) is None
    assert finished(running(), attempt) is None
    assert finished(running()) is not None


def test_a_job_whose_turn_has_come_starts_with_what_is_known_of_it() -> None:
    job = new_job(owner="one", attempt=3, begun=1, progress=Progress(detail="wan26 is starting"))
    starting = Progress(stage="starting", detail="wan26 is starting")
    assert transitions.started(job, NOW + 4) == replace(job, state="starting", progress=starting, started_at=NOW + 4, begun=2)


def test_each_step_makes_a_job_and_none_that_has_started_waits_again() -> None:
    steps = [Progress(stage=stage) for stage in ("starting", "denoising", "queued", "writing")]
    after = transitions.progressed(running(state="starting"), 2, steps)
    assert after is not None
    assert [job.progress for job in after] == steps
    assert [job.state for job in after] == ["starting", "running", "starting", "running"]
    assert transitions.progressed(running(), 2, []) == []
    queued = transitions.progressed(running(state="queued"), 2, [Progress(stage="queued", detail="waits")])
    assert queued is not None
    assert queued[0].state == "queued"


@pytest.mark.parametrize("state", ENDS)
def test_the_end_of_a_job_is_recorded_and_nobody_owns_it(state: State) -> None:
    job = running()
    ended: dict[str, Any] = {"state": state, "owner": "", "finished_at": NOW + 9, "expires_at": NOW + 99, "result": RESULT}
    assert finished(job, state=state) == replace(job, **ended, problem={"status": 500})


def test_a_job_is_cancelled_at_once_only_while_it_waits() -> None:
    waiting, started = running(state="queued"), running(state="starting")
    ended: dict[str, Any] = {
        "state": "cancelled",
        "owner": "",
        "cancel_requested": True,
        "finished_at": NOW + 9,
        "expires_at": NOW + 99,
    }
    assert transitions.cancelled(waiting, at=NOW + 9, expires_at=NOW + 99) == replace(waiting, **ended)
    asked = transitions.cancelled(started, at=NOW + 9, expires_at=NOW + 99)
    assert asked == replace(started, cancel_requested=True)
    assert transitions.cancelled(asked, at=NOW + 10, expires_at=NOW + 100) == asked


def test_only_an_ended_job_that_nobody_has_changed_is_replaced() -> None:
    ended = finished(running())
    assert ended is not None
    after = replace(ended, webhook=HOOK)
    assert transitions.replaced(ended, after, ended) == after
    assert transitions.replaced(after, replace(after, seed=1), ended) is None  # somebody was faster
    assert transitions.replaced(ended, replace(after, id="0" * 32), ended) is None
    assert transitions.replaced(ended, replace(after, state="running"), ended) is None
    assert transitions.replaced(running(), after, running()) is None


def test_only_a_job_that_has_just_succeeded_tells_how_long_it_took() -> None:
    job = running()
    ended = finished(job)
    assert ended is not None
    assert transitions.seconds_taken(job, ended) == 8
    assert transitions.seconds_taken(ended, ended) is None  # it is only changed after its end
    assert transitions.seconds_taken(job, replace(ended, state="failed")) is None
    assert transitions.seconds_taken(job, replace(ended, started_at=None)) is None
    assert transitions.seconds_taken(job, replace(ended, started_at=NOW + 20)) == 0  # a clock went back


@pytest.mark.parametrize(
    ("job", "due_at"),
    [
        (running(state="succeeded", webhook=HOOK), 0.0),
        (running(state="failed", webhook=replace(HOOK, next_at=NOW + 60)), NOW + 60),
        (running(webhook=HOOK), None),
        (running(state="succeeded"), None),
        (running(state="succeeded", webhook=replace(HOOK, state="delivered")), None),
        (running(state="succeeded", webhook=replace(HOOK, state="failed")), None),
    ],
    ids=["ended", "again", "runs", "without", "delivered", "failed"],
)
def test_a_webhook_is_due_once_its_job_has_ended_and_until_it_is_delivered_or_given_up(job: Job, due_at: float | None) -> None:
    assert transitions.webhook_due_at(job) == due_at


def test_a_key_stands_for_a_job_that_has_not_failed_until_it_expires() -> None:
    kept = {state: replace(running(state=state), expires_at=NOW + 10) for state in (*ENDS, "queued", "running")}
    assert {state for state, job in kept.items() if transitions.replays(job, NOW + 9)} == {*kept} - {"failed"}
    assert {state for state, job in kept.items() if transitions.replays(job, NOW + 10)} == {"queued", "running"}
