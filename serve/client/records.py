"""The record of a job, as the service gives it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled"]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job never leaves."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is.

    ``step`` of ``steps`` counts denoise steps, or frames while faces are swapped; ``steps`` is 0
    where nothing is counted. ``queue_position`` is None for a job that is not queued, and
    ``eta_s``, the seconds that are left, while nobody can know them.
    """

    stage: str = "queued"
    step: int = 0
    steps: int = 0
    percent: float = 0.0
    queue_position: int | None = None
    eta_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What is known about a job. ``error`` is the problem (RFC 9457) of a job that has failed.

    ``raw`` is the whole record as the service sent it.
    """

    id: str
    model: str
    state: State
    progress: Progress
    seed: int | None = None
    attempts: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether the job has reached a state that it never leaves."""
        return self.state in ENDED

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the record in a service's answer.

        What a later version of the service adds stays in ``raw``. Raises KeyError, TypeError or
        ValueError for what is not a record.
        """
        if not isinstance(raw, Mapping):
            raise TypeError("a record is an object")
        stage, position, eta_s = raw.get("stage"), raw.get("queue_position"), raw.get("eta_seconds")
        return cls(
            id=str(raw["id"]),
            model=str(raw.get("model", "")),
            state=_state(raw["state"]),
            progress=Progress(
                stage=str(stage or raw["state"]),
                step=int(_number(raw.get("step"))),
                steps=int(_number(raw.get("steps"))),
                percent=_number(raw.get("percent")),
                queue_position=None if position is None else int(_number(position)),
                eta_s=None if eta_s is None else _number(eta_s),
                detail=str(raw.get("detail") or ""),
            ),
            seed=raw.get("seed"),
            attempts=int(_number(raw.get("attempts"))),
            created_at=_time(raw.get("created_at")),
            started_at=_time(raw.get("started_at")),
            finished_at=_time(raw.get("finished_at")),
            expires_at=_time(raw.get("expires_at")),
            links=_object(raw.get("links")) or {},
            error=_object(raw.get("error")),
            raw=raw,
        )


def _state(value: Any) -> State:
    if not isinstance(value, str):
        raise TypeError("the state of a job is not a string")
    return value  # type: ignore[return-value]  # a later version may have another one


def _number(value: Any) -> float:
    try:
        number = float(value or 0)
    except OverflowError:  # of a whole number with hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a number of the record is not finite")
    return number


def _object(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError("a part of the record is not an object")
    return value


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
