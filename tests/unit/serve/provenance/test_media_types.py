"""The media type of a file is what its first bytes are, whatever it is called."""

import io

import numpy as np
import PIL.Image
import pytest

from serve.media.spool import Media
from serve.provenance.media_types import media_type_of
from tests.unit.serve.media.make_media import webm
from tests.unit.serve.provenance.results import FRAMES, KINDS, on_disk


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_is_of_the_type_that_it_is_sent_as(made: dict[str, tuple[str, Media]], kind: str) -> None:
    media_type, data = made[kind]
    assert media_type_of(data) == media_type
    assert media_type_of(on_disk(data)) == media_type


def test_a_real_webm_and_a_real_avif_are_known() -> None:
    assert media_type_of(webm(FRAMES)) == "video/webm"
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(FRAMES[0])).save(buffer, "AVIF")
    assert media_type_of(buffer.getvalue()) == "image/avif"


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"\0\0\0\x20ftypM4V ", "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x20ftypheic", "image/heic"),
        (b"\0\0\0\x20ftypmif1", "image/heic"),
        (b"\0\0\0\x20ftypavis", "image/avif"),
        (b"\0\0\0\x08moov", "video/quicktime"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime"),
        (b"GIF87a", "image/gif"),
        (b"\xff\xd8", "image/jpeg"),
    ],
)
def test_a_type_is_told_by_the_brand_or_the_first_box(head: bytes, media_type: str) -> None:
    assert media_type_of(head) == media_type
    assert media_type_of(head + bytes(40)) == media_type


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x89PNG\r\n\x1a", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WEB", b"%PDF-1.7", b"<html>"]
)
def test_any_other_bytes_are_of_no_kind_that_is_known(data: bytes) -> None:
    assert media_type_of(data) == "application/octet-stream"
