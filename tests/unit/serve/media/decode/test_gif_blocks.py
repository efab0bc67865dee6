"""A GIF is complete if its blocks lead to its trailer, whatever follows it."""

import itertools

import pytest

from serve.media.decode.gif_blocks import has_end
from serve.media.decode.opening import open_source
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_media import LIMITS, animation, decode_all

FRAMES = pan(stranger(), 5, 64, 48)
TAILS = {
    "a line break": b"\n",
    "zeros": bytes(700),
    "an archive": b"PK\3\4" + b"x" * 400,
    "a block": b"\0\x21",
    "more": b"\x2c",
}


@pytest.mark.parametrize("tail", TAILS)
def test_what_follows_the_end_does_not_matter(tail: str) -> None:
    data = animation("GIF", FRAMES)
    frames, times = decode_all(open_source(data + TAILS[tail], LIMITS))
    expected, expected_times = decode_all(open_source(data, LIMITS))
    assert times == expected_times
    assert all((one == other).all() for one, other in itertools.zip_longest(frames, expected))


@pytest.mark.slow
def test_no_part_of_a_gif_has_an_end() -> None:
    data = animation("GIF", FRAMES)
    assert has_end(data)
    assert not any(has_end(data[:length]) for length in range(len(data)))
