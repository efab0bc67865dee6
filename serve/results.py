"""An outcome as an HTTP response: the bytes, and the headers of docs/http.md."""

from collections.abc import Iterator

from starlette.responses import Response, StreamingResponse

from serve.media import EXTENSIONS
from serve.media.spool import Spool, read_media
from serve.meter import Meter
from serve.pipelines import Outcome

PIECE = 2**20
"""Bytes of a large file that are sent at a time."""


def result_response(outcome: Outcome, name: str, meter: Meter, ignored: tuple[str, ...], request_id: str) -> Response:
    """200 with everything that is known about the result."""
    headers = {
        "X-Model": name,
        "X-Frames": str(outcome.frames),
        "X-GPU-Type": meter.gpu_type,
        "X-Execution-Time-Sec": f"{meter.execution_s:.3f}",
        "X-Cost-USD": f"{meter.cost_usd:.6f}",
        "Server-Timing": meter.server_timing(),
        "Content-Disposition": f'inline; filename="{name}-{request_id}.{EXTENSIONS[outcome.media_type]}"',
        "Vary": "Accept",
    }
    if outcome.fps is not None:
        headers["X-FPS"] = f"{float(outcome.fps):.6g}"
    if outcome.seed is not None:
        headers["X-Seed"] = str(outcome.seed)
    if outcome.swap is not None:
        headers["X-Frame-Count"] = str(outcome.swap.frames)
        headers["X-Frames-Swapped"] = str(outcome.swap.swapped)
        headers["X-Faces-Found"] = str(outcome.swap.most_faces)
        headers["X-Face-Engine"] = outcome.swap.engine
        headers["X-Face-Restorer"] = outcome.swap.restorer
    if ignored:
        headers["X-Ignored-Fields"] = ", ".join(_printable(name) for name in ignored[:50])
    if meter.acceleration:
        headers["X-Acceleration"] = meter.acceleration
    if outcome.attempts > 1:
        headers["X-Attempts"] = str(outcome.attempts)
    if isinstance(outcome.data, bytes) or outcome.data.size <= PIECE:
        return Response(read_media(outcome.data), 200, headers, outcome.media_type)
    headers["Content-Length"] = str(outcome.data.size)
    return StreamingResponse(_pieces(outcome.data), 200, headers, outcome.media_type)


def _pieces(spool: Spool) -> Iterator[bytes]:
    with spool.open() as file:
        while piece := file.read(PIECE):
            yield piece


def _printable(name: str) -> str:
    """A field's name, which the caller chose, as it may stand in a header."""
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in name[:100])
