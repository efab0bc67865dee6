"""Bad input over HTTP: each answer is a problem that names the field and the remedy, and nothing is left behind."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from serve.http.examples import payload
from serve.media.samples import clip, data_uri, jpeg, portrait, stranger
from tests.graph.conftest import Service, wait_until

pytestmark = pytest.mark.graph
FACE = payload("wan2.6-i2v")["reference_image"]


def bomb() -> bytes:
    """A PNG of a few kilobytes that claims, and would decode to, 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def uri(data: bytes) -> str:
    return data_uri(data, "image/jpeg")


NOISE = jpeg(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    # path, body, pointer, what the detail says
    ("wan2.6", {}, "#/prompt", "`prompt` is required"),
    ("wan2.6", {"prompt": None}, "#/prompt", "`prompt` is required"),
    ("wan2.6", {"prompt": "x", "width": 833}, "#/width", "multiple of 16"),
    ("wan2.6", {"prompt": "x", "width": 120}, "#/width", "nearest valid value is 128"),
    ("wan2.6", {"prompt": "x", "length": 0}, "#/length", "greater than or equal to 1"),
    ("wan2.6", {"prompt": "x", "num_frames": 38}, "#/num_frames", "at most 33"),
    ("wan2.6", {"prompt": "x", "length": 5, "num_frames": 9}, "#/num_frames", "differs"),
    ("wan2.6", {"prompt": "x", "cfg": 1e9}, "#/cfg", "less than or equal to 20"),
    ("wan2.6", {"prompt": "x", "steps": "many"}, "#/steps", "integer"),
    ("wan2.6", {"prompt": "x" * 100_000}, "#/prompt", "5000"),
    ("wan2.6", {"prompt": "word " * 600}, "#/prompt", "512"),
    ("wan2.6-i2v", {"prompt": "x"}, "#/reference_image", "`reference_image` is required"),
    (
        "wan2.6-i2v",
        {"prompt": "x", "reference_image": "https://example.org/a.jpg"},
        "#/reference_image",
        "URLs are not fetched",
    ),
    ("wan2.6-i2v", {"prompt": "x", "reference_image": "%%%"}, "#/reference_image", "base64"),
    ("wan2.6-i2v", {"prompt": "x", "reference_image": uri(b"hello there")}, "#/reference_image", "JPEG, PNG or WebP"),
    ("wan22-i2v", {"reference_image": uri(jpeg(portrait())[:-2000])}, "#/reference_image", "truncated"),
    (
        "wan2.6-i2v-faceswap",
        {"prompt": "x", "reference_image": FACE, "reference_face": uri(NOISE)},
        "#/reference_face",
        "no face",
    ),
    ("wan22-i2v-faceswap", {"source_image": FACE, "reference_image": uri(NOISE)}, "#/reference_image", "no face"),
    ("image-faceswap", {"source_image": uri(NOISE), "reference_image": FACE}, "#/source_image", "no face"),
    ("image-faceswap", {"source_image": FACE, "reference_image": uri(NOISE)}, "#/reference_image", "no face"),
    ("image-faceswap", {**payload("image-faceswap"), "codeformer_weight": 2}, "#/codeformer_weight", "1"),
    (
        "batch-video-faceswap",
        {"source_video": uri(clip(stranger())[:9000]), "reference_image": FACE},
        "#/source_video",
        "truncated",
    ),
    (
        "batch-video-faceswap",
        {"source_video": uri(NOISE), "reference_image": FACE, "require_face": True},
        "#/source_video",
        "no frame",
    ),
    ("batch-video-faceswap", {**payload("batch-video-faceswap"), "fps": 1e6}, "#/fps", "120"),
]


