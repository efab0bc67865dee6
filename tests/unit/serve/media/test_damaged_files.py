"""Damaged files: whatever is wrong with a file, it is decoded or refused, and nothing else happens.

The mutations are seeded, so that a failure can be repeated: its number is in the message.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from serve.media.decode.claims import claim_of, decode_reduced, open_within
from serve.media.decode.opening import open_source
from serve.media.decode.source import Source, SourceLimits
from serve.media.encode.encoder import Encoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaError
from serve.media.samples import with_sound
from tests.media.mutations import mutate
from tests.unit.serve.media.every_format import ANIMATIONS, IMAGES, VIDEOS

pytestmark = pytest.mark.slow

LIMITS = SourceLimits(frames=12, seconds=20, pixels=10_000)


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
        if shown and isinstance(writer, Mp4Encoder) and source.audio is not None:
            with_sound(writer, source.audio)
        elif shown:
            writer.close()
    finally:
        writer.discard()


def as_mp4(source: Source) -> Encoder:
    return Mp4Encoder(source.fps, preset="ultrafast", crf=40, seconds=source.duration, draft=source.audio is not None)


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
