"""An image's header says what it will cost, and large references shrink as they are decoded."""

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.claims import claim_of, decode_reduced, open_within
from serve.media.errors import MediaError, MediaTooLarge
from tests.pictures import decode_image
from tests.unit.serve.media.make_picture import encoded, with_scans


def test_a_claim_grows_with_the_pixels_and_a_reduced_image_keeps_less() -> None:
    data = encoded("PNG", 400, 200)
    whole = claim_of(open_within(data, 10**6, 100), None)
    assert whole.pixels == 400 * 200
    assert whole.result_bytes >= 3 * 400 * 200
    assert whole.working_bytes >= 20 * 400 * 200
    reduced = claim_of(open_within(data, 10**6, 100), 100)
    assert reduced.working_bytes == whole.working_bytes
    assert 3 * 100 * 50 <= reduced.result_bytes < whole.result_bytes / 8


def test_what_is_over_a_limit_or_no_image_is_refused_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    small, many_scans = encoded("PNG", 40, 30), with_scans(101)
    monkeypatch.delattr("PIL.ImageFile.ImageFile.load")
    with pytest.raises(MediaTooLarge, match="40 x 30 pixels; at most 1199"):
        claim_of(open_within(small, 1199, 100), None)
    with pytest.raises(MediaTooLarge, match="more than 100 scans"):
        claim_of(open_within(many_scans, 10**6, 100), None)
    with pytest.raises(MediaError, match="not an image"):
        claim_of(open_within(b"text", 10**6, 100), None)


@pytest.mark.parametrize("side", [99, 100])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_an_image_up_to_the_side_keeps_its_bytes(kind: str, side: int) -> None:
    data = encoded(kind, side, 60)
    np.testing.assert_array_equal(decode_reduced(open_within(data, 10**6, 100), 100), decode_image(data, 10**6))
    np.testing.assert_array_equal(decode_reduced(open_within(data, 10**6, 100), None), decode_image(data, 10**6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("JPEG", "L", {"quality": 95}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"quality": 95}),
        ("GIF", "P", {}),
    ],
)
def test_a_larger_image_is_scaled_down_and_shows_the_same(kind: str, mode: str, options: dict[str, object]) -> None:
    data = encoded(kind, 900, 700, mode, **options)
    reduced = decode_reduced(open_within(data, 10**6, 100), 100)
    assert reduced.shape == (78, 100, 3)
    expected = PIL.Image.fromarray(decode_image(data, 10**6)).resize((100, 78), PIL.Image.Resampling.LANCZOS)
    assert np.abs(reduced.astype(int) - np.asarray(expected)).mean() < 4


def test_a_jpeg_is_decoded_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    load = PIL.ImageFile.ImageFile.load

    def spy(image: PIL.ImageFile.ImageFile) -> object:
        result = load(image)
        seen.append(image.size)
        return result

    data = encoded("JPEG", 900, 700)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", spy)
    decode_reduced(open_within(data, 10**6, 100), 100)
    assert seen[0] == (113, 88)


def test_the_orientation_of_a_reduced_image_is_applied() -> None:
    exif = PIL.Image.Exif()
    exif[0x112] = 6
    data = encoded("JPEG", 400, 200, exif=exif)
    assert decode_reduced(open_within(data, 10**6, 100), 100).shape == (100, 50, 3)
