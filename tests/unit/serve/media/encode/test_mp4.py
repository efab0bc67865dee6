import gc
import io
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from deployments.wire import Frames
from serve.media.decode.opening import open_source
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import pan, stranger, tone, with_sound
from serve.media.sound import Sound
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all, unnamed_files
from tests.unit.serve.provenance.watermark.frames import portrait_film


@pytest.mark.parametrize("fps", [Fraction(16), Fraction(30000, 1001), Fraction(25, 2)])
def test_mp4_keeps_pixels_and_times(fps: Fraction) -> None:
    frames = pan(stranger(), 9, 192, 224)
    data = encode_all(Mp4Encoder(fps, "veryfast", 12), frames, fps)
    assert data.find(b"moov") < data.find(b"mdat")
    source = open_source(data, LIMITS)
    assert source.count == 9
    assert float(source.fps) == pytest.approx(float(fps), rel=1e-4)
    decoded, times = decode_all(source)
    assert [float(t) for t in times] == pytest.approx([float(i / fps) for i in range(9)], abs=1e-4)
    for old, new in zip(frames, decoded, strict=True):
        assert np.abs(old.astype(int) - new).mean() < 3
    with av.open(io.BytesIO(data), mode="r") as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


class Dots:
    """A mark of squares of two pixels, brighter or darker by ``level``."""

    def __init__(self, level: int) -> None:
        self.pattern = np.kron(np.random.default_rng(1).choice([-level, level], (72, 128)), np.ones((2, 2), int))

    def mark(self, frames: Frames) -> Frames:
        raise NotImplementedError

    def mark_luma(self, plane: npt.NDArray[np.uint8]) -> None:
        plane[:] = np.clip(plane + self.pattern, 0, 255)


def test_a_weak_mark_survives_in_every_frame_of_a_tiny_film() -> None:
    """x264's usual rounding leaves a third of it in frames that it predicts."""
    film = portrait_film(256, 144, 9)

    def luma(level: int) -> npt.NDArray[np.float64]:
        encoder = Mp4Encoder(Fraction(16), "veryfast", 18, mark=Dots(level))
        frames, _ = decode_all(open_source(encode_all(encoder, film, Fraction(16)), LIMITS))
        return np.asarray(np.mean(frames, axis=-1), np.float64)

    kept = ((luma(2) - luma(0)) * Dots(1).pattern).mean(axis=(1, 2)) / 2
    assert kept.shape == (9,)
    assert kept.min() > 0.7


@pytest.mark.parametrize("colour", [(200, 30, 60), (20, 180, 40), (10, 20, 230), (255, 255, 255), (0, 0, 0)])
def test_colours_do_not_shift(colour: tuple[int, int, int]) -> None:
    frames = np.tile(np.array(colour, np.uint8), (1, 64, 64, 1))
    data = encode_all(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16))
    (frame,), _ = decode_all(open_source(data, LIMITS))
    assert np.abs(frame.reshape(-1, 3).astype(int) - colour).max() <= 4


def test_odd_sizes_gain_a_row_and_a_column() -> None:
    frames = pan(stranger(), 1, 63, 65)
    data = encode_all(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16))
    (frame,), _ = decode_all(open_source(data, LIMITS))
    assert frame.shape == (66, 64, 3)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24_000, 1001)], ids=["25", "23.976"])
@pytest.mark.parametrize("is_known", [True, False], ids=["a known duration", "no known duration"])
@pytest.mark.parametrize("sounds", [False, True], ids=["mute", "with sound"])
def test_the_file_states_its_rate_whichever_frame_is_decoded_last(fps: Fraction, is_known: bool, sounds: bool) -> None:
    """Programs that read videos for models take the average rate that the index gives."""
    frames = pan(stranger(), 17, 64, 64)
    last_is_shown_last = set()
    for count in (1, 2, 3, 4, 5, 12, 17):
        encoder = Mp4Encoder(fps, "veryfast", 18, seconds=count / fps if is_known else None, draft=sounds)
        encoder.add(frames[:count], tuple(i / fps for i in range(count)))
        film = with_sound(encoder, Sound(tone(1.0))) if sounds else encoder.close()
        with av.open(io.BytesIO(film.read()), mode="r") as container:
            (stream,) = container.streams.video
            assert stream.average_rate is not None
            assert stream.time_base is not None
            assert float(stream.average_rate) == pytest.approx(float(fps), rel=1e-4), f"{count} frames"
            assert float((stream.duration or 0) * stream.time_base) == pytest.approx(float(count / fps), abs=2e-3)
            times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            last_is_shown_last.add(times[-1] == max(times))
    assert last_is_shown_last == {False, True}, "films of both kinds were to be tried"


def test_a_variable_frame_rate_is_kept() -> None:
    times = tuple(Fraction(t, 100) for t in (0, 5, 30, 35, 90, 100))
    encoder = Mp4Encoder(Fraction(10), "veryfast", 18)
    encoder.add(pan(stranger(), 6, 64, 64), times)
    frames, decoded_times = decode_all(open_source(encoder.close(), LIMITS))
    assert len(frames) == 6
    assert [float(t) for t in decoded_times] == pytest.approx([float(t) for t in times], abs=1e-4)


def test_a_rate_whose_terms_exceed_32_bits_is_accepted() -> None:
    """The mean of a variable rate can have such terms."""
    rate = Fraction(2_501_000_000, 83_524_953)
    data = encode_all(Mp4Encoder(rate, "veryfast", 18), pan(stranger(), 4, 96, 96), rate)
    _, times = decode_all(open_source(data, LIMITS))
    assert [float(time) for time in times] == pytest.approx([float(i / rate) for i in range(4)], abs=1e-4)


def test_a_video_without_audio_stays_without() -> None:
    data = encode_all(Mp4Encoder(Fraction(16), "veryfast", 18), pan(stranger(), 4, 96, 96), Fraction(16))
    assert open_source(data, LIMITS).audio is None


@pytest.mark.parametrize("close", [True, False])
def test_an_encoder_leaves_no_thread_and_no_file_behind(close: bool) -> None:
    """x264 starts several threads per video, and the garbage collector may not run for minutes."""
    frames = pan(stranger(), 4, 96, 96)

    def use() -> None:
        encoder = Mp4Encoder(Fraction(16), preset="veryfast", crf=18, draft=True)
        encoder.add(frames, tuple(Fraction(i, 16) for i in range(4)))
        if close:
            with_sound(encoder, Sound(tone(0.5)))
        encoder.discard()

    use()
    gc.collect()
    gc.disable()
    try:
        threads, files = psutil.Process().num_threads(), unnamed_files()
        for _ in range(5):
            use()
        assert psutil.Process().num_threads() <= threads
        assert unnamed_files() <= files
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "size", [*(pytest.param(size, marks=pytest.mark.slow) for size in ((832, 480), (192, 224))), (102, 66)]
)
def test_the_same_frames_give_the_same_bytes(size: tuple[int, int]) -> None:
    """Uninitialised memory must not matter, so each run follows allocations of other content."""
    frames = pan(stranger(), 17, *size)
    files = set()
    for seed in range(6):
        for length in (30_000, 100_000, 300_000, 2_000_000) * 5:
            np.random.default_rng(seed).integers(0, 255, length, dtype=np.uint8)
        files.add(encode_all(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16)))
    assert len(files) == 1
