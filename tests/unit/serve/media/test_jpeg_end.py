"""A JPEG without its end is shown if that is all it lacks."""

import io

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.claims import decode_reduced, open_within
from serve.media.errors import MediaError
from serve.media.jpeg_end import lacks_end
from serve.media.samples import stranger
from tests.pictures import decode_image

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 4},
    "optimised": {"optimize": True},
    "grey": {},
}


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    image = PIL.Image.fromarray(stranger())
    (image.convert("L") if kind == "grey" else image).save(buffer, "JPEG", quality=90, **KINDS[kind])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_side", [None, 40])
def test_a_picture_of_which_nothing_else_is_missing_is_whole(kind: str, max_side: int | None) -> None:
    whole = saved(kind)
    expected = decode_reduced(open_within(whole, 10**6, 100), max_side)
    for cut in (1, 2):
        assert lacks_end(whole[:-cut])
        image = open_within(whole[:-cut], 10**6, 100)
        np.testing.assert_array_equal(decode_reduced(image, max_side), expected)
    assert not lacks_end(whole)
    assert not lacks_end(whole + b"trailing bytes")


@pytest.mark.parametrize("kind", ["plain", "with restarts", "optimised", "grey"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("max_side", [None, 40])
def test_a_picture_that_was_cut_off_is_refused(kind: str, share: float, max_side: int | None) -> None:
    whole = saved(kind)
    image = open_within(whole[: int(share * len(whole))], 10**6, 100)
    with pytest.raises(MediaError, match="damaged or truncated"):
        decode_reduced(image, max_side)


def test_a_progressive_picture_that_was_cut_off_is_refused() -> None:
    whole = saved("progressive")
    for share in (0.05, 0.3, 0.6, 0.99):
        with pytest.raises(MediaError, match=r"damaged|not an image"):
            decode_image(whole[: int(share * len(whole))], 10**6)
