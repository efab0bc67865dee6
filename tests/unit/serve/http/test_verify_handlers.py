"""`/verify` says what marks a file carries, to whom it may, as often as it may, and never fails."""

import asyncio
import base64
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http.callers.admission import Admission
from serve.http.callers.quotas import Quotas
from serve.http.verify_handlers import VerifyHandlers
from serve.media.images import cover, encode_image
from serve.media.samples import stranger
from serve.media.spool import Media, read_media
from serve.provenance.marking import Marking
from serve.provenance.statement import GENERATED, Label
from serve.provenance.watermark import PUBLISHED_SECRET, Payload, Watermark
from serve.provenance.xmp import aigc_json, write_packet
from serve.provenance_settings import ProvenanceSettings
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import until
from tests.unit.serve.http.service import make_client, make_config
from tests.unit.serve.jobs.fake_jobs import FakeJobs
from tests.unit.serve.provenance.results import KINDS, PICTURE, REQUEST_ID, STATEMENT, flipped, results, signing

PLAIN = encode_image(PICTURE, "image/jpeg")
MANY = {"verify": {"per_minute": 1000}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A marked and signed file of each kind of result."""

    async def make() -> dict[str, bytes]:
        marking = Marking(signing(tmp_path_factory.mktemp("certificate")), demo=True, processes=1)
        await marking.start()
        made: dict[str, tuple[str, Media]] = results()
        marked = {kind: (await marking.mark(made[kind][1], made[kind][0], STATEMENT)).media for kind in KINDS}
        marking.close()
        return {kind: read_media(media) for kind, media in marked.items()}

    return asyncio.run(make())


@pytest.fixture
def client() -> TestClient:
    return make_client(FakeGraph(), provenance=MANY)


def send(client: TestClient, data: bytes, **options: Any) -> Any:
    return client.post("/verify", files={"file": ("picture", data)}, **options)


def test_what_this_service_signed_is_recognised_in_each_format(client: TestClient, files: dict[str, bytes]) -> None:
    for kind, data in files.items():
        response = send(client, data)
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        report = response.json()
        assert (report["made_by_ai"], report["says_so"]) == (True, ["metadata", "c2pa"]), kind
        assert report["c2pa"]["state"] == "valid"
        assert report["c2pa"]["request_id"] == REQUEST_ID
        assert report["c2pa"]["digital_source_types"] == [GENERATED]
        assert report["metadata"]["digital_source_type"] == GENERATED
        assert "test certificate" in report["summary"]


def test_a_change_is_found(client: TestClient, files: dict[str, bytes]) -> None:
    data = files["jpeg"]
    report = send(client, flipped(data, len(data) - 40)).json()
    assert report["c2pa"]["state"] == "invalid"
    assert report["c2pa"]["failures"] == ["assertion.dataHash.mismatch"]
    assert report["says_so"] == ["metadata"], "a manifest that is not valid says nothing"
    assert "changed after signing" in report["summary"]


def test_json_and_forms_say_the_same(client: TestClient, files: dict[str, bytes]) -> None:
    text = base64.b64encode(files["png"]).decode()
    report = send(client, files["png"]).json()
    assert client.post("/verify", json={"file": text}).json() == report
    assert client.post("/verify", json={"file": f"data:image/png;base64,{text}"}).json() == report


def test_a_file_without_marks_is_not_said_to_be_made_by_hand(client: TestClient) -> None:
    report = send(client, PLAIN).json()
    assert report == {
        "summary": "No mark was found. That does not say how the file was made: marks can be lost.",
        "made_by_ai": None,
        "says_so": [],
        "media_type": "image/jpeg",
        "metadata": None,
        "aigc": None,
        "c2pa": None,
        "watermark": None,
    }


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "`file` is required"),
        ({"file": None}, "`file` is required"),
        ({"file": ""}, "`file`: "),
        ({"file": 5}, "`file`: must be a string"),
        ({"file": "%%%"}, "`file`: "),
    ],
)
def test_what_is_no_file_is_refused_by_name(client: TestClient, body: Any, detail: str) -> None:
    response = client.post("/verify", json=body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(detail)
    assert response.json()["errors"][0]["pointer"] == "#/file"


@pytest.mark.slow
def test_files_that_were_changed_at_random_cause_no_fault(client: TestClient, files: dict[str, bytes]) -> None:
    """``benchmarks/provenance.py`` sends a thousand of them."""
    drawn = random.Random(23)
    for kind in KINDS:
        for _ in range(6):
            response = send(client, mutated(files[kind], drawn))
            assert response.status_code in (200, 413, 422), response.text


def mutated(data: bytes, drawn: random.Random) -> bytes:
    """Return a file with some bytes changed, or with its end cut off."""
    content = bytearray(data)
    for _ in range(drawn.choice([1, 5, 50])):
        content[drawn.randrange(len(content))] = drawn.randrange(256)
    return bytes(content[: drawn.choice([len(content), drawn.randrange(1, len(content))])])


@pytest.mark.parametrize(
    "text",
    [2900 * "[", '{"Label":"\\ud800"}', '{"\\u001b[2J":"1","Label":"1"}', "{}"],
    ids=["depth", "surrogate", "terminal", "empty"],
)
def test_no_text_of_a_label_causes_a_fault(client: TestClient, text: str) -> None:
    label = Label(producer="Example", number="1")
    packet = write_packet(STATEMENT, request=False, label=label, described=False)
    response = send(client, PLAIN + packet.replace(aigc_json(label).encode(), text.encode()))
    assert response.status_code == 200, response.text
    assert all(c.isprintable() for name, value in (response.json()["aigc"] or {}).items() for c in name + value)
    assert response.json()["made_by_ai"] is (True if '"Label":"1"' in text else None)


@pytest.mark.slow
def test_a_caller_may_verify_so_many_files_a_minute_apart_from_jobs() -> None:
    client = make_client(FakeGraph(), provenance={"verify": {"per_minute": 2}}, jobs={"requests_per_minute": 1})
    first = send(client, PLAIN)
    assert (first.status_code, first.headers["ratelimit-policy"]) == (200, '"requests";q=2;w=60')
    last = first
    for _ in range(4):  # a new minute may begin meanwhile
        last = send(client, PLAIN)
        if last.status_code == 429:
            break
    assert last.status_code == 429
    assert int(last.headers["retry-after"]) <= 60
    assert client.post("/wan2.6", json={"prompt": "a cat"}).status_code == 200


@dataclass
class HeldVerifier:
    """Holds every file until ``gate`` is set; ``files`` are those that it has begun on."""

    files: list[Media] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def verify(self, media: Media) -> dict[str, Any]:
        """Return an empty report."""
        self.files.append(media)
        await self.gate.wait()
        return {}


async def test_callers_take_turns_and_none_has_more_than_half() -> None:
    verifier = HeldVerifier()
    handlers = VerifyHandlers(verifier, Quotas(FakeJobs(), per_minute=None), Admission(10), concurrency=2)  # type: ignore[arg-type]
    greedy = [asyncio.ensure_future(handlers._report(b"greedy", "one")) for _ in range(3)]
    await until(lambda: len(verifier.files) == 1)
    modest = asyncio.ensure_future(handlers._report(b"modest", "two"))
    await until(lambda: len(verifier.files) == 2)
    assert verifier.files == [b"greedy", b"modest"]
    verifier.gate.set()
    await asyncio.gather(*greedy, modest)
    assert len(verifier.files) == 4


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True])
def test_it_needs_a_key_unless_it_is_open(tmp_path: Path, is_open: bool) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {hashlib.sha256(b'secret').hexdigest()}\n")
    client = make_client(FakeGraph(), provenance={"verify": {"open": is_open}}, ingress={"api_keys": keys})
    assert send(client, PLAIN).status_code == (200 if is_open else 401)
    assert send(client, PLAIN, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert send(client, PLAIN, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/verify").status_code == 200
    assert client.post("/wan2.6", json={"prompt": "a cat"}).status_code == 401
    operation = client.get("/openapi.json").json()["paths"]["/verify"]["post"]
    assert (operation.get("security") == []) is is_open


def test_the_page_sends_the_file_to_where_it_comes_from(client: TestClient) -> None:
    page = client.get("/verify")
    assert page.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    (script,) = page.text.split("<script>")[1:]
    digest = base64.b64encode(hashlib.sha256(script.partition("</script>")[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.headers["content-security-policy"]


@pytest.mark.slow
def test_the_watermark_of_the_service_is_found_where_nothing_else_is_left() -> None:
    client = make_client(FakeGraph(), provenance={**MANY, "watermark": {"enabled": True}})
    frames = cover(stranger(), 512, 384)[None]
    marked = encode_image(Watermark(Payload(3, 77), PUBLISHED_SECRET).mark(frames)[0], "image/jpeg")
    report = send(client, marked).json()
    assert (report["made_by_ai"], report["says_so"]) == (True, ["watermark"])
    assert (report["watermark"]["found"], report["watermark"]["payload"]) == (True, "3-000004d")
    assert report["watermark"]["payloads"] == ["3-000004d"]
    assert report["watermark"]["false_positive_rate"] <= 1e-6
    plain = send(client, encode_image(frames[0], "image/jpeg")).json()
    assert (plain["made_by_ai"], plain["watermark"]) == (None, {"found": False})
    text = send(client, b"neither a picture nor a video").json()
    assert text["watermark"]["found"] is False
    assert "not a video in a supported format" in text["watermark"]["reason"]


def test_the_watermarks_of_earlier_secrets_are_found(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).write_bytes(f"the secret named {name}".encode())
    keys = {"enabled": True, "key": tmp_path / "new", "keys": [tmp_path / "old"]}
    frames = cover(stranger(), 512, 384)[None]
    marked = encode_image(Watermark(Payload(3, 77), b"the secret named old").mark(frames)[0], "image/jpeg")
    report = send(make_client(FakeGraph(), provenance={**MANY, "watermark": keys}), marked).json()
    assert (report["watermark"]["found"], report["watermark"]["payload"]) == (True, "3-000004d")


def test_limits_say_what_is_done() -> None:
    settings = ProvenanceSettings.model_validate({"aigc": {"enabled": True, "producer": "Example"}, "verify": {"open": True}})
    client = make_client(FakeGraph(), provenance=settings.model_dump())
    assert make_config().models == "demo"
    assert client.get("/limits").json()["provenance"] == {
        "metadata": True,
        "c2pa": {"certificate": "test"},
        "sources": {"c2pa": "kept", "metadata": "kept"},
        "watermark": True,
        "aigc": {"metadata": True, "visible": False},
        "verify": {"needs_key": False, "per_minute": 20},
    }


@pytest.mark.parametrize(
    ("settings", "demo", "sources"),
    [
        ({}, False, {"c2pa": "refused", "metadata": "kept"}),
        ({"c2pa": {"certificate": "a", "private_key": "b"}}, False, {"c2pa": "kept", "metadata": "kept"}),
        ({"c2pa": {"enabled": False}, "metadata": {"enabled": False}}, True, {"c2pa": "refused", "metadata": "refused"}),
    ],
)
def test_limits_say_which_sources_are_refused(settings: dict[str, Any], demo: bool, sources: dict[str, str]) -> None:
    assert ProvenanceSettings.model_validate(settings).published(demo=demo)["sources"] == sources
