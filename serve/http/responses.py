"""Turns a result into an HTTP response: the bytes and their headers."""

from collections.abc import Iterator

from starlette.responses import Response, StreamingResponse

from serve.http.result_headers import RESULT_HEADERS, Answer
from serve.media.spool import Spool, read_media

PIECE_BYTES = 2**20
"""The size of the pieces in which a large file is sent."""


def result_response(answer: Answer) -> Response:
    """Return a 200 response with the file and its result headers."""
    values = {header.name: header.value(answer) for header in RESULT_HEADERS}
    headers = {name: value for name, value in values.items() if value is not None} | {"Vary": "Accept"}
    data, media_type = answer.result.data, answer.result.media_type
    if isinstance(data, bytes) or data.size <= PIECE_BYTES:
        return Response(read_media(data), headers=headers, media_type=media_type)
    headers["Content-Length"] = str(data.size)
    return StreamingResponse(_pieces(data), headers=headers, media_type=media_type)


def _pieces(spool: Spool) -> Iterator[bytes]:
    with spool.open() as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
