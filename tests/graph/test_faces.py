"""The changed pixels show whose face was swapped: in a group, through gaps and over cuts."""

from collections.abc import Sequence
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from deployments.faces.analysis import OpenCVAnalyser
from deployments.wire import Face, Image
from serve.media.samples import data_uri, group, jpeg, pan, portrait, stranger
from tests.graph.conftest import Service
from tests.graph.films import film
from tests.graph.frames import frames_of
from tests.pictures import decode_image

pytestmark = pytest.mark.graph


@pytest.fixture(scope="module")
def people(analyser: OpenCVAnalyser) -> list[Face]:
    """The six people of the group image, from left to right."""
    return sorted(analyser.faces([group()])[0], key=lambda face: float(face.box[0] + face.box[2]))


def changed(people: Sequence[Face], result: Image) -> list[int]:
    """Return which faces of the group changed in their middle, by more than JPEG changes them."""
    difference = np.abs(result.astype(int) - group()).mean(axis=2)
    found = []
    for i, face in enumerate(people):
        x, y = (face.landmarks.mean(axis=0)).astype(int)
        if difference[y - 12 : y + 12, x - 12 : x + 12].mean() > 6:
            found.append(i)
    return found


def body(**fields: Any) -> dict[str, Any]:
    return {
        "source_image": data_uri(jpeg(group()), "image/jpeg"),
        "reference_image": data_uri(jpeg(portrait()), "image/jpeg"),
        **fields,
    }


def swapped(service: Service, http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(f"{service.url}/image-faceswap", json=body(**fields), headers={"Accept": "image/png"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"faces": "all"}, [0, 1, 2, 3, 4, 5]),
        ({"faces": "right"}, [5]),
        ({"faces": "index", "face_index": 2}, [2]),
    ],
)
def test_the_faces_that_were_asked_for_are_swapped_and_no_others(
    service: Service,
    http: httpx.Client,
    people: list[Face],
    fields: dict[str, Any],
    expected: list[int],
) -> None:
    response = swapped(service, http, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["X-Faces-Found"] == "6"
    assert changed(people, decode_image(response.content, 10**7)) == expected


def test_the_person_in_target_face_is_swapped_and_somebody_absent_is_a_problem(
    service: Service, http: httpx.Client, people: list[Face]
) -> None:
    """They are found by a flipped, smaller image of theirs, a JPEG of quality 40.

    tests/engines/faces/test_tracking.py looks for each of the six.
    """
    left, top, right, bottom = people[2].box.astype(int)
    cut = group()[max(0, top - 30) : bottom + 30, max(0, left - 30) : right + 30][:, ::-1]
    poor = cv2.resize(cut, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    response = swapped(service, http, target_face=data_uri(jpeg(poor, 40), "image/jpeg"))
    assert changed(people, decode_image(response.content, 10**7)) == [2]
    absent = swapped(service, http, target_face=data_uri(jpeg(portrait()), "image/jpeg"))
    assert absent.status_code == 422
    (error,) = absent.json()["errors"]
    assert error["pointer"] == "#/target_face"
    assert "none of the 6 faces" in error["detail"]


def test_an_image_of_a_person_without_a_face_is_named_by_its_number(service: Service, http: httpx.Client) -> None:
    face, wall = data_uri(jpeg(portrait()), "image/jpeg"), data_uri(jpeg(np.full((90, 90, 3), 120, np.uint8)), "image/jpeg")
    response = swapped(service, http, reference_image=[face, wall])
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    assert error["pointer"] == "#/reference_image"
    assert error["detail"].startswith("image 2 of 2: no face found")


def test_gaps_are_filled_and_turned_heads_and_cuts_are_left_alone(
    service: Service,
    http: httpx.Client,
    analyser: OpenCVAnalyser,
) -> None:
    """The video shows one person, a cut and another person.

    The first face is hidden for five frames and later gone; the second one is absent at first.
    """
    first, second = (
        pan(stranger(), count=40, width=192, height=224).copy(),
        pan(portrait(), count=16, width=192, height=224).copy(),
    )
    wall = np.full((224, 192, 3), 128, np.uint8)
    for frame in first[10:15]:
        left, top, right, bottom = analyser.faces([frame])[0][0].box.astype(int)
        frame[top:bottom, left:right] = 90
    first[26:] = wall
    second[:2] = wall[:, ::-1] // 2
    source = [*first, *second]
    hidden, away, cut = range(10, 15), range(26, 40), range(40, 42)
    blank = [i for i, faces in enumerate(analyser.faces(np.stack(source))) if not faces]
    assert blank == [*hidden, *away, *cut], "the film does not show what this test is about"
    # Neither person has this face, so a swap changes many pixels.
    reference = data_uri(jpeg(group()), "image/jpeg")
    request = {"source_video": film(source), "reference_image": reference}
    response = http.post(f"{service.url}/batch-video-faceswap", json=request)
    assert response.status_code == 200, response.text
    result = frames_of(response.content)
    assert len(result) == len(source)
    assert response.headers["X-Frames-Swapped"] == str(len(source) - len(away) - len(cut))
    difference = [float(np.abs(one.astype(int) - other).mean()) for one, other in zip(result, source, strict=True)]
    untouched = max(difference[i] for i in (*away, *cut))
    assert untouched < 3, "only what H.264 changes"
    assert min(difference[i] for i in range(len(source)) if i not in (*away, *cut)) > 2 * untouched
