"""Jobs as JSON, as the stores keep them.

Values that are the defaults are left out, and unknown names are passed over, so that two releases
can work on one store while one replaces the other.
"""

import json
from typing import Any

from pydantic import TypeAdapter

from serve.jobs.store.record import Job, Lease

_JOB = TypeAdapter(Job)
_CHANGING = frozenset(
    {
        "state", "progress", "attempt", "owner", "beat", "cancel_requested", "started_at", "finished_at", "expires_at", "result",
        "problem", "webhook",
    }
)  # fmt: skip


def encode(job: Job) -> str:
    """Return a job as JSON in ASCII."""
    # Not pydantic's own JSON, which refuses the lone surrogates that a caller's JSON can have.
    return json.dumps(_fields(job), separators=(",", ":"))


def decode(record: str | bytes, *, beat: int | None = None) -> Job:
    """Return the job of a record, with ``beat`` where the store keeps that beside the record."""
    fields = json.loads(record)
    if beat is not None:
        fields["beat"] = beat
    return _JOB.validate_python(fields)


def decode_lease(record: str | bytes) -> Lease:
    """Return what the owner of a record's job must know.

    It does not validate the rest, since this is done for all jobs of a Runner several times a
    second.
    """
    fields = json.loads(record)
    return Lease(state=fields.get("state", Job.state), cancel_requested=fields.get("cancel_requested", Job.cancel_requested))


def encode_event(job: Job) -> str:
    """Return, as JSON, the parts of a job in which its events can differ."""
    return json.dumps({name: value for name, value in _fields(job).items() if name in _CHANGING}, separators=(",", ":"))


def decode_events(record: str | bytes, events: list[str | bytes]) -> list[Job]:
    """Return the jobs of events, which have the rest of their fields from the job's record."""
    same = {name: value for name, value in json.loads(record).items() if name not in _CHANGING}
    return [_JOB.validate_python(same | json.loads(event)) for event in events]


def _fields(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = _JOB.dump_python(job, exclude_defaults=True)
    return fields
