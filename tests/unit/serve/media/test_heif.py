"""AVIF and HEIC pictures are read as JPEG is, and nothing in their metadata stops them."""

import io
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from serve.media.container import is_image
from serve.media.decode.claims import decode_reduced, open_within
from serve.media.decode.opening import open_source
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.heif import is_heif
from serve.media.samples import clip, stranger
from tests.pictures import decode_image
from tests.unit.serve.media.make_exif import FAULTS, ORIENTATION, exif_of
from tests.unit.serve.media.make_media import LIMITS, decode_all
from tests.unit.serve.media.make_profile import profile_of, same_look

KINDS = ("AVIF", "HEIF")


def saved(kind: str, image: PIL.Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or PIL.Image.fromarray(stranger())).save(buffer, kind, quality=90, **options)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_read_as_an_image_and_as_a_video_of_one_frame(kind: str) -> None:
    data = saved(kind)
    assert is_image(data)
    assert np.abs(decode_image(data, 10**6).astype(int) - stranger()).mean() < 4
    (frame,), _ = decode_all(open_source(data, LIMITS))
    np.testing.assert_array_equal(frame, decode_image(data, 10**6))
    reduced = decode_reduced(open_within(data, 10**6, 100), 100)
    assert max(reduced.shape[:2]) == 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_spoilt_exif_does_not_matter_and_the_boxes_decide_how_it_is_turned(kind: str, fault: str) -> None:
    data = bytearray(saved(kind, exif=exif_of([ORIENTATION, (0x010F, 2, 120, b"m" * 119 + b"\0")])[6:]))
    expected = decode_image(bytes(data), 10**6)
    at = data.index(b"II*\0")
    entries = exif_of(FAULTS[fault])[6:]
    data[at : at + min(len(entries), 38)] = entries[:38]
    np.testing.assert_array_equal(decode_image(bytes(data), 10**6), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_profile_and_transparency_are_applied(kind: str) -> None:
    wide = same_look("Display P3")
    data = saved(kind, wide, icc_profile=profile_of("Display P3"))
    assert np.abs(decode_image(data, 10**6).astype(int) - stranger()).mean() < 4
    hidden = PIL.Image.fromarray(stranger())
    hidden.putalpha(0)
    assert decode_image(saved(kind, hidden), 10**6).min() > 250


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_limits_and_damage(kind: str) -> None:
    data = saved(kind)
    with pytest.raises(MediaTooLarge):
        decode_image(data, 1000)
    with pytest.raises(MediaError):
        decode_image(data[: len(data) // 2], 10**6)


def test_a_video_is_not_taken_for_a_picture() -> None:
    assert not is_heif(clip(stranger())[:12])
    assert not is_image(clip(stranger()))


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_of_several_pictures_the_primary_one_is_shown(primary: int) -> None:
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    first, *others = [PIL.Image.new("RGB", (32, 32), colour) for colour in colours]
    data = saved("HEIF", first, save_all=True, append_images=others, primary_index=primary)
    shown = decode_image(data, 10**6)
    assert np.abs(shown[16, 16].astype(int) - colours[primary]).max() < 8
    for source in (open_source(data, LIMITS), open_source(data, LIMITS).at_fps(Fraction(25))):
        (frame,), _ = decode_all(source)
        np.testing.assert_array_equal(frame, shown)
