"""How a value from JSON or from a form becomes a number or a file."""

import base64
import io
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from serve.media.spool import Spool
from serve.pipelines.fields import MAX_IMAGES, Count, File, Images, Number, Share, Video, exact_rate, side

CONFIG = ConfigDict(arbitrary_types_allowed=True)  # as in the requests
ONE = base64.b64encode(b"one").decode()


def refusal(kind: Any, value: object) -> str:
    """Return why ``value`` is refused as a field of type ``kind``."""
    with pytest.raises(ValidationError) as refused:
        read(kind, value)
    (error,) = refused.value.errors()
    return error["msg"]


def read(kind: Any, value: object) -> Any:
    """Return what a field of type ``kind`` makes of ``value``."""
    return TypeAdapter(kind, config=CONFIG).validate_python(value)


def spool_of(data: bytes) -> Spool:
    spool = Spool.empty()
    spool.file.write(data)
    return spool


@pytest.mark.parametrize(("value", "number"), [(4, 4), ("4", 4), (4.0, 4)])
def test_a_count_may_be_sent_as_text(value: object, number: int) -> None:
    assert read(Count, value) == number


@pytest.mark.parametrize("kind", [Count, Number, Share, side(64)])
def test_what_python_takes_for_a_number_and_json_does_not_is_refused(kind: Any) -> None:
    assert "must be a number, not a boolean" in refusal(kind, True)
    for value in (float("nan"), "NaN", "-inf", " Infinity "):
        assert "must be a finite number" in refusal(kind, value)


def test_a_share_is_between_0_and_1() -> None:
    assert [read(Share, value) for value in (0, "0.5", 1)] == [0, 0.5, 1]
    assert "less than or equal to 1" in refusal(Share, 1.01)
    assert "greater than or equal to 0" in refusal(Share, -0.01)


@pytest.mark.parametrize(
    ("value", "nearest"), [(0, 16), (-(10**30), 16), (39, 32), (40, 48), (71, 64), (65, 64), (1000, 64), (10**30, 64)]
)
def test_a_side_that_is_not_a_multiple_of_16_is_refused_with_the_nearest_one(value: int, nearest: int) -> None:
    assert f"between 16 and 64; the nearest valid value is {nearest}" in refusal(side(64), value)


def test_a_side_is_a_multiple_of_16_within_its_limit() -> None:
    assert [read(side(64), value) for value in (16, "48", 64)] == [16, 48, 64]


def test_a_file_may_be_base64_a_data_uri_or_bytes_of_a_form() -> None:
    for value in (ONE, f"data:image/png;base64,{ONE}", b"one", spool_of(b"one")):
        assert read(File, value) == b"one"


def test_a_file_that_is_not_sent_as_a_file_is_refused_with_what_to_send() -> None:
    assert "URLs are not fetched" in refusal(File, "https://example.org/a.jpg")
    assert "must be a data URI or base64" in refusal(File, "%%%")
    assert "must be a string: send the file as a data URI or base64" in refusal(File, 5)
    assert "2 files were sent; send one" in refusal(File, [ONE, ONE])
    assert "the file is empty; send the complete file" in refusal(File, b"")


def test_a_large_video_stays_on_disk_and_a_small_one_is_read() -> None:
    spool = spool_of(b"a long video")
    assert read(Video, spool) is spool
    assert read(Video, ONE) == read(Video, b"one") == b"one"


def test_images_are_one_or_an_array_of_them() -> None:
    assert read(Images, ONE) == (b"one",)
    assert read(Images, [ONE, b"two"]) == (b"one", b"two")
    assert len(read(Images, [ONE] * MAX_IMAGES)) == MAX_IMAGES


def test_too_many_or_no_images_are_refused() -> None:
    for count in (0, MAX_IMAGES + 1):
        assert f"{count} images were sent; send 1 to 8 images of one person" in refusal(Images, [ONE] * count)


def test_the_wrong_one_of_several_images_is_numbered() -> None:
    assert "image 2 of 3: must be a data URI or base64" in refusal(Images, [ONE, "nonsense!", ONE])


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, Fraction(16)), (12.5, Fraction(25, 2)), (30000 / 1001, Fraction(30000, 1001)), (23.976, Fraction(2997, 125))],
)
def test_a_frame_rate_is_the_fraction_that_it_stands_for(fps: float, rate: Fraction) -> None:
    assert exact_rate(fps) == rate


def test_a_spool_of_a_form_can_be_read_as_often_as_needed() -> None:
    spool = spool_of(b"picture")
    assert read(File, spool) == read(File, spool) == b"picture"
    assert isinstance(spool.open(), io.BufferedReader)