@pytest.mark.parametrize(("path", "body", "pointer", "says"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_field_is_named(
    service: Service, http: httpx.Client, path: str, body: dict[str, Any], pointer: str, says: str
) -> None:
    response = http.post(f"{service.url}/{path}", json=body)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert says in problem["detail"]
    assert isinstance(problem["detail"], str)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"].startswith("urn:uuid:")


def test_not_a_number_is_named(service: Service, http: httpx.Client) -> None:
    for text in ('{"prompt": "x", "cfg": NaN}', '{"prompt": "x", "cfg": "nan"}', '{"prompt": "x", "cfg": -Infinity}'):
        response = http.post(f"{service.url}/wan2.6", content=text, headers={"content-type": "application/json"})
        assert response.status_code == 422
        assert response.json()["errors"] == [{"pointer": "#/cfg", "detail": "not a finite number"}]


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000 + "]" * 100_000, '{"a": ' * 100_000, '{"prompt": "\\ud800"}', "\xff"])
def test_malformed_json_is_400(service: Service, http: httpx.Client, text: str) -> None:
    response = http.post(f"{service.url}/wan2.6", content=text.encode("latin-1"), headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["type"] == "urn:ryla:problem:invalid-json"


def test_wrong_path_method_type_and_accept(service: Service, http: httpx.Client) -> None:
    url = service.url
    assert http.get(f"{url}/nothing-here").json()["status"] == 404
    wrong_method = http.get(f"{url}/wan2.6")
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    assert wrong_method.json()["status"] == 405
    wrong_type = http.post(f"{url}/wan2.6", content="prompt=x", headers={"content-type": "application/x-www-form-urlencoded"})
    assert wrong_type.json()["status"] == 415
    assert http.post(f"{url}/wan2.6", files={"prompt": "x"}).json()["status"] == 415
    nothing = http.post(f"{url}/wan2.6", json={"prompt": "x"}, headers={"accept": "text/html"})
    assert nothing.status_code == 406
    assert nothing.headers["content-type"] == "application/problem+json"


def test_what_is_not_there_yet_is_refused_not_ignored(service: Service, http: httpx.Client) -> None:
    for headers in ({"prefer": "respond-async"}, {"prefer": "wait=5"}, {"idempotency-key": "a"}):
        response = http.post(f"{service.url}/wan2.6", json={"prompt": "x"}, headers=headers)
        assert response.status_code == 501
        assert next(iter(headers)) in response.json()["detail"].lower()


def test_an_unknown_field_is_named_and_strict_handling_refuses_it(service: Service, http: httpx.Client) -> None:
    body = {**payload("image-faceswap"), "sampler": "euler", "scheduler": None}
    response = http.post(f"{service.url}/image-faceswap", json=body)
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "sampler, scheduler"
    strict = http.post(f"{service.url}/image-faceswap", json=body, headers={"prefer": "handling=strict"})
    assert strict.status_code == 422
    assert [e["pointer"] for e in strict.json()["errors"]] == ["#/sampler", "#/scheduler"]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(service: Service, http: httpx.Client) -> None:
    assert len(bomb()) < 10_000
    for path, body, field in (
        ("wan2.6-i2v", {"prompt": "x", "reference_image": uri(bomb())}, "reference_image"),
        ("batch-video-faceswap", {"source_video": uri(bomb()), "reference_image": FACE}, "source_video"),
    ):
        response = http.post(f"{service.url}/{path}", json=body)
        assert response.status_code == 413
        assert response.json()["errors"][0]["pointer"] == f"#/{field}"
        assert "30000 x 30000" in response.json()["detail"]


def test_request_ids(service: Service, http: httpx.Client) -> None:
    good = http.get(f"{service.url}/health", headers={"x-request-id": "a-1_b.C"})
    assert good.headers.get_list("x-request-id") == ["a-1_b.C"]
    bad = http.get(f"{service.url}/health", headers={"x-request-id": "no spaces, please"})
    (made,) = bad.headers.get_list("x-request-id")
    assert made
    assert " " not in made


def test_cors(service: Service, http: httpx.Client) -> None:
    asks = {"origin": "https://example.org", "access-control-request-method": "POST"}
    allowed = http.options(f"{service.url}/wan2.6", headers=asks)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    refused = http.options(f"{service.url}/wan2.6", headers={**asks, "origin": "https://evil.example"})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    exposed = http.get(f"{service.url}/health", headers={"origin": "https://example.org"})
    assert "X-Seed" in exposed.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in http.options(f"{service.photo}/wan2.6", headers=asks).headers


class Peak:
    """The highest memory of proxy and ingress while the block runs, above what it was before."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> "Peak":
        from ray.util.state import list_actors

        alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000)
        pids = [actor.pid for actor in alive if "Proxy" in actor.class_name]
        pids += self._service.replicas("ryla", "Ingress").values()
        assert len(pids) == 2
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = self._now()
        self.grown = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.grown = max(self.grown, self._now() - self._before)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_200_megabytes_are_refused_unread(service: Service, http: httpx.Client) -> None:
    size = 200 * 2**20
    with Peak(service) as peak, socket.create_connection(("127.0.0.1", 8123), timeout=30) as client:
        head = f"POST /wan2.6 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        client.sendall(head.encode())
        answer = client.recv(65536)  # before one byte of the body was sent
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert b"application/problem+json" in answer
        with contextlib.suppress(ConnectionError):  # a client that sends all of it nevertheless
            for _ in range(200):
                client.sendall(bytes(2**20))
    assert peak.grown < 100 * 2**20

    def body() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(200):
            yield b"x" * 2**20

    with Peak(service) as peak:
        try:
            response = http.post(f"{service.url}/wan2.6", content=body(), headers={"content-type": "application/json"})
        except httpx.WriteError:  # the server hung up while we were still sending: refused just as well
            pass
        else:
            assert response.status_code == 413
            assert response.json()["type"] == "urn:ryla:problem:body-too-large"
    print(f"grown by {peak.grown / 2**20:.0f} MiB")
    assert peak.grown < 100 * 2**20


def _files() -> set[Path]:
    """Files in the temporary folder that are neither Ray's nor pytest's."""
    return {path for path in Path("/tmp").iterdir() if not path.name.startswith(("ray", "pytest"))}


def test_nothing_is_left_after_refusals_and_the_next_good_call_works(service: Service, http: httpx.Client) -> None:
    pids = [pid for name in ("Ingress", "Wan26", "FaceSwapper") for pid in service.replicas("ryla", name).values()]
    good = {"prompt": "x", "steps": 1, "length": 1, "seed": 1}
    first = http.post(f"{service.url}/wan2.6", json=good)
    files = _files()
    threads = [psutil.Process(pid).num_threads() for pid in pids]
    for path, body, _, _ in FIELDS:
        http.post(f"{service.url}/{path}", json=body)
    again = http.post(f"{service.url}/wan2.6", json=good)
    assert again.content == first.content
    wait_until(lambda: all(psutil.Process(pid).num_threads() <= n + 8 for pid, n in zip(pids, threads, strict=True)), 20)
    assert _files() <= files


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
def test_a_cancelled_call_gives_the_model_back_at_once(service: Service, http: httpx.Client, share: float) -> None:
    """Left during encoding, denoising, decoding or swapping: what of the call was still to come does not hold up the next one."""
    body = {**payload("wan2.6-i2v-faceswap"), "steps": 4, "length": 33}

    def timed() -> float:
        begun = time.monotonic()
        assert http.post(f"{service.url}/wan2.6-i2v-faceswap", json=body).status_code == 200
        return time.monotonic() - begun

    whole = min(timed() for _ in range(2))  # a slow first call would have the second end before it is left
    small = {"prompt": "x", "steps": 1, "length": 1}
    begun = time.monotonic()
    assert http.post(f"{service.url}/wan2.6", json=small).status_code == 200
    alone = time.monotonic() - begun
    with httpx.Client(timeout=httpx.Timeout(5, read=share * whole)) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{service.url}/wan2.6-i2v-faceswap", json=body)
    begun = time.monotonic()
    assert http.post(f"{service.url}/wan2.6", json=small).status_code == 200
    waited = time.monotonic() - begun - alone
    assert waited < max(0.5 * (1 - share), 0.2) * whole


def test_todays_callers(service: Service, http: httpx.Client) -> None:
    """Bare base64, wrapped base64, numeric strings, null, a wrong label, a still as a video."""
    raw = base64.b64encode(jpeg(portrait())).decode()
    wrapped = "\n".join(raw[i : i + 76] for i in range(0, len(raw), 76))
    small = {"prompt": "x", "steps": "2", "width": "64", "height": "64", "cfg": "1.0", "seed": "5", "fps": None}
    results = []
    for picture in (raw, wrapped, f"data:image/png;base64,{raw}", f"data:image/jpeg;base64,{wrapped}"):
        body = {**small, "num_frames": "5", "reference_image": picture, "negative_prompt": None}
        response = http.post(f"{service.url}/wan2.6-i2v", json=body)
        assert response.status_code == 200, response.text
        assert response.headers["x-frames"] == "5"
        assert response.headers["x-fps"] == "16"
        results.append(response.content)
    assert len(set(results)) == 1
    still = http.post(
        f"{service.url}/video-faceswap", json={"source_video": f"data:video/mp4;base64,{raw}", "reference_image": raw}
    )
    assert still.status_code == 200
    assert still.headers["x-model"] == "batch-video-faceswap"
    assert still.headers["x-frames"] == "1" == still.headers["x-frames-swapped"]
    plain = http.post(f"{service.url}/batch-video-faceswap", json={"source_video": uri(NOISE), "reference_image": raw})
    assert plain.headers["x-frames-swapped"] == "0" == plain.headers["x-faces-found"]
    a14b = {"steps": 2, "width": 64, "height": 64, "num_frames": 5, "seed": 5}
    one = http.post(f"{service.url}/wan22-i2v", json={**a14b, "reference_image": raw})
    two = http.post(f"{service.url}/wan22-i2v", json={**a14b, "source_image": raw, "prompt": ""})
    assert one.status_code == two.status_code == 200
    assert one.content == two.content
    faces = [{"source_image": raw, "face_image": raw}, {"source_image": raw, "reference_image": raw}]
    one, two = (http.post(f"{service.url}/wan22-i2v-faceswap", json={**a14b, **pictures}) for pictures in faces)
    assert one.status_code == two.status_code == 200, one.text
    assert one.content == two.content
    rounded = http.post(f"{service.url}/wan2.6", json={"prompt": "x", "steps": 1, "length": 8})
    assert rounded.headers["x-frames"] == "5"


def test_the_openapi_examples_work_when_pasted(service: Service, http: httpx.Client) -> None:
    document = http.get(f"{service.url}/openapi.json").json()
    tried = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            body = dict(content["example"])
            if "length" in content["schema"]["properties"] or "num_frames" in content["schema"]["properties"]:
                body |= {"steps": 1, "num_frames": 1}
            response = http.post(f"{service.url}{path}", json=body)
            assert response.status_code == 200, (path, response.text)
            assert response.headers["content-type"] in item["post"]["responses"]["200"]["content"]
            tried += 1
    assert tried == 8
    assert document["paths"]["/wan2.6"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "width"
    ] == {
        "default": 128,
        "description": "Pixels.",
        "maximum": 256,
        "minimum": 16,
        "multipleOf": 16,
        "type": "integer",
    }
    assert document["openapi"].startswith("3.0.")  # what the packaged Swagger UI can draw
    assert '"null"' not in json.dumps(document)
    assert '"ge"' not in json.dumps(document)
    docs = http.get(f"{service.url}/docs").text
    assert "swagger-ui-bundle.js" in docs
    assert len(http.get(f"{service.url}/docs/assets/swagger-ui-bundle.js").content) > 100_000


def test_limits_readyz_warm_health(service: Service, http: httpx.Client) -> None:
    limits = http.get(f"{service.url}/limits").json()
    assert limits["limits"]["max_width"] == 256
    assert limits["endpoints"]["/wan2.6"]["defaults"]["length"] == 17
    assert limits["endpoints"]["/wan2.6"]["distilled_defaults"] == {"steps": 4, "cfg": 1}
    assert "distilled_defaults" not in limits["endpoints"]["/image-faceswap"]
    assert limits["prices"]["wan26"] == {"hardware": "CPU", "usd_per_hour": 3.6}
    ready = http.get(f"{service.url}/readyz").json()
    assert {model: state["state"] for model, state in ready["models"].items()} == dict.fromkeys(
        ("wan26", "wan22-gguf", "face-swapper"), "ready"
    )
    assert http.get(f"{service.url}/readyz?model=nope").status_code == 422
    warm = http.post(f"{service.url}/warm", json={"models": ["wan26"]})
    assert warm.status_code == 202
    assert list(warm.json()["models"]) == ["wan26"]
    assert http.post(f"{service.url}/warm").status_code == 202
    assert http.post(f"{service.url}/warm", json={"models": ["gpt"]}).json()["errors"][0]["pointer"] == "#/models"
    health = http.get(f"{service.url}/health").json()
    assert health["status"] == "healthy"
    assert health["app"] == "ryla"
    assert http.get(f"{service.url}/healthz").status_code == 200
