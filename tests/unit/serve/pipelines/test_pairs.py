"""Several people in one request: how the pairs are read, and what becomes of them."""

from typing import Any

import pytest
from pydantic import ValidationError

from deployments.wire import SwapOptions
from serve.jobs.request import JobRequest, read_request
from serve.pipelines.fields import MAX_PAIRS
from serve.pipelines.requests import SwapImage

FACES = [b"new 0", b"new 1", b"new 2"]
PEOPLE = [b"old 0", b"old 1", b"old 2"]
PAIRS = [{"reference_image": new, "target_face": old} for new, old in zip(FACES, PEOPLE, strict=True)]


def request(**fields: Any) -> SwapImage:
    return SwapImage.model_validate({"source": b"picture", **fields})


def people_of(swap: SwapImage) -> list[tuple[tuple[bytes, ...], tuple[bytes, ...] | None]]:
    """Return the images of each new face, and those of the person who is replaced."""
    flat = [data for new, old in swap.pairs or () for data in (*new, *old)]
    fields: dict[str, Any] = {"face": swap.face, "target_face": swap.target_face, "pairs": flat}
    people = []
    for part in swap.parts:
        target = None if part.target is None else tuple(fields[part.target_field][part.target])
        people.append((tuple(fields[part.face_field][part.face]), target))
    return people


def test_pairs_and_lists_mean_the_same() -> None:
    expected = [((new,), (old,)) for new, old in zip(FACES, PEOPLE, strict=True)]
    for swap in (request(pairs=PAIRS), request(faces="map", face=FACES, target_face=PEOPLE)):
        assert swap.faces == "map"
        assert people_of(swap) == expected
        assert swap.contradictions() == []


def test_without_targets_people_are_counted_from_the_left() -> None:
    for swap in (request(pairs=[{"reference_image": new} for new in FACES]), request(faces="map", face=FACES)):
        assert people_of(swap) == [((new,), None) for new in FACES]


def test_a_pair_takes_several_images_of_each_person() -> None:
    swap = request(pairs=[{"reference_image": FACES[:2], "target_face": PEOPLE[:2]}, PAIRS[2]])
    assert people_of(swap) == [(tuple(FACES[:2]), tuple(PEOPLE[:2])), ((FACES[2],), (PEOPLE[2],))]
    assert [part.name for part in swap.parts] == ["pair 1", "pair 2"]


def test_other_choices_average_all_images_of_one_person() -> None:
    assert people_of(request(face=FACES, target_face=PEOPLE)) == [(tuple(FACES), tuple(PEOPLE))]
    assert people_of(request(face=FACES)) == [(tuple(FACES), None)]


def test_a_stored_request_has_its_pairs() -> None:
    swap = request(pairs=PAIRS, mask_padding=0.1, mask_regions=["nose"], face_blend=0.5)
    job = JobRequest(endpoint="image-faceswap", model="face-swapper", request=swap, sent_as={})
    assert read_request(job.write()).request == swap
    assert swap.options == SwapOptions(blend=0.5, padding=(0.1,) * 4, regions=("nose",))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("no JSON", "must be an array of objects, in a form as JSON text"),
        ([], "must be an array of 1 to 8 objects"),
        ([{"reference_image": b"x"}] * (MAX_PAIRS + 1), "must be an array of 1 to 8 objects"),
        (["x"], "pair 1 of 1: must be an object"),
        ([{"target_face": b"x"}], "pair 1 of 1: has no `reference_image`"),
        ([PAIRS[0], {"reference_image": b"x", "target": b"y"}], "pair 2 of 2: unknown field `target`"),
        ([{"reference_image": [b"x"] * 9}], "pair 1 of 1: 9 images were sent"),
        ([{"reference_image": [b"x"] * 8, "target_face": [b"x"] * 8}] * 3, "48 images were sent in all pairs; send at most 32"),
    ],
)
def test_wrong_pairs_are_named(pairs: Any, message: str) -> None:
    with pytest.raises(ValidationError, match="pairs") as refused:
        request(pairs=pairs)
    (error,) = refused.value.errors()
    assert error["loc"] == ("pairs",)
    assert message in error["msg"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"pairs": PAIRS, "faces": "all"}, "pairs"),
        ({"pairs": PAIRS, "target_face": b"x"}, "target_face"),
        ({"pairs": [PAIRS[0], {"reference_image": b"x"}]}, "pairs"),
        ({"faces": "map", "face": FACES, "target_face": PEOPLE[:2]}, "target_face"),
    ],
)
def test_contradictions_are_named(fields: dict[str, Any], field: str) -> None:
    ((name, detail),) = request(**fields).contradictions()
    assert name == field
    assert detail


@pytest.mark.parametrize("value", [0.1, "0.1", [0.1, 0.1, 0.1, 0.1], "0.1, 0.1,0.1,0.1", "[0.1, 0.1, 0.1, 0.1]"])
def test_padding_is_one_number_or_four(value: Any) -> None:
    assert request(face=FACES, mask_padding=value).mask_padding == (0.1,) * 4


@pytest.mark.parametrize("value", [0.5, -0.1, [0.1, 0.1], "wide", True, float("nan"), [[0.1]] * 4])
def test_wrong_padding_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="mask_padding"):
        request(face=FACES, mask_padding=value)


def test_regions_are_names_with_commas_in_a_form() -> None:
    assert request(face=FACES, mask_regions="nose, mouth").mask_regions == ("nose", "mouth")
    with pytest.raises(ValidationError, match="mask_regions"):
        request(face=FACES, mask_regions=["ears"])


@pytest.mark.parametrize("value", ["", " ", 3, {}, True])
@pytest.mark.parametrize("field", ["mask_regions", "pairs"])
def test_what_is_no_list_is_told_from_a_list_with_a_wrong_item(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match="must be an array of"):
        request(face=FACES, **{field: value})
