"""Frames are shown upright, mirrored or not, and with square pixels."""

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import cast

import numpy as np
import pytest
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from serve.media.decode.geometry import Placement, placement_of, square_size
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.decode.video import open_video
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_film import (
    SCENE,
    encoded,
    with_matrix,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all, rotate

MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "plain": ((1, 0, 0, 1), lambda x: x),
    "a quarter turn": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "three quarters": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "left to right": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "along the other diagonal": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_turns_and_mirrors(name: str) -> None:
    matrix, show = MATRICES[name]
    film = encoded("libx264", "mp4", SCENE[:2])
    (stored, _), _ = decode_all(open_source(film, LIMITS))
    (frame, _), _ = decode_all(open_source(with_matrix(film, *matrix), LIMITS))
    np.testing.assert_array_equal(frame, show(stored))


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (128, 64)), (Fraction(1, 2), (96, 128)), (Fraction(1), (96, 64)), (Fraction(64, 45), (137, 64))],
)
def test_pixels_become_square(container_format: str, aspect: Fraction, size: tuple[int, int]) -> None:
    film = encoded(
        "libx264",
        container_format,
        SCENE[:2],
        prepare=lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", aspect),
    )
    source = open_source(film, LIMITS)
    frames, _ = decode_all(source)
    assert frames[0].shape[1::-1] == size
    assert source.pixels >= size[0] * size[1]
    source = open_source(film, SourceLimits(100, 20, 96 * 64))
    limited = decode_all(source)[0][0]
    assert limited.shape[0] * limited.shape[1] <= 96 * 64
    assert limited.shape[1] / limited.shape[0] == pytest.approx(size[0] / size[1], rel=0.03)
    turned = decode_all(open_source(with_matrix(film, 0, 1, -1, 0), LIMITS))[0][0] if container_format == "mp4" else None
    assert turned is None or turned.shape[:2] == size


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_the_rotation_of_a_video_is_applied(quarter_turns: int) -> None:
    frames = pan(stranger(), 2, 96, 64)
    plain = encode_all(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16))
    upright, _ = decode_all(open_video(plain, LIMITS))
    turned, _ = decode_all(open_video(rotate(plain, quarter_turns), LIMITS))
    np.testing.assert_array_equal(turned[0], np.rot90(upright[0], -quarter_turns))


class Stored:
    """A frame whose side data is this display matrix, as FFmpeg has it."""

    def __init__(self, matrix: bytes | None) -> None:
        self.side_data = {} if matrix is None else {Type.DISPLAYMATRIX: matrix}


def turned(degrees: float, *, mirrored: bool = False) -> bytes:
    """Return the matrix that mirrors left to right, and then turns clockwise."""
    cos, sin = (round(65_536 * f(math.radians(degrees))) for f in (math.cos, math.sin))
    sign = -1 if mirrored else 1
    return struct.pack("=9i", sign * cos, sign * sin, 0, -sin, cos, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3), (44, 0), (46, 1), (-44, 0), (359, 0)])
def test_a_turn_is_rounded_to_a_quarter(degrees: float, turns: int, mirrored: bool) -> None:
    assert placement_of(cast(VideoFrame, Stored(turned(degrees, mirrored=mirrored)))) == Placement(turns, mirrored)


@pytest.mark.parametrize("matrix", [None, b"", bytes(35), bytes(36), turned(90)[:35]])
def test_a_matrix_that_is_missing_cut_or_flat_changes_nothing(matrix: bytes | None) -> None:
    placement = placement_of(cast(VideoFrame, Stored(matrix)))
    assert placement == Placement()
    assert not placement.lies


def test_pixels_are_mirrored_first_and_then_turned_clockwise() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)
    shown = Placement(1, mirrored=True).apply(pixels)
    assert shown[..., 0].tolist() == [[5, 2], [4, 1], [3, 0]]
    assert shown.flags.c_contiguous
    assert [Placement(turns).lies for turns in range(4)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("aspect", "most", "size"),
    [
        (None, 10**6, (100, 60)),
        (Fraction(0), 10**6, (100, 60)),
        (Fraction(1), 10**6, (100, 60)),
        (Fraction(2), 10**6, (200, 60)),
        (Fraction(1, 2), 10**6, (100, 120)),
        (Fraction(16), 10**6, (1600, 60)),
        (Fraction(1601, 100), 10**6, (100, 60)),
        (Fraction(-2), 10**6, (100, 60)),
        (Fraction(2), 200 * 60, (200, 60)),
        (Fraction(2), 200 * 60 // 4, (100, 30)),
        (Fraction(2), 1, (1, 1)),
    ],
)
def test_the_shorter_side_of_a_pixel_grows_within_the_limit(aspect: Fraction | None, most: int, size: tuple[int, int]) -> None:
    assert square_size(100, 60, aspect, most) == size
