"""The record of a job: its state, and the files that are kept for it."""

from dataclasses import replace
from typing import get_args

import pytest

from serve.jobs.store.record import ENDED, Progress, Stage, State, new_job_id
from tests.unit.serve.jobs.samples import RESULT, new_job


@pytest.mark.parametrize("stage", get_args(Stage))
def test_the_state_of_a_job_follows_from_its_stage(stage: Stage) -> None:
    after = new_job(state="queued").with_progress(Progress(stage=stage, step=3))
    assert after.progress == Progress(stage=stage, step=3)
    assert after.state == (stage if stage in ("queued", "starting") else "running")
    assert not after.ended


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_job_makes_no_progress(state: State) -> None:
    job = new_job(state=state, progress=Progress(stage="decoding", percent=70))
    assert job.ended
    assert job.with_progress(Progress(stage="writing", percent=99)) == job


def test_a_job_keeps_its_request_until_it_ends_and_then_its_stored_result() -> None:
    job = new_job(request_bytes=100, result=RESULT)
    assert {state: replace(job, state=state).kept_bytes for state in ("queued", "starting", "running")} == {
        "queued": 100,
        "starting": 100,
        "running": 100,
    }
    ended = replace(job, state="succeeded")
    assert ended.kept_bytes == RESULT.size
    assert replace(ended, result=replace(RESULT, key=None)).kept_bytes == 0  # only the caller got it
    assert replace(ended, state="failed", result=None).kept_bytes == 0


def test_ids_are_128_random_bits_in_hex() -> None:
    ids = {new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(job_id) for job_id in ids} == {32}
    digits = {job_id[at] for job_id in ids for at in range(32)}
    assert digits == set("0123456789abcdef")
