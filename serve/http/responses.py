"""Turns a result into an HTTP response: the bytes and their headers."""

from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse

from serve.media.spool import PIECE_BYTES, Media, media_pieces, read_media


def result_response(data: Media, media_type: str, headers: Mapping[str, str]) -> Response:
    """Return a 200 response with a file and its result headers."""
    headers = {**headers, "Vary": "Accept"}
    if isinstance(data, bytes) or data.size <= PIECE_BYTES:
        return Response(read_media(data), headers=headers, media_type=media_type)
    headers["Content-Length"] = str(data.size)
    return StreamingResponse(media_pieces(data), headers=headers, media_type=media_type)
