"""The frames that are looked at are spread over a film, within their budget."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from deployments.wire import Image
from serve.media.decode.source import Source as Film
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import encode_image
from serve.provenance import watermark_reading
from serve.provenance.watermark import PUBLISHED_SECRET, Payload, Watermark
from serve.provenance.watermark_reading import WatermarkLimits, read_watermark, read_watermarks
from tests.unit.serve.provenance.markings import JPEG
from tests.unit.serve.provenance.watermark.frames import portrait_film


class Counted(Film):
    """Frames whose grey level is their number; ``odd`` ones have another size."""

    def __init__(self, count: int, *, pixels: int = 16, odd: Sequence[int] = (), said: int | None = None) -> None:
        super().__init__(count if said is None else said, Fraction(count), pixels=pixels)
        self._real = count
        self._odd = odd
        self.decoded = 0

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        for number in range(self._real):
            self.decoded += 1
            yield np.full((4, 8 if number in self._odd else 4, 3), number, np.uint8), Fraction(number)


class Looking:
    """A detector that notes the level of each frame that it looks at."""

    levels: list[int]

    def __init__(self, secrets: Sequence[bytes]) -> None:
        assert secrets == [b"a secret"]

    def detect_all(self, frames: Iterator[Any]) -> tuple[()]:
        Looking.levels = [round(float(frame.mean())) for frame in frames]
        return ()


def looked_at(film: Counted, monkeypatch: pytest.MonkeyPatch, **limits: int) -> list[int]:
    """Return the numbers of the frames that are looked at."""
    monkeypatch.setattr(watermark_reading, "open_source", lambda *_: film)
    monkeypatch.setattr(watermark_reading, "Detector", Looking)
    assert read_watermark(b"", [b"a secret"], WatermarkLimits(**limits)) is None
    return Looking.levels


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (1, 16, [0]),
        (10, 16, list(range(10))),
        (16, 16, list(range(16))),
        (40, 16, [*range(8), *range(11, 40, 4)]),
        (200, 16, [*range(8), *range(31, 200, 24)]),
        (40, 3, [0, 1, 2]),
    ],
)
def test_the_first_frames_and_some_of_all_others_are_looked_at(
    count: int, most: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looked_at(Counted(count), monkeypatch, frames=most) == expected


def test_no_frame_is_decoded_after_the_last_one_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    film = Counted(250)
    assert looked_at(film, monkeypatch)[-1] == film.decoded - 1 < 250


@pytest.mark.parametrize(("pixels", "reach"), [(100_000_000, 12), (400_000_000, 3), (10**10, 1)])
def test_of_large_frames_only_as_many_are_decoded_as_allowed(pixels: int, reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Counted(200, pixels=pixels)
    assert looked_at(film, monkeypatch) == list(range(reach))
    assert film.decoded == reach


def test_frames_of_another_size_than_the_first_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(Counted(10, odd=(1, 4, 9)), monkeypatch) == [0, 2, 3, 5, 6, 7, 8]


@pytest.mark.slow
def test_the_mark_of_a_picture_is_read_with_the_number_of_its_secret() -> None:
    payload = Payload(3, 0x1234567)
    picture = encode_image(Watermark(payload).mark(portrait_film(128, 96, 1))[0], "image/png")
    found = read_watermarks(picture, [b"another secret of the service", PUBLISHED_SECRET])
    assert [(one.payload, one.secret) for one in found] == [(payload, 1)]


@pytest.mark.parametrize(("file", "raised"), [(b"no picture", MediaError), (JPEG, MediaTooLarge)])
def test_a_file_that_cannot_be_decoded_or_is_too_large_is_refused(file: bytes, raised: type[MediaError]) -> None:
    with pytest.raises(raised):
        read_watermarks(file, [PUBLISHED_SECRET], WatermarkLimits(pixels=100))
