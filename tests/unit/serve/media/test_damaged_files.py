"""Damaged files: whatever is wrong with a file, it is decoded or refused, and nothing else happens.

The mutations are seeded, so that a failure can be repeated: its number is in the message.
"""

import io
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from serve.media.claims import claim_of, decode_reduced, open_within
from serve.media.decode import open_source
from serve.media.encode import Encoder
from serve.media.encode_mp4 import Mp4Encoder
from serve.media.encode_webp import WebpEncoder
from serve.media.errors import MediaError
from serve.media.samples import pan, stranger
from serve.media.source import Source, SourceLimits
from tests.unit.serve.media.make_media import animation, film, webm
from tests.unit.serve.media.test_claims import encoded

pytestmark = pytest.mark.slow

LIMITS = SourceLimits(frames=12, seconds=20, pixels=10_000)
FRAMES = pan(stranger(), 5, 64, 48)
WAVE = np.random.default_rng(3).uniform(-0.5, 0.5, (1, 24_000)).astype(np.float32)


def apng() -> bytes:
    images = [PIL.Image.fromarray(frame) for frame in FRAMES]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=100)
    return buffer.getvalue()


IMAGES: dict[str, bytes] = {
    "JPEG": encoded("JPEG", 60, 50),
    "progressive JPEG": encoded("JPEG", 60, 50, progressive=True),
    "PNG": encoded("PNG", 60, 50, "RGBA"),
    "palette PNG": encoded("PNG", 60, 50, "P"),
    "WebP": encoded("WEBP", 60, 50),
    "lossless WebP": encoded("WEBP", 60, 50, "RGBA", lossless=True),
    "GIF": encoded("GIF", 60, 50),
}
ANIMATIONS: dict[str, bytes] = {
    "animated GIF": animation("GIF", FRAMES),
    "animated WebP": animation("WEBP", FRAMES),
    "animated PNG": apng(),
}
VIDEOS: dict[str, bytes] = {
    "MP4 with AAC": film("mp4", "aac", WAVE, "mono"),
    "QuickTime with PCM": film("mov", "pcm_s16le", WAVE, "mono"),
    "WebM": webm(FRAMES),
    "Matroska with Opus": film("matroska", "libopus", WAVE, "mono"),
}


def flip(data: bytearray, rng: random.Random) -> None:
    """Change single bits or bytes anywhere."""
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= rng.choice((1 << rng.randrange(8), 0xFF))


def flip_header(data: bytearray, rng: random.Random) -> None:
    """Change bytes where most formats keep their sizes and tables."""
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 400))] = rng.randrange(256)


def cut(data: bytearray, rng: random.Random) -> None:
    """Leave out the end, or a part in the middle."""
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 7, 100, len(data)))]


def repeat(data: bytearray, rng: random.Random) -> None:
    """Repeat a part, as a copy that went wrong does."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((4, 50, 500))]
    data[start:start] = part * rng.choice((1, 5))


def extreme(data: bytearray, rng: random.Random) -> None:
    """Write a number that is as large, small or negative as can be."""
    at = rng.randrange(max(1, len(data) - 8))
    value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF))
    data[at : at + 4] = struct.pack(rng.choice((">I", "<I")), value)


def edit_box(data: bytearray, rng: random.Random) -> None:
    """Change a number inside one of the tables of an MP4, or any byte of another format."""
    names = (
        b"stts",
        b"stsz",
        b"stsc",
        b"stco",
        b"ctts",
        b"elst",
        b"mdhd",
        b"mvhd",
        b"tkhd",
        b"stsd",
        b"avcC",
        b"hdlr",
        b"trun",
    )
    places = [at for name in names if (at := data.find(name)) >= 0]
    if not places:
        return flip_header(data, rng)
    at = rng.choice(places) + 4 + 4 * rng.randrange(8)
    data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(2**32))))
    return None


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, flip_header, cut, repeat, extreme, edit_box)


def mutate(data: bytes, number: int) -> bytes:
    """Return ``data`` with the fault that has this number."""
    rng = random.Random(number)
    mutated = bytearray(data)
    MUTATIONS[number % len(MUTATIONS)](mutated, rng)
    return bytes(mutated)


def decode_still(data: bytes) -> None:
    image = open_within(data, LIMITS.pixels, LIMITS.scans)
    claim_of(image, 32)
    pixels = decode_reduced(image, 32)
    assert pixels.dtype == np.uint8
    assert max(pixels.shape[:2]) <= 32


def swap(data: bytes, encoder: Callable[[Source], Encoder], rate: Fraction | None = None) -> None:
    """Decode a video and encode it again, as the service does."""
    source = open_source(data, LIMITS)
    if rate is not None:
        source = source.at_fps(rate)
        if source.count > LIMITS.frames:
            return
    writer = encoder(source)
    try:
        shown: list[Fraction] = []
        for chunk in source.chunks():
            assert chunk.frames.shape[3] == 3
            writer.add(chunk.frames, chunk.times)
            shown += chunk.times
        if shown:
            writer.close()
    finally:
        writer.discard()


def as_mp4(source: Source) -> Encoder:
    return Mp4Encoder(source.fps, preset="ultrafast", crf=40, audio=source.audio, seconds=source.duration)


def as_webp(source: Source) -> Encoder:
    return WebpEncoder(source.fps, method=0, count=source.count, seconds=source.duration)


def refused(data: bytes, numbers: range, use: Callable[[bytes], None]) -> int:
    """Return how many of the mutations are refused; any other error fails the test."""
    count = 0
    for number in numbers:
        try:
            use(mutate(data, number))
        except MediaError as error:
            count += str(error).isprintable()
        except Exception as error:
            raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
    return count


@pytest.mark.parametrize("kind", IMAGES)
def test_a_damaged_image_is_decoded_or_refused(kind: str) -> None:
    decode_still(IMAGES[kind])
    assert 0 < refused(IMAGES[kind], range(300), decode_still) < 300


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_a_damaged_animation_is_decoded_or_refused(kind: str) -> None:
    swap(ANIMATIONS[kind], as_webp)
    assert 0 < refused(ANIMATIONS[kind], range(300), lambda data: swap(data, as_webp)) < 300


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_damaged_video_is_decoded_or_refused(kind: str) -> None:
    swap(VIDEOS[kind], as_mp4)
    assert 0 < refused(VIDEOS[kind], range(300), lambda data: swap(data, as_mp4)) < 300
