import pytest
from starlette.responses import Response, StreamingResponse

from serve.http.responses import result_response
from serve.media.spool import PIECE_BYTES, Media, Spool
from tests.unit.serve.http.asgi import Exchange, http_scope
from tests.unit.serve.media.make_media import unnamed_files

HEADERS = {"X-Seed": "7", "Content-Disposition": 'inline; filename="wan2.6-the-id.mp4"'}


def spool(content: bytes) -> Spool:
    """Return a file on disk."""
    file = Spool.empty()
    file.file.write(content)
    return file


@pytest.mark.parametrize("data", [b"\x00\x01" * 50, spool(b"\x00\x01" * 50)], ids=["bytes", "small file"])
def test_a_small_result_is_sent_whole(data: Media) -> None:
    response = result_response(data, "video/mp4", HEADERS)
    assert not isinstance(response, StreamingResponse)
    assert response.status_code == 200
    assert bytes(response.body) == b"\x00\x01" * 50
    assert response.headers["content-length"] == "100"
    assert response.headers["content-type"] == "video/mp4"


async def test_a_large_file_is_sent_in_pieces_and_freed() -> None:
    before = unnamed_files()
    content = bytes(range(256)) * (PIECE_BYTES // 256) * 2 + b"more"
    response = result_response(spool(content), "video/mp4", HEADERS)
    assert unnamed_files() == before + 1
    exchange = Exchange()
    await response(http_scope(), exchange.receive, exchange.send)
    assert exchange.headers["content-length"] == str(len(content))
    assert exchange.headers["content-type"] == "video/mp4"
    assert exchange.body == content
    sizes = [len(message["body"]) for message in exchange.sent[1:] if message["body"]]
    assert sizes == [PIECE_BYTES, PIECE_BYTES, 4]
    del response
    assert unnamed_files() == before


def test_the_headers_of_the_result_are_sent() -> None:
    response: Response = result_response(b"data", "video/mp4", HEADERS)
    assert response.headers["vary"] == "Accept"
    assert response.headers["x-seed"] == "7"
    assert response.headers["content-disposition"] == 'inline; filename="wan2.6-the-id.mp4"'
