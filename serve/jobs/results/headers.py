"""The table of headers that describe a result, read by responses, CORS and the docs' tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve.media import EXTENSIONS
from serve.pipelines.meter import Meter
from serve.pipelines.result import Result

IGNORED_FIELDS = "X-Ignored-Fields"
ADJUSTED = "X-Adjusted"
PROVENANCE = "X-Provenance"
MAX_NAMES = 50
"""Number of ignored fields that are named."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A result together with everything that its headers say."""

    result: Result
    endpoint: str
    meter: Meter
    ignored_fields: tuple[str, ...]
    request_id: str


@dataclass(frozen=True)
class ResultHeader:
    """One row: a header and its value, which is None where it does not apply."""

    name: str
    value: Callable[[Answer], str | None]


def _of_swap(name: str) -> Callable[[Answer], str | None]:
    return lambda answer: None if answer.result.swap is None else str(getattr(answer.result.swap, name))


def _fps(answer: Answer) -> str | None:
    return None if answer.result.fps is None else f"{float(answer.result.fps):.6g}"


def _seed(answer: Answer) -> str | None:
    return None if answer.result.seed is None else str(answer.result.seed)


def _attempts(answer: Answer) -> str | None:
    return str(answer.result.attempts) if answer.result.attempts > 1 else None


def _adjusted(answer: Answer) -> str | None:
    return adjusted_as_said(answer.result.adjusted) or None


def _damaged(answer: Answer) -> str | None:
    return str(answer.result.damaged) if answer.result.damaged else None


def _ignored_fields(answer: Answer) -> str | None:
    return ", ".join(printable_names(answer.ignored_fields)) or None


def adjusted_as_said(adjusted: Sequence[tuple[str, int]]) -> str:
    """Return the value of `X-Adjusted` for fields that were lowered to the limits."""
    return "; ".join(f"{_name(name)}={value}" for name, value in adjusted)


def marks_as_said(marks: Sequence[str]) -> str:
    """Return the value of `X-Provenance` for a file with these marks."""
    return ", ".join(marks) or "none"


def printable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of fields, which the caller chose, as a header and a record may have them."""
    return tuple(_name(name) for name in names[:MAX_NAMES])


def _name(name: str) -> str:
    """Return a field's name, which the caller chose, as it may stand in a list in a header."""
    return _printable(name[:100]).replace(",", "?")


def _printable(value: str) -> str:
    """Return a header's value with `?` for each character that a header cannot carry.

    Settings and the names of files reach headers too. A server encodes headers as Latin-1, and one
    that it cannot encode would be a 500 after all the work.
    """
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in value)


def _content_disposition(answer: Answer) -> str:
    extension = EXTENSIONS[answer.result.media_type]
    return f'inline; filename="{answer.endpoint}-{answer.request_id}.{extension}"'


RESULT_HEADERS = (
    ResultHeader("X-Model", lambda answer: answer.endpoint),
    ResultHeader("X-Frames", lambda answer: str(answer.result.frames)),
    ResultHeader("X-FPS", _fps),
    ResultHeader("X-Seed", _seed),
    ResultHeader("X-Frame-Count", _of_swap("frames")),
    ResultHeader("X-Frames-Swapped", _of_swap("swapped")),
    ResultHeader("X-Frames-Damaged", _damaged),
    ResultHeader("X-Faces-Found", _of_swap("most_faces")),
    ResultHeader("X-Faces-Uncertain", _of_swap("uncertain")),
    ResultHeader("X-Face-Engine", _of_swap("engine")),
    ResultHeader("X-Face-Restorer", _of_swap("restorer")),
    ResultHeader("X-GPU-Type", lambda answer: answer.meter.gpu_type),
    ResultHeader("X-Execution-Time-Sec", lambda a: f"{a.meter.execution_s:.3f}"),
    ResultHeader("X-Cost-USD", lambda answer: f"{answer.meter.cost_usd:.6f}"),
    ResultHeader(IGNORED_FIELDS, _ignored_fields),
    ResultHeader("X-Acceleration", lambda answer: answer.meter.acceleration or None),
    ResultHeader("X-Loras", lambda answer: answer.meter.loras or None),
    ResultHeader(ADJUSTED, _adjusted),
    ResultHeader("X-Attempts", _attempts),
    ResultHeader(PROVENANCE, lambda answer: marks_as_said(answer.result.marks)),
    ResultHeader("Server-Timing", lambda answer: answer.meter.server_timing()),
    ResultHeader("Content-Disposition", _content_disposition),
)


def result_headers(answer: Answer) -> dict[str, str]:
    """Return the headers that apply to ``answer``, with values that are printable ASCII."""
    values = {header.name: header.value(answer) for header in RESULT_HEADERS}
    return {name: _printable(value) for name, value in values.items() if value is not None}


JOB_HEADERS = (
    "Accept-Ranges",
    "Content-Range",
    "ETag",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Should-Retry",
)
"""The headers of answers about jobs and quotas."""

EXPOSED_HEADERS = (*(header.name for header in RESULT_HEADERS), "X-Request-Id", *JOB_HEADERS)
"""The headers that pages of other origins may read."""
