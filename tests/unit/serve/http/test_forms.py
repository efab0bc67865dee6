"""Every endpoint takes its fields in a form as in JSON, and refuses them with the same words."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http.examples import payload
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.form_parts import ENDPOINTS, parts_of

GENERATING = [name for name in ENDPOINTS if name.startswith("wan")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_form_gives_the_bytes_that_json_gives(client: TestClient, name: str) -> None:
    body = payload(name)
    if name in GENERATING:
        body = {**body, "seed": 11, "width": 80, "cfg": 2.5, "negative_prompt": "caf\u00e9", "length": 5}
    else:
        body = {**body, "faces": "all", "restore_face": False}
    headers = {"accept": "video/mp4, image/png"}
    form = client.post(f"/{name}", files=parts_of(body), headers=headers)
    assert form.status_code == 200, form.text
    assert form.content == client.post(f"/{name}", json=body, headers=headers).content


@pytest.mark.parametrize("name", [name for name in ENDPOINTS if "face" in ENDPOINTS[name].schema.names])
def test_a_field_that_takes_several_files_is_repeated(client: TestClient, graph: FakeGraph, name: str) -> None:
    face = ENDPOINTS[name].schema.names["face"][0]
    body = payload(name)
    several = {**body, face: [body[face]] * 2, "target_face": [body[face]] * 3}
    response = client.post(f"/{name}", files=parts_of(several))
    assert response.status_code == 200, response.text
    assert sorted(graph.swapper.identified) == ["face", "target_face"]
    nine = {**body, face: [body[face]] * 9}
    answers = [client.post(f"/{name}", files=parts_of(nine)), client.post(f"/{name}", json=nine)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["errors"] == answers[1].json()["errors"]


FAULTS: dict[str, dict[str, Any]] = {
    "not a size": {"width": 120},
    "not a number": {"steps": "many", "cfg": "nan"},
    "out of range": {"length": 0, "fps": 1000, "seed": -1},
    "two names that differ": {"length": 5, "num_frames": 9},
    "not a choice": {"acceleration": "warp"},
    "a misspelt field": {"promt": "x", "width": 1},
    "too long": {"prompt": "x" * 5001},
    "an empty prompt": {"prompt": "", "width": 1},
    "no file": {"reference_image": "no base64!", "source_image": "no base64!", "face_image": "no base64!"},
    "a URL": {"reference_image": "http://x/y.png", "source_image": "http://x/y.png", "face_image": "http://x/y.png"},
    "several files": {"reference_image": ["QUJD", "QUJD"], "source_image": ["QUJD", "QUJD"], "width": 1},
    "not an image": {"reference_image": "data:x;base64,QUJD", "source_image": "data:x;base64,QUJD"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", GENERATING)
def test_a_form_is_refused_with_the_words_that_json_gets(client: TestClient, name: str, fault: str) -> None:
    known = {alias for names in ENDPOINTS[name].schema.names.values() for alias in names}
    faulty = {field: value for field, value in FAULTS[fault].items() if field in known or field == "promt"}
    body = {**payload(name), **faulty}
    form, json = client.post(f"/{name}", files=parts_of(body)), client.post(f"/{name}", json=body)
    assert form.status_code == json.status_code
    if json.status_code != 200:  # what is no fault for this endpoint is none in a form either
        assert (form.json()["detail"], form.json()["errors"]) == (json.json()["detail"], json.json()["errors"])
    assert json.status_code == 422 or not set(faulty) - {"prompt", "promt"}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_missing_field_is_named_the_same_way(client: TestClient, name: str) -> None:
    form, json = client.post(f"/{name}", files={"seed": (None, b"1")}), client.post(f"/{name}", json={"seed": 1})
    assert form.status_code == 422
    assert form.json()["errors"] == json.json()["errors"]


@pytest.mark.parametrize("name", [name for name in ENDPOINTS if name != "wan2.6"])
def test_an_empty_file_is_named(client: TestClient, graph: FakeGraph, name: str) -> None:
    body = payload(name)
    for field in (field for field, value in body.items() if str(value).startswith("data:")):
        parts = [(part, ("file", b"") if part == field else content) for part, content in parts_of(body)]
        response = client.post(f"/{name}", files=parts)
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert (error["pointer"], error["detail"]) == (f"#/{field}", "the file is empty; send the complete file")
    assert not graph.wan26.requests
    assert not graph.wan22.requests


def test_fields_that_are_left_empty_have_their_defaults(client: TestClient, graph: FakeGraph) -> None:
    names = ENDPOINTS["wan2.6-i2v-faceswap"].schema.names
    sent = parts_of({**payload("wan2.6-i2v-faceswap"), "seed": 3})
    filled = {name for name, _ in sent}
    empty = [(public[0], (None, b"")) for public in names.values() if public[0] not in filled]
    assert len(empty) > 10
    first, second = (client.post("/wan2.6-i2v-faceswap", files=parts) for parts in (sent, [*sent, *empty]))
    assert second.status_code == 200, second.text
    assert second.content == first.content


def test_unknown_parts_are_ignored_or_refused_as_in_json(client: TestClient) -> None:
    parts = [("prompt", (None, b"x")), ("sampler", (None, b"euler")), ("extra", ("a.bin", b"123"))]
    lenient = client.post("/wan2.6", files=parts)
    assert (lenient.status_code, lenient.headers["x-ignored-fields"]) == (200, "sampler, extra")
    strict = client.post("/wan2.6", files=parts, headers={"prefer": "handling=strict"})
    assert [error["pointer"] for error in strict.json()["errors"]] == ["#/sampler", "#/extra"]
