import io
import zlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import PIL.Image
import psutil
import pytest

from serve.media.decode.animation import open_animation
from serve.media.decode.canvas import Piece
from serve.media.decode.gif_frames import gif_frames
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import encode_image
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_gif import GifFrame, gif
from tests.unit.serve.media.make_media import LIMITS, animation, decode_all
from tests.unit.serve.media.make_png import PngFrame, animated_png


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_a_new_rate_retimes_an_animation_and_keeps_its_frames(kind: str) -> None:
    source = open_animation(animation(kind, pan(stranger(), 5, 64, 64), [100, 200, 50, 100, 150]), LIMITS)
    assert source.count == 5
    assert float(source.duration) == pytest.approx(0.6)
    assert [float(t) for t in decode_all(source)[1]] == pytest.approx([0, 0.1, 0.3, 0.35, 0.45])
    retimed = source.at_fps(Fraction(25))
    assert retimed.count == 5
    assert float(retimed.duration) == pytest.approx(0.2)
    for old, new in zip(decode_all(source)[0], decode_all(retimed)[0], strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_still_image_is_a_video_of_one_frame() -> None:
    source = open_animation(encode_image(stranger(), "image/png"), LIMITS)
    (frame,), (time,) = decode_all(source)
    np.testing.assert_array_equal(frame, stranger())
    assert source.fps == 16
    assert time == 0
    assert source.audio is None


def test_a_frame_of_no_duration_is_shown_for_a_tenth_of_a_second() -> None:
    source = open_animation(animation("WEBP", pan(stranger(), 3, 64, 64), 0), LIMITS)
    assert source.duration == Fraction(3, 10)


def test_a_jpeg_that_holds_two_images_is_a_still() -> None:
    images = [PIL.Image.fromarray(stranger()), PIL.Image.fromarray(stranger()[:80, :60])]
    buffer = io.BytesIO()
    images[0].save(buffer, "MPO", save_all=True, append_images=images[1:])
    source = open_animation(buffer.getvalue(), LIMITS)
    assert source.count == 1
    assert decode_all(source)[0][0].shape == stranger().shape


@pytest.mark.slow
def test_a_gif_whose_later_frame_is_huge_is_refused_before_that_frame_is_decoded() -> None:
    first, later = (PIL.Image.new("P", size) for size in ((1, 1), (9000, 9000)))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[first])
    small = buffer.getvalue()
    buffer = io.BytesIO()
    later.save(buffer, "GIF")
    huge = buffer.getvalue()
    bomb = small[:-1] + huge[huge.index(b"\x2c") :]  # append the huge image's block
    assert len(bomb) < 200_000
    before = psutil.Process().memory_info().rss
    with pytest.raises(MediaTooLarge, match="larger than 2000000 pixels"):
        open_animation(bomb, LIMITS)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


