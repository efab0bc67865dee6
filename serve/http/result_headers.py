"""The table of headers that describe a result, read by responses, CORS and the docs' tests."""

from collections.abc import Callable
from dataclasses import dataclass

from serve.media import EXTENSIONS
from serve.pipelines.meter import Meter
from serve.pipelines.result import Result


@dataclass(frozen=True)
class Answer:
    """A result together with everything that its headers say."""

    result: Result
    endpoint: str
    meter: Meter
    ignored_fields: tuple[str, ...]
    request_id: str


@dataclass(frozen=True)
class ResultHeader:
    """One row: a header, what it says, and its value, which is None where it does not apply."""

    name: str
    description: str
    value: Callable[[Answer], str | None]


def _of_swap(name: str) -> Callable[[Answer], str | None]:
    return lambda answer: None if answer.result.swap is None else str(getattr(answer.result.swap, name))


def _fps(answer: Answer) -> str | None:
    return None if answer.result.fps is None else f"{float(answer.result.fps):.6g}"


def _seed(answer: Answer) -> str | None:
    return None if answer.result.seed is None else str(answer.result.seed)


def _attempts(answer: Answer) -> str | None:
    return str(answer.result.attempts) if answer.result.attempts > 1 else None


def _ignored_fields(answer: Answer) -> str | None:
    return ", ".join(_printable(name) for name in answer.ignored_fields[:50]) or None


def _printable(name: str) -> str:
    """Return a field's name, which the caller chose, as it may stand in a header."""
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in name[:100])


def _content_disposition(answer: Answer) -> str:
    extension = EXTENSIONS[answer.result.media_type]
    return f'inline; filename="{answer.endpoint}-{answer.request_id}.{extension}"'


RESULT_HEADERS = (
    ResultHeader("X-Model", "name of the endpoint", lambda answer: answer.endpoint),
    ResultHeader("X-Frames", "number of frames in the file", lambda answer: str(answer.result.frames)),
    ResultHeader("X-FPS", "frames a second", _fps),
    ResultHeader("X-Seed", "seed of the video", _seed),
    ResultHeader("X-Frame-Count", "number of frames that were examined", _of_swap("frames")),
    ResultHeader("X-Frames-Swapped", "number of frames in which a face was replaced", _of_swap("swapped")),
    ResultHeader("X-Faces-Found", "most faces found in one frame", _of_swap("most_faces")),
    ResultHeader("X-Face-Engine", "engine that swapped the faces", _of_swap("engine")),
    ResultHeader("X-Face-Restorer", "restorer that ran, or `none`", _of_swap("restorer")),
    ResultHeader("X-GPU-Type", "hardware of the video model, else of the face swapper", lambda answer: answer.meter.gpu_type),
    ResultHeader(
        "X-Execution-Time-Sec", "seconds in the deployments, queueing excluded", lambda a: f"{a.meter.execution_s:.3f}"
    ),
    ResultHeader("X-Cost-USD", "price of those seconds", lambda answer: f"{answer.meter.cost_usd:.6f}"),
    ResultHeader("X-Ignored-Fields", "fields of the request that had no effect", _ignored_fields),
    ResultHeader(
        "X-Acceleration", "how the result departs from the exact one", lambda answer: answer.meter.acceleration or None
    ),
    ResultHeader("X-Attempts", "number of attempts, if more than one", _attempts),
    ResultHeader("Server-Timing", "milliseconds of each phase", lambda answer: answer.meter.server_timing()),
    ResultHeader("Content-Disposition", "file name", _content_disposition),
)

EXPOSED_HEADERS = (*(header.name for header in RESULT_HEADERS), "X-Request-Id", "Retry-After")
"""The headers that pages of other origins may read."""
