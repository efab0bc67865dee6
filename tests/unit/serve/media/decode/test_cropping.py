"""The part of a frame is shown that the container names."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from serve.media.decode.cropping import Cropper, Cropping, cropping_of
from serve.media.decode.opening import open_source
from tests.unit.serve.media.make_cropped import with_aperture, with_pixel_crop
from tests.unit.serve.media.make_elements import element
from tests.unit.serve.media.make_film import SCENE, encoded, with_matrix
from tests.unit.serve.media.make_media import LIMITS, decode_all

HEIGHT, WIDTH = SCENE.shape[1:3]
EDGES = (8, 12, 4, 16)
LEFT, RIGHT, TOP, BOTTOM = EDGES
APERTURE = (WIDTH - LEFT - RIGHT, 1, HEIGHT - TOP - BOTTOM, 1, LEFT - RIGHT, 2, TOP - BOTTOM, 2)
"""The same as ``EDGES``."""


def frames_of(data: bytes) -> np.ndarray:
    source = open_source(data, LIMITS)
    frames, _ = decode_all(source)
    assert source.count == len(frames)
    return np.stack(frames)


def cropped(codec: str, container_format: str, **options: Any) -> tuple[bytes, bytes]:
    """Return a film and the same film with its edges cut away."""
    film = encoded(codec, container_format, SCENE[:6], **options)
    return film, with_pixel_crop(film, EDGES) if container_format == "matroska" else with_aperture(film, *APERTURE)


@pytest.mark.parametrize(
    ("codec", "container_format"), [("libx264", "mp4"), ("libx264", "mov"), ("libx264", "matroska"), ("ffv1", "matroska")]
)
def test_the_edges_that_the_container_cuts_away_are_not_shown(codec: str, container_format: str) -> None:
    whole, part = (frames_of(film) for film in cropped(codec, container_format))
    assert whole.shape[1:3] == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(part, whole[:, TOP : HEIGHT - BOTTOM, LEFT : WIDTH - RIGHT])


def test_frames_are_cropped_before_they_are_turned() -> None:
    whole, part = (frames_of(with_matrix(film, 0, 1, -1, 0)) for film in cropped("libx264", "mp4"))
    assert whole.shape[1:3] == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(part, whole[:, LEFT : WIDTH - RIGHT, BOTTOM : HEIGHT - TOP])


def test_pixels_that_are_not_square_become_so_after_cropping() -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)

    _, part = cropped("libx264", "mp4", prepare=wide)
    assert frames_of(part).shape[1:3] == (HEIGHT - TOP - BOTTOM, 2 * (WIDTH - LEFT - RIGHT))


def test_half_pixels_and_odd_edges_are_rounded_down_as_ffmpeg_does() -> None:
    whole = encoded("libx264", "mp4", SCENE[:2])
    part = with_aperture(whole, 81, 2, 31, 1, 0, 1, 0, 1)  # 27.75 columns on the left, 16.5 rows above
    np.testing.assert_array_equal(frames_of(part), frames_of(whole)[:, 16 : 16 + 30, 26 : 26 + 40])


@pytest.mark.parametrize(
    "aperture",
    [
        (WIDTH, 1, HEIGHT, 1, 0, 1, 0, 1),
        (WIDTH + 1, 1, HEIGHT, 1, 0, 1, 0, 1),
        (WIDTH, 1, HEIGHT + 1, 1, 0, 1, 0, 1),
        (WIDTH, 0, HEIGHT, 1, 0, 1, 0, 1),
        (0, 1, HEIGHT, 1, 0, 1, 0, 1),
        (40, 1, 40, 1, 0, 1, 0, 0),
        (40, 1, 40, 1, 99, 1, 0, 1),
        (40, 1, 40, 1, 0, 1, -99, 1),
    ],
)
def test_an_aperture_that_is_not_possible_has_no_effect(aperture: tuple[int, ...]) -> None:
    film = encoded("libx264", "mp4", SCENE[:2])
    np.testing.assert_array_equal(frames_of(with_aperture(film, *aperture)), frames_of(film))


def test_a_cropping_by_nothing_has_no_effect() -> None:
    film = encoded("libx264", "matroska", SCENE[:2])
    np.testing.assert_array_equal(frames_of(with_pixel_crop(film, (0, 0, 0, 0))), frames_of(film))


def track(kind: int, left: int) -> bytes:
    video = element(b"\xe0", element(b"\x54\xcc", left.to_bytes(2, "big")))
    return element(b"\xae", element(b"\x83", bytes([kind])) + video)


TRACKS = element(b"\x16\x54\xae\x6b", track(1, 10) + track(2, 20) + track(1, 30))
CLUSTER = element(b"\x1f\x43\xb6\x75", bytes(50))


@pytest.mark.parametrize("content", [TRACKS + CLUSTER, CLUSTER + TRACKS, element(b"\xec", bytes(9)) + TRACKS])
@pytest.mark.parametrize(("number", "left"), [(0, 10), (1, 30)])
def test_the_cropping_is_that_of_the_track_wherever_the_tracks_stand(content: bytes, number: int, left: int) -> None:
    data = element(b"\x1a\x45\xdf\xa3") + element(b"\x18\x53\x80\x67", content)
    size = SimpleNamespace(width=100, height=100)
    streams = [SimpleNamespace(codec_context=size, index=index) for index in (0, 2)]
    container: Any = SimpleNamespace(format=SimpleNamespace(name="matroska,webm"), streams=SimpleNamespace(video=streams))
    stream: Any = streams[number]
    assert cropping_of(data, container, stream) == Cropping(left=left)


@pytest.mark.parametrize("data", [b"", element(b"\x1a\x45\xdf\xa3"), element(b"\x18\x53\x80\x67", CLUSTER)])
def test_a_file_without_tracks_is_not_cropped(data: bytes) -> None:
    stream: Any = SimpleNamespace(codec_context=SimpleNamespace(width=100, height=100), id=1, index=0)
    for name in ("matroska,webm", "mov,mp4"):
        container: Any = SimpleNamespace(format=SimpleNamespace(name=name), streams=SimpleNamespace(video=[stream]))
        assert cropping_of(data, container, stream) is None


def test_later_frames_of_another_size_are_cropped_where_that_is_possible() -> None:
    cropper = Cropper(Cropping(left=4, right=4, top=20, bottom=20))
    sizes = [(96, 64), (48, 48), (48, 40), (96, 64)]
    frames = [VideoFrame(width, height, "yuv420p") for width, height in sizes]
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, Fraction(1, 25)
    shown = [cropper.crop(frame) for frame in frames]
    assert [(frame.width, frame.height) for frame in shown] == [(88, 24), (40, 8), (48, 40), (88, 24)]
    assert [frame.pts for frame in shown] == [0, 1, 2, 3]