@pytest.mark.slow
def test_a_truncated_gif_is_refused_at_every_tenth() -> None:
    whole = animation("GIF", pan(stranger(), 20, 96, 96))
    assert len(decode_all(open_animation(whole, LIMITS))[0]) == 20
    for tenth in range(1, 10):
        with pytest.raises(MediaError, match="truncated"):
            open_animation(whole[: len(whole) * tenth // 10], LIMITS)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_webp_is_refused(share: float) -> None:
    whole = animation("WEBP", pan(stranger(), 20, 96, 96))
    with pytest.raises(MediaError):
        decode_all(open_animation(whole[: int(len(whole) * share)], LIMITS))


def test_a_gif_with_a_damaged_block_is_refused() -> None:
    whole = bytearray(animation("GIF", pan(stranger(), 3, 64, 64)))
    middle = len(whole) // 2
    whole[middle : middle + 40] = np.random.default_rng(0).bytes(40)
    with pytest.raises(MediaError, match="the image is damaged"):
        decode_all(open_animation(bytes(whole), LIMITS))


def test_a_frame_that_exceeds_its_gif_makes_all_frames_larger() -> None:
    data = bytearray(animation("GIF", np.stack([np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 200)])))
    places = [at for at in range(len(data)) if data[at : at + 9] == b"\x2c\0\0\0\0\x14\0\x14\0"]
    data[places[1] + 1] = 10  # the second frame begins at 10, 0
    source = open_animation(bytes(data), LIMITS)
    frames, _ = decode_all(source)
    assert [frame.shape for frame in frames] == [(20, 30, 3)] * 3
    assert source.pixels == 20 * 30


def test_the_frames_of_a_gif_are_counted_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = animation("GIF", np.stack([np.full((8, 8, 3), i % 250, np.uint8) for i in range(300)]), 20)
    found: list[Piece] = []

    def spy(data: bytes) -> Iterator[Piece]:
        for piece in gif_frames(data):
            found.append(piece)
            yield piece

    monkeypatch.setattr("serve.media.decode.animation.gif_frames", spy)
    with pytest.raises(MediaTooLarge, match="at least 101 frames"):
        open_animation(data, LIMITS)
    assert len(found) == 101


def test_an_animated_png_of_too_many_frames_is_refused() -> None:
    frames = [PngFrame(np.full((2, 3, 1), i, np.uint8)) for i in range(101)]
    assert open_animation(animated_png(frames[1:], 0), LIMITS).count == 100
    with pytest.raises(MediaTooLarge, match="at least 101 frames"):
        open_animation(animated_png(frames, 0), LIMITS)


@pytest.mark.parametrize("cut", [13, 40, 100, 160])
def test_a_truncated_animated_png_is_refused_where_pixels_are_missing(cut: int) -> None:
    random = np.random.default_rng(0)
    data = animated_png([PngFrame(random.integers(0, 256, (6, 8, 3), np.uint8)) for _ in range(3)], 2)
    assert len(decode_all(open_animation(data[:-12], LIMITS))[0]) == 3  # only its end is missing
    with pytest.raises(MediaError, match="damaged or truncated"):
        open_animation(data[: -12 - cut], LIMITS)


def test_an_animated_png_with_spoilt_frames_is_a_still() -> None:
    data = bytearray(animated_png([PngFrame(np.full((2, 3, 1), 100 + i, np.uint8)) for i in range(3)], 0))
    data[data.rindex(b"fdAT") + 8] ^= 1
    source = open_animation(bytes(data), LIMITS)
    assert [frame.max() for frame in decode_all(source)[0]] == [100]


def test_a_gif_of_one_frame_is_white_around_it() -> None:
    source = open_animation(gif([GifFrame(np.ones((2, 2), np.uint8), left=1, top=1)], 4, 4), LIMITS)
    ((frame,), _) = decode_all(source)
    assert source.fps == 16
    assert frame[1:3, 1:3].tolist() == [[[0, 255, 0]] * 2] * 2
    assert frame[0].min() == frame[:, 3].min() == 255


def test_a_frame_that_makes_its_gif_too_large_is_refused_before_it_is_allocated() -> None:
    data = bytearray(animation("GIF", np.stack([np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 200)])))
    places = [at for at in range(len(data)) if data[at : at + 9] == b"\x2c\0\0\0\0\x14\0\x14\0"]
    data[places[1] + 1 : places[1] + 5] = b"\xff\xff\xff\xff"  # it begins at 65535, 65535
    before = psutil.Process().memory_info().vms
    with pytest.raises(MediaTooLarge, match="larger than 2000000 pixels"):
        open_animation(bytes(data), LIMITS)
    assert psutil.Process().memory_info().vms - before < 2**28
    assert PIL.Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize(("stated_ms", "shown_ms"), [(0, 100), (1, 100), (10, 100), (11, 11), (20, 20), (50, 50)])
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_frame_is_shown_as_long_as_in_browsers(kind: str, stated_ms: int, shown_ms: int) -> None:
    frames = pan(stranger(), 4, 32, 32)
    images = [PIL.Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    options = {"disposal": 0} if kind == "PNG" else {}
    if kind == "GIF" and stated_ms % 10:
        pytest.skip("a GIF states hundredths of a second")
    images[0].save(buffer, kind, save_all=True, append_images=images[1:], duration=max(stated_ms, 10), **options)
    data = buffer.getvalue()
    if stated_ms < 10 and kind == "GIF":
        data = data.replace(b"\x21\xf9\x04\x00\x01\x00", b"\x21\xf9\x04\x00\x00\x00")
        data = data.replace(b"\x21\xf9\x04\x04\x01\x00", b"\x21\xf9\x04\x04\x00\x00")
    elif stated_ms < 10:
        buffer = io.BytesIO()
        images[0].save(buffer, kind, save_all=True, append_images=images[1:], duration=stated_ms, **options)
        data = buffer.getvalue()
    source = open_animation(data, LIMITS)
    assert source.duration == Fraction(4 * shown_ms, 1000)


def test_the_durations_of_an_animated_png_are_exact() -> None:
    images = [PIL.Image.fromarray(frame) for frame in pan(stranger(), 3, 32, 32)]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=1000 / 30)
    data = bytearray(buffer.getvalue())
    at = -1
    while (at := data.find(b"fcTL", at + 1)) >= 0:
        data[at + 24 : at + 28] = (1001).to_bytes(2, "big") + (30_000).to_bytes(2, "big")
        end = at + 4 + 26
        data[end : end + 4] = zlib.crc32(data[at:end]).to_bytes(4, "big")
    assert open_animation(bytes(data), LIMITS).fps == Fraction(30_000, 1001)


def test_the_still_for_programs_that_do_not_know_animated_png_is_left_out() -> None:
    still = PIL.Image.new("RGB", (32, 32), "red")
    images = [PIL.Image.fromarray(frame) for frame in pan(stranger(), 3, 32, 32)]
    buffer = io.BytesIO()
    still.save(buffer, "PNG", save_all=True, append_images=images, default_image=True, duration=50)
    source = open_animation(buffer.getvalue(), LIMITS)
    frames, times = decode_all(source)
    assert source.count == len(frames) == 3
    assert times == [Fraction(i, 20) for i in range(3)]
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame, np.asarray(image))
