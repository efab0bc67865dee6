"""Jobs as the stores keep them: complete, small, and readable by the release before and after."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from serve.jobs.store.encoding import decode, decode_events, encode, encode_event
from serve.jobs.store.record import Delivery, Job, Progress
from tests.unit.serve.jobs.samples import NOW, RESULT, new_job

FULL = new_job(
    details={"prompt": "a \ud800 lone surrogate, and ünïcode", "n": [1, None, {"a": 0.5}]},
    ignored=("sampler",),
    adjusted=(("width", 256), ("steps", 30)),
    idempotency_key="k",
    fingerprint="f",
    trace="00-1-2-01",
    request_bytes=7,
    state="succeeded",
    progress=Progress(stage="writing", step=3, steps=4, percent=99.5, eta_s=0.0, detail="d", preview=True, preview_marks="m"),
    attempt=2,
    begun=1,
    owner="runner-1",
    beat=9,
    cancel_requested=True,
    started_at=NOW + 1,
    finished_at=NOW + 2,
    result=RESULT,
    problem={"type": "urn:ryla:problem:replica-lost", "status": 502},
    webhook=Delivery(url="https://hooks.test", id="w", attempts=2, state="failed", next_at=NOW, error="410"),
)


def test_the_full_job_has_no_field_by_default_but_those_that_every_job_is_given() -> None:
    """Otherwise the tests below would not notice a field that is lost."""
    left_out = {field.name for field in fields(Job) if getattr(FULL, field.name) == field.default}
    assert left_out <= {"durable", "seed"}


@pytest.mark.parametrize("job", [FULL, new_job(), new_job(durable=False, seed=5)], ids=["full", "new", "not durable"])
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    assert decode(encode(job)) == job
    assert decode(encode(job).encode()) == job


def test_a_record_is_ascii_without_spaces_and_without_defaults() -> None:
    record = encode(new_job(details={"prompt": "é \ud800"}))
    assert record.isascii()
    assert r'"details":{"prompt":"\u00e9 \ud800"}' in record
    assert not {"state", "progress", "attempt", "owner", "beat", "result", "webhook"} & set(json.loads(record))


def test_the_beat_beside_a_record_counts_and_not_the_one_in_it() -> None:
    assert decode(encode(FULL), beat=12) == replace(FULL, beat=12)
    assert decode(encode(FULL), beat=0).beat == 0
    assert decode(encode(FULL)).beat == 9


def test_what_a_later_release_adds_is_passed_over() -> None:
    record = {**json.loads(encode(FULL)), "colour": "blue"}
    record["progress"]["mood"] = "good"
    assert decode(json.dumps(record)) == FULL


@pytest.mark.parametrize("wrong", [{"state": "done"}, {"progress": {"stage": "resting"}}, {"created_at": None}])
def test_a_record_that_no_release_writes_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        decode(json.dumps({**json.loads(encode(FULL)), **wrong}))


def test_an_event_has_what_changes_and_gets_the_rest_from_the_record() -> None:
    job = new_job(details={"prompt": "a long prompt" * 99}, seed=5)
    steps = [
        replace(job, state="starting", owner="runner-1", beat=1),
        replace(job, state="running", progress=Progress(stage="denoising", step=1, steps=2, percent=40), attempt=1),
        replace(FULL, id=job.id, details=job.details, seed=5),
    ]
    events = [encode_event(step) for step in steps]
    assert all("prompt" not in event and job.id not in event for event in events)
    unchanging: dict[str, Any] = {
        "idempotency_key": None,
        "fingerprint": "",
        "trace": "",
        "request_bytes": 0,
        "ignored": (),
        "adjusted": (),
        "begun": 0,
    }
    seen = decode_events(encode(steps[1]), [events[0], events[1].encode(), events[2]])
    assert seen[:2] == steps[:2]
    assert replace(seen[2], **unchanging) == replace(steps[2], **unchanging)


def test_an_event_of_the_past_does_not_see_what_the_record_says_now() -> None:
    job = new_job()
    first = encode_event(job)
    assert decode_events(encode(replace(job, state="succeeded", result=RESULT, attempt=3)), [first]) == [job]
