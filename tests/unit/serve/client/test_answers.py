"""An answer is decoded and compared with what its headers say."""

import httpx
import numpy as np
import pytest

from serve.client import Answer, CallFailed, Decoded, check_answer, decode
from serve.media.images import encode_image
from serve.media.samples import clip, stranger
from tests.unit.serve.media.make_media import animation

CLIP = clip(stranger(), 5, 8, (64, 48))
NOISE = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
HEADERS = {"Content-Type": "video/mp4", "X-Frames": "5", "X-Frames-Swapped": "5", "X-Model": "wan2.6"}


def answer(data: bytes = CLIP, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer with the right headers, but for those in ``headers``."""
    return Answer(data, httpx.Headers({**HEADERS, **(headers or {})}), 1.0)


def test_a_right_answer_is_described() -> None:
    assert check_answer("wan2.6", answer()) == Decoded(media_type="video/mp4", width=64, height=48, frames=5)


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"Content-Type": "image/webp"}, "Content-Type is image/webp, but the file is video/mp4"),
        ({"X-Frames": "6"}, "X-Frames is 6, but the file has 5"),
        ({"X-Frames-Swapped": "0"}, "no face was swapped"),
        ({"X-Model": "wan22-i2v"}, "X-Model is wan22-i2v"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_named(headers: dict[str, str], fault: str) -> None:
    with pytest.raises(CallFailed) as failed:
        check_answer("wan2.6", answer(headers=headers))
    assert str(failed.value) == f"wan2.6: {fault}"


def test_all_faults_of_an_answer_are_listed() -> None:
    with pytest.raises(CallFailed, match=r"X-Frames is 6, .*; no face was swapped; X-Model is x$"):
        check_answer("wan2.6", answer(headers={"X-Frames": "6", "X-Frames-Swapped": "0", "X-Model": "x"}))


@pytest.mark.parametrize("data", [b"", b"no media", CLIP[:800], animation("WEBP", NOISE)[:-200]])
def test_a_file_that_cannot_be_decoded_is_a_failed_call(data: bytes) -> None:
    with pytest.raises(CallFailed, match=r"wan2\.6: the answer cannot be decoded"):
        check_answer("wan2.6", answer(data))


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp"])
def test_an_image_is_one_frame(media_type: str) -> None:
    assert decode(encode_image(NOISE[0], media_type)) == Decoded(media_type=media_type, width=64, height=48, frames=1)


def test_an_animation_has_several_frames() -> None:
    for kind in ("WEBP", "GIF"):
        media_type = f"image/{kind.lower()}"
        assert decode(animation(kind, NOISE)) == Decoded(media_type=media_type, width=64, height=48, frames=3)


def test_the_extension_of_a_file_comes_from_its_media_type() -> None:
    assert answer(headers={"Content-Type": "video/mp4; codecs=avc1"}).extension == "mp4"
    assert answer(headers={"Content-Type": "image/gif"}).extension == "gif"
    assert answer(headers={"Content-Type": "application/json"}).extension == "bin"
    assert Answer(b"", httpx.Headers(), 0.0).media_type == ""
