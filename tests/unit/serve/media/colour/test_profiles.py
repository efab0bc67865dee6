"""Pictures in other colour spaces look in sRGB as a viewer shows them."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms

from serve.media.samples import stranger
from tests.pictures import decode_image
from tests.unit.serve.media.make_profile import SPACES, SRGB, profile_of, same_look, tag


def saved(image: PIL.Image.Image, kind: str, profile: bytes) -> bytes:
    buffer = io.BytesIO()
    kinds: dict[str, dict[str, int]] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = kinds.get(kind, {})
    image.save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_keeps_its_look(space: str, kind: str) -> None:
    wide = same_look(space)
    assert np.abs(np.asarray(wide, int) - stranger()).mean() > 3
    decoded = decode_image(saved(wide, kind, profile_of(space)), 10**6)
    assert np.abs(decoded.astype(int) - stranger()).mean() < 1.2


def test_transparency_is_flattened_after_the_conversion() -> None:
    wide = same_look("Adobe RGB")
    wide.putalpha(
        PIL.Image.fromarray(np.where(np.arange(wide.width) < 30, 0, 255).astype(np.uint8)[None].repeat(wide.height, 0))
    )
    decoded = decode_image(saved(wide, "PNG", profile_of("Adobe RGB")), 10**6)
    assert (decoded[:, :30] == 255).all()
    assert np.abs(decoded[:, 30:].astype(int) - stranger()[:, 30:]).mean() < 1.2


def test_a_grey_profile_is_applied() -> None:
    ramp = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(4, 0))
    decoded = decode_image(saved(ramp, "PNG", profile_of("", grey=True)), 10**6)
    linear = (np.arange(256) / 255) ** 2.2
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(decoded[0, :, 1] - expected).max() < 2
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_a_grey_jpeg_may_have_the_profile_of_colours() -> None:
    """As browsers decode it: to three equal channels, which the profile converts."""
    ramp = PIL.Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(8, 0))
    profile = profile_of("Adobe RGB")
    grey, coloured = (decode_image(saved(image, "JPEG", profile), 10**6) for image in (ramp, ramp.convert("RGB")))
    assert np.abs(grey.astype(int) - coloured).max() <= 2
    plain = decode_image(saved(ramp, "PNG", profile), 10**6)
    np.testing.assert_array_equal(plain[..., 0], np.asarray(ramp))


def test_the_profile_of_srgb_changes_nothing() -> None:
    photo = PIL.Image.fromarray(stranger())
    decoded = decode_image(saved(photo, "PNG", ImageCms.ImageCmsProfile(SRGB).tobytes()), 10**6)
    np.testing.assert_array_equal(decoded, stranger())


@pytest.mark.parametrize(
    "spoil", [lambda icc: icc[:200], lambda icc: b"x" * 400, lambda icc: icc[:12] + b"prtrCMYK" + icc[20:]]
)
def test_a_profile_that_cannot_be_used_is_ignored(spoil) -> None:  # type: ignore[no-untyped-def]
    photo = PIL.Image.fromarray(stranger())
    decoded = decode_image(saved(photo, "PNG", spoil(profile_of("Adobe RGB"))), 10**6)
    np.testing.assert_array_equal(decoded, stranger())


def cmyk_profile() -> bytes:
    """Return the profile of a printer whose black ink does not show, by a table to Lab."""
    steps = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    colours = b"".join(bytes([round(255 * (1 - 0.3 * c - 0.59 * m - 0.11 * y)), 128, 128]) for c, m, y, _ in steps)
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * bytes(range(256)) + colours + 3 * bytes(range(256))
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), b"A2B0": table}
    tags |= {b"wtpt": tag(b"XYZ ", 0.9642, 1, 0.8249), b"cprt": b"text" + bytes(8)}
    index, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        index += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI", 128 + len(index) + len(body), b"lcms", 0x02100000) + b"prtrCMYKLab "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + index + body


def test_the_profile_of_a_printer_is_applied_to_cmyk() -> None:
    """Without the profile the picture is black; with it, only the yellow stripe is not white."""
    inks = np.zeros((32, 64, 4), np.uint8)
    inks[..., 3] = 255
    inks[:, 32:, 2] = 255
    image = PIL.Image.frombytes("CMYK", (64, 32), inks.tobytes())
    assert decode_image(saved(image, "JPEG", b""), 10**6).max() < 10
    decoded = decode_image(saved(image, "JPEG", cmyk_profile()), 10**6)
    assert decoded[:, :24].min() > 248
    grey = decoded[:, 40:].astype(int)
    assert np.abs(grey - grey[..., :1]).max() <= 2
    assert 215 < grey.mean() < 232, "an L of 89"
