"""Decoded frames become the pixels that a player shows."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode.opening import open_source
from serve.media.decode.pixels import ShownPixels, matrix_of
from serve.media.decode.video import open_video
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.errors import MediaError
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_film import (
    encoded,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all, turned_midway, webm_that_grows


@pytest.mark.parametrize(
    ("codec", "container_format", "pix_fmt"),
    [("libvpx-vp9", "webm", "yuva420p"), ("libvpx", "webm", "yuva420p"), ("png", "mov", "rgba"), ("qtrle", "mov", "argb")],
)
def test_a_transparent_film_lies_on_white(codec: str, container_format: str, pix_fmt: str) -> None:
    rgba = np.zeros((4, 64, 64, 4), np.uint8)
    rgba[...] = (255, 0, 255, 0)
    rgba[:, 20:44, 20:44] = (40, 120, 60, 255)
    film = encoded(codec, container_format, rgba, source_format="rgba", pix_fmt=pix_fmt, options={"auto-alt-ref": "0"})
    if container_format == "webm":  # the mark that browsers want; PyAV cannot write it
        assert b"\x53\xc0\x81\x01" in film
    frames, _ = decode_all(open_source(film, LIMITS))
    assert len(frames) == 4
    for frame in frames:
        assert frame[:12, :12].min() > 250
        assert np.abs(frame[26:38, 26:38].astype(int) - (40, 120, 60)).mean() < 12


def test_hidden_colours_of_a_palette_are_white() -> None:
    picture = PIL.Image.new("P", (64, 48), 0)
    picture.putpalette([0, 0, 200, 0, 255, 0])
    picture.paste(1, (32, 0, 64, 48))
    png = io.BytesIO()
    picture.save(png, "PNG", transparency=0)
    film = io.BytesIO()
    with av.open(film, "w", format="mov") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for i in range(3):
            packet = Packet(png.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 10)
            container.mux(packet)
    frames, _ = decode_all(open_video(film.getvalue(), LIMITS))
    assert len(frames) == 3
    for frame in frames:
        assert frame[:, :30].min() == 255
        assert frame[24, 50].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("stated", "primaries", "height", "expected"),
    [
        (1, 1, 480, 1),
        (12, 9, 480, 9),
        (12, 1, 480, 1),
        (12, 2, 480, 5),
        (2, 2, 720, 1),
        (2, 2, 576, 5),
        (17, 1, 1080, 1),
        (3, 1, 48, 5),
    ],
)
def test_a_matrix_that_means_nothing_is_guessed_as_players_do(stated: int, primaries: int, height: int, expected: int) -> None:
    assert matrix_of(stated, primaries, height) == expected


def tagged(matrix: int) -> bytes:
    """Return a film of one colour, which states this matrix."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = matrix
        frame = VideoFrame.from_ndarray(np.full((48, 64, 3), (180, 60, 40), np.uint8), format="rgb24")
        converted = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601)
        converted.pts, converted.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(converted))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_a_matrix_that_only_the_primaries_tell_does_not_refuse_a_film() -> None:
    (decoded,), _ = decode_all(open_video(tagged(12), LIMITS))
    assert np.abs(decoded.astype(int) - (180, 60, 40)).mean() < 3


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (10, "BT.2020 with constant luminance"), (14, "ICtCp")])
def test_colours_that_are_stored_in_another_way_are_refused_by_name_before_decoding(matrix: int, name: str) -> None:
    with pytest.raises(MediaError, match=f"{name}, which is not supported; re-encode it as BT.709"):
        open_video(tagged(matrix), LIMITS)


def test_untagged_video_of_720_lines_is_bt709() -> None:
    frame = np.full((720, 64, 3), (180, 60, 40), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv420p"
        rgb = VideoFrame.from_ndarray(frame, format="rgb24")
        converted = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        converted.pts, converted.time_base = 0, Fraction(1, 16)
        container.mux(stream.encode(converted))
        container.mux(stream.encode())
    (decoded,), _ = decode_all(open_video(buffer.getvalue(), LIMITS))
    assert np.abs(decoded.astype(int) - frame).mean() < 3


def test_all_frames_get_the_size_of_the_first_one() -> None:
    frames, times = decode_all(open_video(webm_that_grows(), LIMITS))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 6
    assert [float(frame.mean()) for frame in frames] == pytest.approx([40 * i for i in range(6)], abs=6)
    assert [float(time) for time in times] == pytest.approx([i / 10 for i in range(6)], abs=1e-3)


@pytest.mark.parametrize(("degrees", "at"), [(90, 3), (180, 3), (270, 2), (90, 0)])
def test_a_video_that_turns_midway_keeps_the_size_of_its_first_frame(degrees: int, at: int) -> None:
    frames = pan(stranger(), 6, 96, 64)
    plain = encode_all(Mp4Encoder(Fraction(10), "ultrafast", 8), frames, Fraction(10))
    source = open_video(turned_midway(plain, at=at, degrees=degrees), LIMITS)
    decoded = np.concatenate([chunk.frames for chunk in source.chunks()])
    assert decoded.shape == ((6, 96, 64, 3) if at == 0 and degrees != 180 else (6, 64, 96, 3))
    for shown, frame in zip(decoded[at:], frames[at:], strict=True):
        upright = PIL.Image.fromarray(np.rot90(frame, degrees // 90)).resize(shown.shape[1::-1])
        opposite = np.rot90(np.asarray(upright), 2)
        assert np.abs(shown - np.asarray(upright, float)).mean() < np.abs(shown - opposite.astype(float)).mean() / 2


def stored(pixels: np.ndarray[Any, Any], form: str = "rgb24") -> VideoFrame:
    made = VideoFrame.from_ndarray(pixels, format=form)
    made.pts, made.time_base = 0, Fraction(1, 25)
    return made


def test_rgb_of_its_own_size_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    shown = ShownPixels(None, 10**6).of(stored(pixels))
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, pixels)


@pytest.mark.parametrize(("alpha", "level"), [(0, 255), (255, 40), (128, 147), (1, 254)])
def test_what_is_partly_transparent_is_mixed_with_white(alpha: int, level: int) -> None:
    shown = ShownPixels(None, 10**6).of(stored(np.full((4, 4, 4), (40, 40, 40, alpha), np.uint8), "rgba"))
    assert np.unique(shown).tolist() == [level]


@pytest.mark.parametrize(("height", "matrix"), [(718, Colorspace.ITU601), (720, Colorspace.ITU709)])
def test_the_matrix_of_a_frame_that_states_none_follows_from_its_height(height: int, matrix: Colorspace) -> None:
    colour = np.full((height, 16, 3), (180, 60, 40), np.uint8)
    unmarked = stored(colour).reformat(format="yuv420p", dst_colorspace=matrix)
    unmarked.colorspace = 2
    assert np.abs(ShownPixels(None, 10**6).of(unmarked).astype(int) - colour).max() <= 3


def test_later_frames_get_the_size_of_the_first_and_square_pixels() -> None:
    shown = ShownPixels(Fraction(2), 10**6)
    assert shown.of(stored(np.full((8, 8, 3), 10, np.uint8))).shape == (8, 16, 3)
    other = shown.of(stored(np.full((20, 12, 3), 90, np.uint8)))
    assert other.shape == (8, 16, 3)
    assert np.abs(other.astype(int) - 90).max() <= 1
