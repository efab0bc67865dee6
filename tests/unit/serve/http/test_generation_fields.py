"""LoRAs, given frames, and sizes that are fitted: what a caller sends is what the model gets."""

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from deployments.wire import LoraChoice
from serve.media.images import cover
from serve.media.samples import jpeg, portrait, stranger
from tests.pictures import decode_image
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_client
from tests.unit.serve.media.make_media import animation

CLIP = np.stack([np.full((48, 64, 3), 10 * number, np.uint8) for number in range(12)])
GIF = animation("gif", CLIP)
"""Twelve frames at ten a second, each of one colour."""


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def errors_of(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {error["pointer"].removeprefix("#/"): error["detail"] for error in response.json()["errors"]}


def test_loras_reach_the_model_by_name_and_scale(client: TestClient, graph: FakeGraph) -> None:
    loras = [{"name": "ink", "scale": 0.8}, {"name": "film"}]
    for path, model, more in (
        ("/wan2.6", graph.wan26, {"prompt": "x"}),
        ("/wan22-i2v", graph.wan22, {"source_image": text(jpeg(portrait()))}),
    ):
        assert client.post(path, json={**more, "loras": loras}).status_code == 200
        assert model.requests[-1].loras == (LoraChoice("ink", 0.8), LoraChoice("film", 1.0))
    form = {"prompt": (None, "x"), "loras": (None, json.dumps(loras))}
    assert client.post("/wan2.6", files=form).status_code == 200
    assert graph.wan26.requests[-1].loras == (LoraChoice("ink", 0.8), LoraChoice("film", 1.0))


def test_loras_that_are_none_are_refused_by_the_name_of_the_field(client: TestClient, graph: FakeGraph) -> None:
    errors = errors_of(client.post("/wan2.6", json={"prompt": "x", "loras": [{"name": "ink", "url": "http://x"}]}))
    assert errors == {"loras": "number 1 has an unknown field, `url`; send `name` and `scale`"}
    assert graph.wan26.requests == []


@pytest.mark.parametrize("most", [0, 2, 20])
def test_as_many_loras_are_accepted_as_the_settings_and_the_documents_say(most: int) -> None:
    """Those of one model are not those of the other."""
    with make_client(FakeGraph(), wan26={"engine": {"max_loras": most}}) as client:
        document, limits = client.get("/openapi.json").json(), client.get("/limits").json()["endpoints"]
        for path, accepted in (("/wan2.6", most), ("/wan22-i2v", 4)):
            for content in document["paths"][path]["post"]["requestBody"]["content"].values():
                assert content["schema"]["properties"]["loras"]["maxItems"] == accepted
            assert limits[path]["max_loras"] == accepted
        loras = [{"name": f"ink{number}"} for number in range(most)]
        assert client.post("/wan2.6", json={"prompt": "x", "loras": loras}).status_code == 200
        errors = errors_of(client.post("/wan2.6", json={"prompt": "x", "loras": [*loras, {"name": "film"}]}))
        assert errors == {"loras": f"{most + 1} LoRAs were sent; send at most {most}"}


def test_the_last_frame_is_cropped_like_the_first(client: TestClient, graph: FakeGraph) -> None:
    first, last = jpeg(portrait()), jpeg(stranger())
    for path, model in (("/wan2.6-i2v", graph.wan26), ("/wan22-i2v", graph.wan22)):
        body = {"prompt": "x", "reference_image": text(first), "last_image": text(last)}
        assert client.post(path, json=body).status_code == 200
        request = model.requests[-1]
        for given, data in ((request.image, first), (request.last_image, last)):
            assert given is not None
            np.testing.assert_array_equal(given, cover(decode_image(data, 10**7), 64, 48))


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("path", ["/wan2.6-i2v", "/wan22-i2v"])
def test_a_video_of_one_frame_has_no_room_for_a_last_image(
    client: TestClient, graph: FakeGraph, path: str, frames: int
) -> None:
    body = {"prompt": "x", "reference_image": text(jpeg(portrait())), "last_image": text(jpeg(stranger()))}
    errors = errors_of(client.post(path, json={**body, "length": frames}))
    assert errors == {
        "last_image": "needs a video of at least 5 frames, and this one has 1: raise `length`, or leave one of them out"
    }
    assert client.post(path, json={**body, "length": 5}).status_code == 200
    assert len(graph.wan26.requests) + len(graph.wan22.requests) == 1


def test_a_source_video_reaches_the_model_at_the_new_rate_and_size(client: TestClient, graph: FakeGraph) -> None:
    body = {"prompt": "x", "source_video": text(GIF), "strength": 0.4, "fps": 10, "length": 9, "width": 32, "height": 32}
    response = client.post("/wan2.6", json=body)
    assert response.status_code == 200, response.text
    request = graph.wan26.requests[-1]
    assert (request.strength, request.lead) == (0.4, None)
    assert request.source is not None
    assert request.source.shape == (9, 32, 32, 3)
    assert np.abs(request.source.mean((1, 2, 3)) - 10 * np.arange(9)).max() < 3


def test_a_video_is_continued_from_its_last_frames(client: TestClient, graph: FakeGraph) -> None:
    body = {"prompt": "x", "source_video": text(GIF), "extend": 3, "fps": 10}
    assert client.post("/wan2.6", json=body).status_code == 200
    request = graph.wan26.requests[-1]
    assert request.source is None
    assert request.lead is not None
    assert request.lead.shape == (3, 48, 64, 3)
    assert np.abs(request.lead.mean((1, 2, 3)) - [90, 100, 110]).max() < 3


SOURCES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "too short": ({"source_video": text(GIF), "length": 33, "fps": 10}, {"source_video": "has 12 frames .* but 33 are needed"}),
    "strength alone": ({"strength": 0.5}, {"strength": "needs a `source_video`"}),
    "extend alone": ({"extend": 3}, {"extend": "needs a `source_video`"}),
    "both": ({"source_video": text(GIF), "extend": 3, "strength": 0.5}, {"strength": "does not go with `extend`"}),
    "nothing to make": ({"source_video": text(GIF), "extend": 9}, {"extend": "less than the number of frames"}),
    "no strength": ({"source_video": text(GIF), "strength": 0}, {"strength": "greater than 0"}),
    "no video": ({"source_video": text(b"no video")}, {"source_video": ""}),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_cannot_be_used_is_refused(client: TestClient, graph: FakeGraph, case: str) -> None:
    fields, expected = SOURCES[case]
    errors = errors_of(client.post("/wan2.6", json={"prompt": "x", **fields}))
    assert errors.keys() == expected.keys()
    for name, message in expected.items():
        assert re.search(message, errors[name]), errors
    assert graph.wan26.requests == []


@pytest.mark.slow
def test_a_video_over_the_limits_is_fitted_where_that_is_set() -> None:
    graph = FakeGraph()
    client = make_client(graph, limits={"oversize": "fit"})
    body = {"prompt": "x", "width": 832, "height": 480, "length": 81, "steps": 50}
    response = client.post("/wan2.6", json=body, headers={"accept": "video/mp4"})
    assert response.status_code == 200, response.text
    assert response.headers["x-adjusted"] == "width=256; height=144; length=33; steps=30"
    request = graph.wan26.requests[-1]
    assert (request.width, request.height, request.num_frames, request.steps) == (256, 144, 33, 30)
    assert "x-adjusted" not in client.post("/wan2.6", json={"prompt": "x"}).headers
    strict = client.post("/wan2.6", json=body, headers={"prefer": "handling=strict"})
    assert {"width", "height", "steps"} <= errors_of(strict).keys()
    refusing = make_client(graph).post("/wan2.6", json=body)
    assert {"width", "height", "steps"} <= errors_of(refusing).keys()


@pytest.mark.parametrize("extend", [33, 40, 80])
def test_a_video_that_was_lowered_below_what_it_continues_says_so(graph: FakeGraph, extend: int) -> None:
    client = make_client(graph, limits={"oversize": "fit"})
    body = {"prompt": "x", "source_video": text(GIF), "extend": extend, "length": 81}
    lowered = "less than the number of frames of the new video, 33, to which it was lowered because no more are accepted"
    (detail,) = errors_of(client.post("/wan2.6", json=body)).values()
    assert lowered in detail
    as_sent = errors_of(client.post("/wan2.6", json={**body, "length": 33}))["extend"]
    assert as_sent.endswith("the new video, 33")
    assert graph.wan26.requests == []
