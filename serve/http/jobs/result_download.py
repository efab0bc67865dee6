"""Sends a stored result: the whole file or a part, or nothing if the caller has it already."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serve.http.jobs.byte_ranges import parse_range
from serve.jobs.files.file_store import FileStore
from serve.jobs.store.record import StoredResult
from serve.problems import Problem


async def download(request: Request, files: FileStore, result: StoredResult) -> Response:
    """Return the response to a GET or HEAD of a result; raise a problem if there is none.

    The conditions of RFC 9110 are checked in its order: If-Match (412), If-None-Match (304), and
    Range (206, 416) unless If-Range names another file.
    """
    size = None if result.key is None else await files.size(result.key)
    if result.key is None or size is None:
        raise Problem(410, "gone", "the result is no longer kept, or was sent only to the caller that waited for it")
    etag = _quoted(result.etag)
    validators = {"ETag": etag, "Cache-Control": "private, no-cache"}
    wanted, known = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is not None and not _names(wanted, etag, weak=False):
        raise Problem(412, "precondition-failed", "the result is not the one that `If-Match` names", headers=validators)
    if known is not None and _names(known, etag, weak=True):
        return Response(status_code=304, headers=validators)
    unchanged = (condition := request.headers.get("if-range")) is None or condition.strip() == etag
    part = parse_range(request.headers.get("range"), size) if unchanged and request.method == "GET" else None
    start, end = (0, size) if part is None else (part.start, part.end)
    headers = {
        **result.headers,
        **validators,
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        **({} if part is None else {"Content-Range": part.content_range}),
    }
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=result.media_type)
    pieces = _until_deleted(files.read(result.key, start, end))
    return StreamingResponse(pieces, status_code=status, headers=headers, media_type=result.media_type)


async def _until_deleted(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a file; raise a 410 problem if it is deleted meanwhile.

    A bucket has no open files that could be read to their end. The answer breaks off then, and the
    log tells this from a client that leaves, for which Starlette would take an OSError.
    """
    async with aclosing(pieces):
        try:
            async for piece in pieces:
                yield piece
        except FileNotFoundError:
            raise Problem(410, "gone", "the result was deleted while it was sent") from None


def _quoted(etag: str) -> str:
    return etag if etag.startswith('"') else f'"{etag}"'


def _names(header: str, etag: str, *, weak: bool) -> bool:
    """Return whether a list of entity tags has ``etag``, or is `*`."""
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") if weak else tag for tag in tags]
