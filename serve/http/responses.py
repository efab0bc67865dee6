"""Turns a result into an HTTP response: the bytes and their headers."""

from collections.abc import Iterator, Mapping

from starlette.responses import Response, StreamingResponse

from serve.media.spool import Media, Spool, read_media

PIECE_BYTES = 2**20
"""The size of the pieces in which a large file is sent."""


def result_response(data: Media, media_type: str, headers: Mapping[str, str]) -> Response:
    """Return a 200 response with a file and its result headers."""
    headers = {**headers, "Vary": "Accept"}
    if isinstance(data, bytes) or data.size <= PIECE_BYTES:
        return Response(read_media(data), headers=headers, media_type=media_type)
    headers["Content-Length"] = str(data.size)
    return StreamingResponse(_pieces(data), headers=headers, media_type=media_type)


def _pieces(spool: Spool) -> Iterator[bytes]:
    with spool.open() as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
