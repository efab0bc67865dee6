"""The requests that pipelines take."""

from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from serve.pipelines.requests import SwapFields, SwapImage, SwapVideo
from tests.unit.serve.pipelines.request_builders import video_request


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (4, 1), (5, 5), (8, 5), (33, 33), (36, 33)])
def test_the_number_of_frames_is_rounded_down_to_what_wan_makes(asked: int, made: int) -> None:
    assert video_request(num_frames=asked).frames == made


def test_the_rate_of_a_generated_video_is_exact() -> None:
    assert video_request(fps=30000 / 1001).rate == Fraction(30000, 1001)


def test_a_video_that_is_sent_keeps_its_own_rate_unless_another_is_asked_for() -> None:
    request = SwapVideo.model_validate({"source": b"video", "face": b"face"})
    assert request.rate is None
    assert request.model_copy(update={"fps": 12.5}).rate == Fraction(25, 2)


def test_a_swap_replaces_the_largest_face_and_restores_it_by_default() -> None:
    fields = SwapImage.model_validate({"source": b"image", "face": b"face"})
    assert (fields.faces, fields.face_index, fields.target_face) == ("largest", 0, None)
    assert (fields.restore_face, fields.face_restore_visibility, fields.codeformer_weight) == (True, 1.0, 0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("faces", "both"),
        ("face_index", -1),
        ("face_index", 1000),
        ("face_restore_visibility", 1.5),
        ("codeformer_weight", 2),
        ("restore_face", "maybe"),
        ("sampler", "euler"),
    ],
)
def test_a_wrong_or_unknown_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        SwapFields.model_validate({field: value})
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


def test_a_request_does_not_change_on_its_way() -> None:
    request = video_request()
    with pytest.raises(ValidationError, match="frozen"):
        request.prompt = "a dog"  # type: ignore[misc]
    assert request.prompt == "a cat"
