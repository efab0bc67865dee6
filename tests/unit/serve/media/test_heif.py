"""AVIF and HEIC pictures are read as JPEG is, and nothing in their metadata stops them."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from deployments.wire import Image
from serve.media.container import is_image
from serve.media.decode.claims import decode_reduced, open_within
from serve.media.decode.opening import open_source
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.heif import clean_aperture, is_heif
from serve.media.samples import clip, stranger
from tests.pictures import decode_image
from tests.unit.serve.media.make_aperture import with_aperture, with_first_property
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


def test_an_orientation_in_xmp_does_not_matter() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    np.testing.assert_array_equal(decode_image(saved("AVIF", xmp=xmp), 10**6), decode_image(saved("AVIF"), 10**6))


def test_the_colours_of_another_item_do_not_matter() -> None:
    """Such as those of a gain map, whose box may come first."""
    plain = saved("AVIF")
    numbers = struct.pack(">HHHB", 9, 16, 9, 0x80)
    file = with_first_property(plain, b"colr", b"nclx" + numbers, of_primary=False)
    assert b"nclx" + numbers in file
    np.testing.assert_array_equal(decode_image(file, 10**6), decode_image(plain, 10**6))
    own = with_first_property(plain, b"colr", b"nclx" + numbers, of_primary=True)
    assert np.abs(decode_image(own, 10**6).astype(int) - decode_image(plain, 10**6)).mean() > 10


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


def aperture(width: int, height: int, left: int = 0, top: int = 0) -> tuple[int, ...]:
    """Return the numbers of the clean aperture of this place and size in ``stranger``."""
    rows, columns = stranger().shape[:2]
    return width, 1, height, 1, 2 * left + width - columns, 2, 2 * top + height - rows, 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 2])
@pytest.mark.parametrize("size", [(200, 100), (131, 299), (260, 300)], ids=str)
def test_an_avif_is_cropped_as_browsers_do_before_it_is_turned(orientation: int, size: tuple[int, int]) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    whole = saved("AVIF", exif=exif)
    cropped = decode_image(with_aperture(whole, *aperture(*size)), 10**6)
    back: dict[int, Callable[[Image], Image]] = {
        1: lambda x: x,
        3: lambda x: np.rot90(x, 2),
        6: np.rot90,
        8: lambda x: np.rot90(x, -1),
        2: lambda x: x[:, ::-1],
    }
    stored = back[orientation](decode_image(whole, 10**6))
    np.testing.assert_array_equal(back[orientation](cropped), stored[: size[1], : size[0]])


@pytest.mark.parametrize(
    "numbers",
    [
        aperture(200, 100, left=2),
        aperture(200, 100, top=1),
        aperture(300, 100),
        (200, 0, 100, 1, -60, 2, -200, 2),
        (200, -1, 100, 1, -60, 2, -200, 2),
        (401, 2, 100, 1, -119, 4, -200, 2),
        (0, 1, 0, 1, -260, 2, -300, 2),
    ],
    ids=["begins further right", "begins lower", "too wide", "a zero", "a negative denominator", "half a pixel", "nothing"],
)
def test_an_avif_is_shown_whole_where_browsers_ignore_its_aperture(numbers: tuple[int, ...]) -> None:
    whole = saved("AVIF")
    np.testing.assert_array_equal(decode_image(with_aperture(whole, *numbers), 10**6), decode_image(whole, 10**6))


def test_an_animated_avif_and_transparency_are_cropped_too() -> None:
    picture = PIL.Image.fromarray(stranger())
    film = saved("AVIF", save_all=True, append_images=[picture.rotate(180), picture], duration=100)
    whole, times = decode_all(open_source(film, LIMITS))
    cropped, cropped_times = decode_all(open_source(with_aperture(film, *aperture(180, 90)), LIMITS))
    assert cropped_times == times
    for one, other in zip(cropped, whole, strict=True):
        np.testing.assert_array_equal(one, other[:90, :180])
    picture.putalpha(PIL.Image.fromarray(np.tile(np.arange(260) < 40, (300, 1))))
    veiled = with_aperture(saved("AVIF", picture), *aperture(180, 90))
    np.testing.assert_array_equal(decode_image(veiled, 10**6), decode_image(saved("AVIF", picture), 10**6)[:90, :180])


def test_boxes_that_end_anywhere_do_no_harm() -> None:
    data = with_aperture(saved("AVIF"), *aperture(200, 100))
    end = data.index(b"mdat")
    for at in range(40, end):
        clean_aperture(data[:at], 260, 300, is_animated=False)
        clean_aperture(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :], 260, 300, is_animated=False)
        clean_aperture(data[:at] + bytes(4) + data[at + 4 :], 260, 300, is_animated=True)
    assert clean_aperture(data, 260, 300, is_animated=False) == (200, 100)
