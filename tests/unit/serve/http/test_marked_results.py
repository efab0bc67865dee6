"""Every endpoint's results are marked, in every format, and as jobs, too."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http.application import make_app
from serve.http.endpoints import make_endpoints
from serve.http.examples import payload
from serve.jobs.desk import Jobs
from serve.provenance.manifest import c2pa_settings
from serve.provenance.marking import Marking
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_manifest
from serve.provenance.statement import COMPOSITE, GENERATED
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph
from tests.unit.serve.http.service import make_client, make_config
from tests.unit.serve.local_jobs import LocalDesk
from tests.unit.serve.provenance.results import signing

CONFIG = make_config()
ENDPOINTS = make_endpoints(CONFIG)
FORMATS = [(endpoint.name, media_type) for endpoint in ENDPOINTS for media_type in endpoint.media_types]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service that signs, over a fake graph."""
    folder: Path = tmp_path_factory.mktemp("certificate")
    graph = FakeGraph()
    marking = Marking(signing(folder, model=True), demo=True, processes=2)
    asyncio.run(marking.start())
    desk = LocalDesk(CONFIG, graph, marking=marking)
    app = make_app(CONFIG, Jobs(desk, desk.store, desk.files), graph.handles(), graph.readiness)
    with TestClient(app) as client:
        yield client


def check(response: Any, *, swapped: bool) -> None:
    """Assert that an answer carries valid marks of the right kind."""
    source_type = COMPOSITE if swapped else GENERATED
    assert response.headers["x-provenance"].startswith("metadata, c2pa;certificate=test")
    properties = find_properties(response.content)
    assert properties is not None
    assert properties.values["digital_source_type"] == source_type
    manifest = read_manifest(response.content, c2pa_settings())
    assert manifest is not None
    assert (manifest["state"], manifest["failures"]) == ("valid", [])
    assert manifest["digital_source_types"] == [source_type]
    assert manifest["actions"] == (["c2pa.opened", "c2pa.edited"] if swapped else ["c2pa.created"])
    assert manifest["request_id"] == response.headers["x-request-id"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "media_type"), FORMATS)
def test_each_result_is_signed_and_says_how_it_was_made(client: TestClient, name: str, media_type: str) -> None:
    response = client.post(f"/{name}", json=payload(name), headers={"Accept": media_type})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == media_type
    check(response, swapped=name in ("image-faceswap", "batch-video-faceswap"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field", "media_type"),
    [
        ("image-faceswap", "source_image", "image/jpeg"),
        ("image-faceswap", "source_image", "image/png"),
        ("batch-video-faceswap", "source_video", "video/mp4"),
        ("batch-video-faceswap", "source_video", "image/webp"),
    ],
)
def test_a_swap_of_a_swap_keeps_both_manifests(client: TestClient, name: str, field: str, media_type: str) -> None:
    body, accept = payload(name), {"Accept": media_type}
    first = client.post(f"/{name}", json=body, headers=accept)
    sent = {**body, field: base64.b64encode(first.content).decode()}
    second = client.post(f"/{name}", json=sent, headers={**accept, "X-Request-Id": "second"})
    assert second.status_code == 200, second.text
    check(second, swapped=True)
    assert "sources=kept" in second.headers["x-provenance"]
    manifest = read_manifest(second.content, c2pa_settings())
    assert manifest is not None
    assert manifest["ingredients"] == 1
    assert [(one["request_id"], one["ingredients"]) for one in manifest["chain"]] == [(first.headers["x-request-id"], 1)]
    properties = find_properties(second.content)
    assert properties is not None
    assert properties.ingredients == ({"digital_source_type": COMPOSITE},)


def test_results_of_jobs_are_marked(client: TestClient) -> None:
    accepted = client.post("/wan2.6", json={"prompt": "a cat", "length": 5}, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    job = accepted.json()
    result = client.get(f"/jobs/{job['id']}/result?wait=600")
    assert result.status_code == 200, result.text
    assert result.headers["x-provenance"].startswith("metadata, c2pa;certificate=test")
    manifest = read_manifest(result.content, c2pa_settings())
    assert manifest is not None
    assert manifest["state"] == "valid"


@pytest.mark.slow
def test_a_film_without_a_face_is_not_said_to_be_made_by_ai() -> None:
    client = make_client(FakeGraph(swapper=FakeFaceSwapper(faces=())), provenance={"metadata": {"enabled": True}})
    response = client.post("/batch-video-faceswap", json=payload("batch-video-faceswap"))
    assert response.status_code == 200, response.text
    assert response.headers["x-frames-swapped"] == "0"
    properties = find_properties(response.content)
    assert properties is not None
    assert properties.values.keys() == {"software"}
