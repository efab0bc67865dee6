"""A GIF is complete if its blocks lead to its trailer, whatever follows it."""

import itertools

import pytest

from serve.media.decode.gif_blocks import EXTENSION, FRAME, SCREEN_END, SCREEN_FLAGS, TRAILER, blocks, colours
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


def kinds(data: bytes) -> list[int]:
    return [kind for kind, _, _ in blocks(data)]


@pytest.mark.parametrize("tail", TAILS)
def test_what_follows_the_end_does_not_matter(tail: str) -> None:
    data = animation("GIF", FRAMES)
    assert kinds(data + TAILS[tail]) == kinds(data)
    frames, times = decode_all(open_source(data + TAILS[tail], LIMITS))
    expected, expected_times = decode_all(open_source(data, LIMITS))
    assert times == expected_times
    assert all((one == other).all() for one, other in itertools.zip_longest(frames, expected))


@pytest.mark.slow
def test_no_part_of_a_gif_has_an_end() -> None:
    data = animation("GIF", FRAMES)
    assert kinds(data)[-1] == TRAILER
    assert not any(TRAILER in kinds(data[:length]) for length in range(len(data)))


def test_every_block_is_found_with_its_place() -> None:
    data = animation("GIF", FRAMES)
    assert kinds(data).count(FRAME) == 5
    ends = [end for _, _, end in blocks(data)]
    starts = [start for _, start, _ in blocks(data)]
    assert starts[1:] == [end + 1 for end in ends[:-1]]  # a byte between them is the kind
    assert ends[-1] == len(data)
    assert {data[start] for kind, start, _ in blocks(data) if kind == EXTENSION} == {0xF9}


def test_bytes_between_blocks_are_skipped() -> None:
    data = animation("GIF", FRAMES)
    (_, _, end), *_ = blocks(data)
    assert kinds(data[:end] + bytes(5) + data[end:]) == kinds(data)


def test_a_table_of_colours_is_there_if_the_flags_say_so() -> None:
    data = animation("GIF", FRAMES)
    with_table, without = (data[:SCREEN_FLAGS] + bytes([flags]) + data[SCREEN_FLAGS + 1 :] for flags in (0x81, 1))
    assert colours(with_table, SCREEN_FLAGS, SCREEN_END) == data[SCREEN_END : SCREEN_END + 12]
    assert colours(without, SCREEN_FLAGS, SCREEN_END) == b""
