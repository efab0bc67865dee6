"""Answers of a service about a job, for scripted servers."""

import json
from typing import Any

from tests.unit.serve.scripted_server import Scripted

ID = "5f0c"
ETAG = '"e1"'
FILM = bytes(range(256)) * 40
"""The result of the job; it is no film."""
DROPPED = Scripted(cut=-1)
"""The connection is closed instead of an answer."""
NOWHERE = "http://127.0.0.1:9"
"""An address at which nothing listens."""


def raw_record(state: str = "running", **fields: Any) -> dict[str, Any]:
    """Return a record as the service sends it."""
    return {
        "id": ID,
        "model": "wan2.6",
        "state": state,
        "stage": "denoising" if state == "running" else state,
        "step": 0,
        "steps": 4,
        "percent": 0.0,
        "queue_position": None,
        "eta_seconds": None,
        "seed": 7,
        "attempts": 1,
        "created_at": "2026-11-25T12:00:00Z",
        "started_at": None,
        "finished_at": None,
        "expires_at": "2026-11-26T12:00:00.5+00:00",
        "links": {"self": f"/jobs/{ID}", "events": f"/jobs/{ID}/events", "result": f"/jobs/{ID}/result"},
        "error": None,
        **fields,
    }


def record(state: str = "running", status: int = 200, **fields: Any) -> Scripted:
    """Return an answer with the record."""
    return Scripted(json.dumps(raw_record(state, **fields)).encode(), status, {"Content-Type": "application/json"})


def event(number: int, name: str = "progress", **fields: Any) -> bytes:
    """Return a server-sent event with the record; the last one has the name of the job's state."""
    data = json.dumps(raw_record("running" if name == "progress" else name, **fields))
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


def events(*parts: bytes, cut: int | None = None) -> Scripted:
    """Return a stream of server-sent events."""
    return Scripted(b"".join(parts), 200, {"Content-Type": "text/event-stream"}, cut)


def film(start: int = 0, *, etag: str = ETAG, cut: int | None = None) -> Scripted:
    """Return the result from byte ``start`` on, as a part of it if that is not the first byte."""
    headers = {"Content-Type": "video/mp4", "ETag": etag, "X-Frames": "5"}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(FILM) - 1}/{len(FILM)}"
    return Scripted(FILM[start:], 206 if start else 200, headers, cut)
