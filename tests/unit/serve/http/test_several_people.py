"""Several people in one request, through every endpoint that swaps faces, as JSON and as a form."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from deployments.wire import Analysis, Face, Image, Reference
from serve.http.examples import payload
from serve.media.samples import jpeg
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph, make_face
from tests.unit.serve.http.form_parts import ENDPOINTS, parts_of
from tests.unit.serve.http.service import make_client

SWAPPING = [name for name in ENDPOINTS if "face" in ENDPOINTS[name].schema.names]
PEOPLE = tuple(replace(make_face((20 * i, 10, 20 * i + 15, 30)), embedding=np.eye(8, dtype=np.float32)[i]) for i in range(3))


class Crowd(FakeFaceSwapper):
    """Shows three people, and takes a picture's grey for the number of the person in it."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[int, int]] = []
        """Per frame: the number of the person, and the grey of the reference that replaces them."""

    async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
        reference = await super().identify(images, field)
        who = round(float(images[0].mean()) / 20) - 1
        return replace(reference, face=replace(make_face(), embedding=np.eye(8, dtype=np.float32)[who % 8]))

    async def analyse(self, frames: Image, origin: object = None) -> Analysis:
        return Analysis(tuple(PEOPLE if frame.any() else () for frame in frames), self.seconds, "fake")

    async def swap(
        self, chunk: Any, faces: tuple[tuple[Face, ...], ...], reference: Any, options: Any, origin: object = None
    ) -> Any:
        references = reference if isinstance(reference, tuple) else (reference,)
        for found in faces:
            greys = [round(float(references[face.source].pixels.mean()) / 20) * 20 for face in found]
            self.given.append({int(face.embedding.argmax()): grey for face, grey in zip(found, greys, strict=True)})
        return await super().swap(chunk, faces, references[0], options)


def grey(level: int) -> str:
    data = base64.b64encode(jpeg(np.full((64, 64, 3), level, np.uint8))).decode()
    return f"data:image/jpeg;base64,{data}"


def person(who: int) -> str:
    return grey(20 * (who + 1))


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def client(crowd: Crowd) -> TestClient:
    return make_client(FakeGraph(swapper=crowd))


def send(client: TestClient, name: str, *, form: bool, **fields: Any) -> Any:
    face = ENDPOINTS[name].schema.names["face"][0]
    body = {key: value for key, value in payload(name).items() if key != face or face in fields} | fields
    if not form:
        return client.post(f"/{name}", json=body)
    pairs = body.pop("pairs", None)
    parts = parts_of(body)
    if pairs is not None:
        parts.append(("pairs", (None, json.dumps(pairs).encode())))
    return client.post(f"/{name}", files=parts)


@pytest.mark.slow
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("name", SWAPPING)
def test_each_person_gets_their_own_face(client: TestClient, crowd: Crowd, name: str, form: bool) -> None:
    face = ENDPOINTS[name].schema.names["face"][0]
    pairs = [{"target_face": person(2), "reference_image": grey(200)}, {"target_face": person(0), "reference_image": grey(240)}]
    response = send(client, name, form=form, faces="map", pairs=pairs)
    assert response.status_code == 200, response.text
    assert crowd.given
    assert all(given == {2: 200, 0: 240} for given in crowd.given)
    crowd.given.clear()
    lists = {face: [grey(200), grey(240)], "target_face": [person(2), person(0)]}
    response = send(client, name, form=form, faces="map", **lists)
    assert response.status_code == 200, response.text
    assert all(given == {2: 200, 0: 240} for given in crowd.given)


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("name", SWAPPING)
def test_without_targets_people_are_counted_from_the_left(client: TestClient, crowd: Crowd, name: str, form: bool) -> None:
    face = ENDPOINTS[name].schema.names["face"][0]
    response = send(client, name, form=form, faces="map", **{face: [grey(200), grey(240)]})
    assert response.status_code == 200, response.text
    assert crowd.given
    assert all(given == {0: 200, 1: 240} for given in crowd.given)


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"pairs": [{"target_face": "data:,"}]}, "#/pairs", "has no `reference_image`"),
        ({"pairs": "nonsense"}, "#/pairs", "must be an array of"),
        ({"pairs": [{"reference_image": "http://x/y.png"}]}, "#/pairs", "pair 1 of 1"),
        ({"pairs": [{"reference_image": grey(200)}], "faces": "all"}, "#/pairs", "goes with `faces: map`"),
        ({"pairs": [{"reference_image": grey(0)}]}, "#/pairs", "pair 1: no face"),
        (
            {"reference_image": [grey(200)], "target_face": [person(0), person(1)], "faces": "map"},
            "#/target_face",
            "2 people for 1",
        ),
        ({"reference_image": [grey(200)], "target_face": [person(6)], "faces": "map"}, "#/target_face", "none of the 3 faces"),
    ],
)
def test_a_wrong_pair_is_named(client: TestClient, fields: dict[str, Any], pointer: str, words: str, form: bool) -> None:
    response = send(client, "image-faceswap", form=form, **fields)
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    assert (error["pointer"], words in error["detail"]) == (pointer, True), error


def test_uncertain_faces_are_counted_and_left_alone(crowd: Crowd, client: TestClient) -> None:
    async def analyse(frames: Image, origin: object = None) -> Analysis:
        found = (replace(PEOPLE[0], certain=False), PEOPLE[1])
        return Analysis(tuple(found for _ in frames), 0.1, "fake")

    crowd.analyse = analyse  # type: ignore[method-assign]
    response = send(client, "image-faceswap", form=False, faces="all", reference_image=grey(200))
    assert response.status_code == 200, response.text
    assert response.headers["x-faces-uncertain"] == "1"
    assert response.headers["x-faces-found"] == "2"
    assert [set(given) for given in crowd.given] == [{1}]


def test_regions_need_a_parser(client: TestClient) -> None:
    response = send(client, "image-faceswap", form=True, reference_image=grey(200), mask_regions="nose")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/mask_regions"
    assert "models.faces.occlusion" in response.json()["errors"][0]["detail"]
