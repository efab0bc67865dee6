import io
import struct

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.claims import decode_reduced
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import cover, encode_image, open_image, to_rgba, turn_of
from serve.media.samples import jpeg, stranger
from tests.pictures import decode_image


def png(image: PIL.Image.Image, exif: PIL.Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(("media_type", "error"), [("image/jpeg", 6), ("image/png", 0), ("image/webp", 8)])
def test_every_format_keeps_the_pixels(media_type: str, error: float) -> None:
    decoded = decode_image(encode_image(stranger(), media_type), 10**6)
    assert np.abs(decoded.astype(int) - stranger()).mean() <= error


def test_the_exif_orientation_is_applied() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the image must be shown a quarter turn clockwise
    image = stranger()
    np.testing.assert_array_equal(decode_image(png(PIL.Image.fromarray(image), exif), 10**6), np.rot90(image, -1))


def test_transparency_becomes_white() -> None:
    image = np.dstack([stranger(), np.zeros(stranger().shape[:2], np.uint8)])
    assert (decode_image(png(PIL.Image.fromarray(image, "RGBA")), 10**6) == 255).all()


@pytest.mark.parametrize("max_side", [None, 16])
def test_an_animated_png_is_the_first_frame_that_viewers_show(max_side: int | None) -> None:
    colours = [(200, 0, 0), (0, 180, 0), (0, 0, 160)]
    still, *frames = (PIL.Image.new("RGB", (32, 24), colour) for colour in colours)
    for has_still, shown in ((True, colours[1]), (False, colours[0])):
        buffer = io.BytesIO()
        still.save(buffer, "PNG", save_all=True, append_images=frames, default_image=has_still, duration=50)
        pixels = decode_reduced(open_image(buffer.getvalue(), 10**6), max_side)
        assert pixels.shape == ((24, 32, 3) if max_side is None else (12, 16, 3))
        assert (pixels == shown).all()


@pytest.mark.parametrize("transparency", [None, 2])
def test_what_the_first_frame_of_a_gif_does_not_draw_is_white(transparency: int | None) -> None:
    """Pillow shows its colour number 0 there."""
    frame = PIL.Image.new("P", (8, 4), 1)
    frame.putpalette([0, 0, 255, 255, 0, 0, 0, 255, 0])
    frame.paste(2, (0, 0, 2, 4))
    buffer = io.BytesIO()
    options = {} if transparency is None else {"transparency": transparency}
    frame.save(buffer, "GIF", optimize=False, **options)
    data = bytearray(buffer.getvalue())
    struct.pack_into("<HH", data, 6, 20, 10)  # a larger screen
    at = data.index(b",\0\0\0\0\x08\0\x04\0")
    struct.pack_into("<HH", data, at + 1, 5, 3)
    pixels = decode_image(bytes(data), 10**6)
    expected = np.full((10, 20, 3), 255, np.uint8)
    expected[3:7, 5:13] = (255, 0, 0)
    expected[3:7, 5:7] = (0, 255, 0) if transparency is None else 255
    np.testing.assert_array_equal(pixels, expected)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = decode_image(png(PIL.Image.fromarray(ramp)), 10**6)[..., 0].ravel().astype(int)
    assert np.abs(decoded - np.arange(256)).max() <= 1


def test_cover_scales_and_crops_the_centre() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 50:150] = 255
    assert (cover(image, 64, 64) >= 250).mean() > 0.95
    assert cover(image, 64, 32).shape == (32, 64, 3)


def test_an_unsupported_format_is_refused() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(stranger()).save(buffer, "BMP")
    for data in (b"", b"hello there", buffer.getvalue()):
        with pytest.raises(MediaError, match="not an image in a supported format; send JPEG, PNG, WebP, AVIF or HEIC"):
            open_image(data, 10**6)


def test_a_truncated_image_is_refused() -> None:
    with pytest.raises(MediaError, match="damaged or truncated"):
        decode_image(jpeg(stranger())[:-2000], 10**6)


def test_a_damaged_header_is_refused() -> None:
    data = bytearray(png(PIL.Image.fromarray(stranger())))
    data[12:16] = b"IHDX"
    with pytest.raises(MediaError):
        decode_image(bytes(data), 10**6)


def test_the_pixel_limit_is_inclusive() -> None:
    data = png(PIL.Image.new("RGB", (20, 10)))
    assert decode_image(data, 200).shape == (10, 20, 3)
    with pytest.raises(MediaTooLarge, match="20 x 10 pixels; at most 199 pixels"):
        decode_image(data, 199)


@pytest.mark.parametrize(("media_type", "side"), [("image/webp", 17_000), ("image/jpeg", 66_000)])
def test_a_size_that_the_format_does_not_support_is_refused(media_type: str, side: int) -> None:
    with pytest.raises(MediaTooLarge, match=f"{side} x 4 pixels.*Accept header"):
        encode_image(np.zeros((4, side, 3), np.uint8), media_type)


def test_transparency_is_kept_where_frames_are_drawn_over_each_other() -> None:
    half = PIL.Image.new("RGBA", (2, 1), (200, 100, 50, 128))
    assert to_rgba(open_image(png(half), 10)).getpixel((0, 0)) == (200, 100, 50, 128)
    assert to_rgba(open_image(png(half.convert("RGB")), 10)).getpixel((0, 0)) == (200, 100, 50, 255)
    palette = PIL.Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    for kind in ("PNG", "GIF"):
        buffer = io.BytesIO()
        palette.save(buffer, kind, transparency=1)
        rgba = to_rgba(open_image(buffer.getvalue(), 10)).getpixel((0, 0))
        assert isinstance(rgba, tuple)
        assert rgba[3] == 0


@pytest.mark.parametrize(("orientation", "turn"), [(1, None), (3, PIL.Image.Transpose.ROTATE_180)])
def test_what_turns_a_picture_upright_is_told(orientation: int, turn: PIL.Image.Transpose | None) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    assert turn_of(open_image(png(PIL.Image.new("RGB", (2, 1)), exif), 10)) == turn
