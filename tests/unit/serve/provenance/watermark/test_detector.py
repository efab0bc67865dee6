from collections.abc import Callable

import cv2
import numpy as np
import pytest

from deployments.wire import Frames
from serve.provenance.watermark import Detector, Payload, Watermark, detect
from serve.provenance.watermark.detector import MAX_RATE
from tests.unit.serve.provenance.watermark.frames import portrait_film

PAYLOAD = Payload(9, 0x1A2B3C4)


def jpeg(frame: Frames, quality: int) -> Frames:
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.stack([decoded])


def scaled(frames: Frames, share: float) -> Frames:
    return np.stack([cv2.resize(f, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for f in frames])


HARMS: dict[str, Callable[[Frames], Frames]] = {
    "nothing": lambda frames: frames,
    "one frame of the middle": lambda frames: frames[2:3],
    "half size": lambda frames: scaled(frames, 0.5),
    "JPEG": lambda frames: jpeg(frames[2], 60),
    "crop": lambda frames: frames[:, 37:325, 81:593],
    "brightness": lambda frames: cv2.convertScaleAbs(frames, alpha=1.2, beta=15).reshape(frames.shape),
    "70 % size": lambda frames: scaled(frames[:1], 0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_the_payload_is_read_after(harm: str) -> None:
    marked = Watermark(PAYLOAD).mark(portrait_film(640, 360, 5))
    reading = detect(HARMS[harm](marked))
    assert reading is not None
    assert reading.payload == PAYLOAD
    assert reading.false_positive_rate <= MAX_RATE


def test_the_size_of_the_cells_tells_the_scale() -> None:
    marked = Watermark(PAYLOAD).mark(portrait_film(640, 360, 1))
    whole, half = detect(marked), detect(scaled(marked, 0.5))
    assert whole is not None
    assert half is not None
    assert (whole.cell, half.cell) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["portrait", "noise", "flat", "stripes"])
def test_nothing_is_found_where_nothing_is(kind: str) -> None:
    frames = {
        "portrait": portrait_film(256, 144, 2),
        "noise": np.random.default_rng(1).integers(0, 256, (1, 144, 256, 3), dtype=np.uint8),
        "flat": np.full((1, 144, 256, 3), 77, np.uint8),
        "stripes": np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None] % 64 * 4, (1, 144, 256, 3)).copy(),
    }[kind]
    assert detect(frames) is None


@pytest.mark.slow
def test_a_watermark_is_found_only_by_its_secret() -> None:
    marked = Watermark(PAYLOAD, b"the first secret").mark(portrait_film(256, 144, 1))
    assert detect(marked, [b"the second secret"]) is None
    reading = detect(marked, [b"the second secret", b"the first secret"])
    assert reading is not None
    assert (reading.payload, reading.secret) == (PAYLOAD, 1)


def test_frames_that_lost_the_mark_do_not_hide_the_one_that_kept_it() -> None:
    film = portrait_film(320, 240, 8)
    marked = Watermark(PAYLOAD).mark(film)
    reading = detect(np.concatenate([marked[:1], film[1:]]))
    assert reading is not None
    assert reading.payload == PAYLOAD


def test_nothing_is_read_of_no_frames() -> None:
    assert Detector().detect([]) is None


@pytest.mark.slow
def test_tiny_frames_are_looked_at_without_an_error() -> None:
    for height, width in ((1, 1), (2, 300), (16, 16)):
        assert detect(np.full((1, height, width, 3), 9, np.uint8)) is None


@pytest.mark.parametrize("older", [1, 2, 3, 4])
def test_a_result_of_a_result_shows_the_number_of_both(older: int) -> None:
    """A swap of a picture that this service has made: nothing tells which of both is newer."""
    first, second = Payload(1, older * 0x0123457), Payload(1, 0x0FEDCBA)
    made = jpeg(Watermark(first).mark(portrait_film(640, 360, 1))[0], 90)
    again = jpeg(Watermark(second).mark(made)[0], 90)
    readings = Detector().detect_all(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in again)
    assert {reading.payload for reading in readings} == {first, second}
    assert all(reading.false_positive_rate <= MAX_RATE for reading in readings)


@pytest.mark.parametrize(("width", "height"), [(256, 144), (640, 360), (832, 480)])
def test_one_watermark_is_read_once(width: int, height: int) -> None:
    for number in (1, 2):
        marked = Watermark(Payload(2, number)).mark(portrait_film(width, height, 2))
        readings = Detector().detect_all(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in marked)
        assert [reading.payload for reading in readings] == [Payload(2, number)]
