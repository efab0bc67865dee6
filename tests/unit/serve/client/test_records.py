"""What the client makes of a service's records, and of what is none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serve.client.records import ENDED, JobRecord
from serve.http.jobs.operations import EXAMPLE
from serve.jobs.store import record as stored
from tests.unit.serve.client.job_answers import ID, raw_record


def test_the_record_that_the_service_documents_is_read_whole() -> None:
    record = JobRecord.from_json(EXAMPLE)
    assert (record.id, record.model, record.state, record.seed, record.attempts) == (EXAMPLE["id"], "wan2.6", "running", 7, 1)
    progress = record.progress
    assert (progress.stage, progress.step, progress.steps, progress.percent) == ("denoising", 12, 30, 38.5)
    assert (progress.queue_position, progress.eta_s, progress.detail) == (None, 41.2, "")
    assert record.created_at == datetime(2026, 11, 25, 22, 15, 0, 120_000, tzinfo=UTC)
    assert (record.started_at, record.finished_at) == (record.created_at + timedelta(seconds=3.36), None)
    assert (record.links, record.error, record.raw) == (EXAMPLE["links"], None, EXAMPLE)


def test_a_record_needs_no_more_than_an_id_and_a_state() -> None:
    record = JobRecord.from_json({"id": 5, "state": "queued"})
    assert (record.id, record.model, record.progress.stage, record.progress.percent) == ("5", "", "queued", 0)
    assert (record.created_at, record.links, record.error, record.ended) == (None, {}, None, False)


def test_a_job_has_ended_in_the_states_in_which_the_service_ends_it() -> None:
    assert ENDED == stored.ENDED
    assert [JobRecord.from_json(raw_record(state)).ended for state in ("queued", "running", *sorted(ENDED))] == [
        False,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("state", ["paused", "running"])
def test_what_a_later_version_adds_is_kept(state: str) -> None:
    record = JobRecord.from_json(raw_record(state, stage="dreaming", cost=2.5))
    assert (record.state, record.progress.stage, record.ended, record.raw["cost"]) == (state, "dreaming", False, 2.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": None, "state": []},
        {"state": None},
        {"state": {}},
        {"percent": float("nan")},
        {"percent": float("inf")},
        {"step": float("inf")},
        {"steps": 10**400},
        {"attempts": "many"},
        {"queue_position": "first"},
        {"queue_position": float("nan")},
        {"eta_seconds": "soon"},
        {"eta_seconds": float("inf")},
        {"eta_seconds": [1]},
        {"created_at": "now"},
        {"expires_at": 5},
        {"links": ["/jobs"]},
        {"error": "it broke"},
    ],
    ids=str,
)
def test_what_is_no_record_is_refused_by_an_error_that_is_documented(fields: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        JobRecord.from_json({**raw_record(), **fields})


@pytest.mark.parametrize("raw", [None, 1, "queued", [], [{}]], ids=str)
def test_what_is_no_object_is_no_record(raw: Any) -> None:
    with pytest.raises(TypeError, match="a record is an object"):
        JobRecord.from_json(raw)


@pytest.mark.parametrize("missing", ["id", "state"])
def test_a_record_without_an_id_or_a_state_is_none(missing: str) -> None:
    raw = raw_record()
    assert raw.pop(missing) in (ID, "running")
    with pytest.raises(KeyError, match=missing):
        JobRecord.from_json(raw)
