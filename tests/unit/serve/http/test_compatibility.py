"""Every shape of request that the callers of the services before this one send."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from deployments.wire import Image
from serve.client import decode
from serve.media.decode.opening import open_source
from serve.media.images import cover
from serve.media.samples import PORTRAIT, clip, data_uri, jpeg, pan, portrait, stranger
from tests.pictures import decode_image
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import FACE, make_client
from tests.unit.serve.media.make_media import LIMITS, animation, decode_all, webm

RAW = base64.b64encode(jpeg(portrait())).decode()
WRAPPED = "\n".join(RAW[i : i + 76] for i in range(0, len(RAW), 76))
PAN = pan(stranger(), 5, 192, 224)


def png(image: Image, **options: Any) -> bytes:
    """Return ``image`` as a PNG file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG", **options)
    return buffer.getvalue()


def covering(data: bytes, width: int, height: int) -> Image:
    """Return the first frame that an image file makes."""
    return cover(decode_image(data, 10**7), width, height)


@pytest.mark.parametrize(
    "image",
    [RAW, WRAPPED, f"data:image/png;base64,{RAW}", f"data:image/jpeg;base64,{WRAPPED}"],
    ids=["bare", "bare with line breaks", "wrong label", "line breaks"],
)
def test_base64_in_any_form_numbers_as_strings_and_nulls(client: TestClient, graph: FakeGraph, image: str) -> None:
    strings = {"steps": "2", "width": "64", "height": "64", "cfg": "1.0", "seed": "5", "num_frames": "5"}
    body = {"prompt": "x", **strings, "fps": None, "negative_prompt": None, "reference_image": image}
    response = client.post("/wan2.6-i2v", json=body, headers={"accept": "video/mp4"})
    assert response.status_code == 200, response.text
    assert response.headers["x-frames"] == "5"
    assert response.headers["x-fps"] == "16"
    (request,) = graph.wan26.requests
    assert (request.steps, request.width, request.height, request.cfg, request.seed) == (2, 64, 64, 1.0, 5)
    assert request.image is not None
    np.testing.assert_array_equal(request.image, covering(jpeg(portrait()), 64, 64))


def test_a_still_image_is_a_video_of_one_frame(client: TestClient) -> None:
    body = {"source_video": f"data:video/mp4;base64,{RAW}", "reference_image": RAW}
    response = client.post("/video-faceswap", json=body)
    assert response.status_code == 200
    assert response.headers["x-model"] == "batch-video-faceswap"
    assert response.headers["x-frames"] == "1" == response.headers["x-frames-swapped"]
    assert decode(response.content).frames == 1


@pytest.mark.parametrize("field", ["source_image", "reference_image"])
def test_the_first_frame_has_two_names(client: TestClient, graph: FakeGraph, field: str) -> None:
    for body in ({field: RAW}, {field: RAW, "prompt": ""}):
        assert client.post("/wan22-i2v", json=body).status_code == 200
    for request in graph.wan22.requests:
        assert request.prompt == ""
        assert request.image is not None
        np.testing.assert_array_equal(request.image, covering(jpeg(portrait()), 64, 48))


@pytest.mark.parametrize("field", ["face_image", "reference_image"])
def test_the_face_beside_a_source_image_has_two_names(client: TestClient, graph: FakeGraph, field: str) -> None:
    source = data_uri(png(stranger()), "image/png")
    response = client.post("/wan22-i2v-faceswap", json={"source_image": source, field: RAW})
    assert response.headers["x-frames-swapped"] == "9"
    (request,) = graph.wan22.requests
    assert request.image is not None
    np.testing.assert_array_equal(request.image, cover(stranger(), 64, 48))
    (reference,) = graph.swapper.references
    np.testing.assert_array_equal(reference, decode_image(jpeg(portrait()), 10**7))


@pytest.mark.parametrize("field", ["face_image", "reference_face"])
def test_the_face_beside_a_reference_image_has_two_names(client: TestClient, graph: FakeGraph, field: str) -> None:
    body = {"prompt": "x", "length": 5, "reference_image": data_uri(png(stranger()), "image/png"), field: FACE}
    response = client.post("/wan2.6-i2v-faceswap", json=body)
    assert decode(response.content).frames == 5
    (reference,) = graph.swapper.references
    np.testing.assert_array_equal(reference, portrait())


@pytest.mark.parametrize(("path", "image"), [("wan2.6", {}), ("wan22-i2v", {"source_image": FACE})])
@pytest.mark.parametrize("field", ["length", "num_frames"])
def test_the_number_of_frames_has_two_names_and_is_rounded_down(
    client: TestClient, graph: FakeGraph, path: str, image: dict[str, str], field: str
) -> None:
    response = client.post(f"/{path}", json={"prompt": "x", field: "8", **image}, headers={"accept": "video/mp4"})
    assert response.headers["x-frames"] == "5" == str(decode(response.content).frames)
    (request,) = graph.wan26.requests + graph.wan22.requests
    assert request.num_frames == 5


SOURCES: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    # what it is: its bytes, the label that it is sent under, frames, X-FPS
    "MP4": (lambda: clip(stranger(), 5, 10), "video/mp4", 5, "10"),
    "WebM": (lambda: webm(PAN), "video/webm", 5, "10"),
    "GIF": (lambda: animation("GIF", PAN), "image/gif", 5, "10"),
    "animated WebP labelled MP4": (lambda: animation("WEBP", PAN), "video/mp4", 5, "10"),
    "PNG still labelled JPEG": (lambda: png(stranger()), "image/jpeg", 1, "16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_video_of_any_kind_is_swapped(client: TestClient, kind: str) -> None:
    make, label, count, fps = SOURCES[kind]
    response = client.post("/batch-video-faceswap", json={"source_video": data_uri(make(), label), "reference_image": FACE})
    assert response.status_code == 200, response.text
    assert response.headers["x-fps"] == fps
    assert response.headers["x-frames-swapped"] == str(count)
    frames, _ = decode_all(open_source(response.content, LIMITS))
    assert len(frames) == count
    assert all(frame.min() > 250 for frame in frames)


@pytest.mark.parametrize(
    ("data", "count"),
    [(clip(stranger(), 10, 10), 20), (animation("WEBP", PAN[:4]), 4)],
    ids=["a clip is resampled", "an animation is retimed"],
)
def test_fps_changes_the_rate(client: TestClient, data: bytes, count: int) -> None:
    body = {"source_video": data_uri(data, "video/mp4"), "reference_image": FACE, "fps": "20"}
    response = client.post("/video-faceswap", json=body)
    assert response.headers["x-fps"] == "20"
    assert response.headers["x-frames"] == str(count) == str(decode(response.content).frames)
    source = open_source(response.content, LIMITS)
    assert source.fps == 20
    assert source.duration is not None
    assert float(source.duration) == pytest.approx(count / 20, abs=0.01)


def test_an_image_is_turned_upright_as_its_camera_says(client: TestClient, graph: FakeGraph) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 8  # the camera was turned the other way
    lying = png(np.ascontiguousarray(np.rot90(stranger(), -1)), exif=exif)
    body = {"source_image": data_uri(lying, "image/png"), "reference_image": FACE}
    response = client.post("/image-faceswap", json=body, headers={"accept": "image/webp"})
    assert decode(response.content).media_type == "image/webp" == response.headers["content-type"]
    assert np.asarray(PIL.Image.open(io.BytesIO(response.content))).shape == stranger().shape
    client.post("/wan2.6-i2v", json={"prompt": "x", "reference_image": data_uri(lying, "image/png")})
    (request,) = graph.wan26.requests
    assert request.image is not None
    np.testing.assert_array_equal(request.image, cover(stranger(), 64, 48))


def test_transparency_is_white_whatever_the_shape(client: TestClient, graph: FakeGraph) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGBA", (40, 200), (0, 0, 0, 0)).save(buffer, "PNG")
    body = {"prompt": "x", "reference_image": data_uri(buffer.getvalue(), "image/png")}
    assert client.post("/wan2.6-i2v", json=body).status_code == 200
    (request,) = graph.wan26.requests
    assert request.image is not None
    assert request.image.shape == (48, 64, 3)
    assert (request.image == 255).all()


def test_a_form_gives_the_same_as_json(client: TestClient) -> None:
    files = {
        "source_image": ("a.png", jpeg(stranger()), "image/png"),  # callers send wrong labels
        "reference_image": ("me", PORTRAIT.read_bytes(), "text/plain"),
    }
    form = client.post("/image-faceswap", files=files, data={"restore_face": "false", "faces": "all"})
    body = {"source_image": data_uri(jpeg(stranger()), "image/jpeg"), "reference_image": FACE, "restore_face": False}
    assert form.status_code == 200, form.text
    assert form.content == client.post("/image-faceswap", json={**body, "faces": "all"}).content


def test_a_video_is_taken_from_a_form_and_made_a_webp(client: TestClient) -> None:
    files = {
        "source_video": ("clip.mp4", clip(stranger(), 5, 10), "application/octet-stream"),
        "reference_image": ("me", PORTRAIT.read_bytes(), "text/plain"),
    }
    response = client.post("/batch-video-faceswap", files=files, headers={"accept": "image/webp"})
    assert response.status_code == 200, response.text
    assert (decode(response.content).media_type, response.headers["x-frames-swapped"]) == ("image/webp", "5")


def test_a_text_part_of_megabytes_is_read_and_its_field_named(client: TestClient) -> None:
    long = {"source_image": "A" * 3_000_000, "reference_image": FACE}
    refused = client.post("/image-faceswap", data=long, files={"nothing": ("", b"", "x/y")})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/source_image"


def test_a_form_that_cannot_be_read_is_a_problem(client: TestClient) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        response = client.post("/image-faceswap", content=b"--x\r\nnot a form", headers={"content-type": content_type})
        assert (response.status_code, response.json()["type"]) == (400, "urn:ryla:problem:invalid-form")


@pytest.mark.parametrize("accept", ["*/*", "image/jpeg", "text/html, */*;q=0.1"])
def test_the_default_image_is_a_jpeg(client: TestClient, accept: str) -> None:
    body = {"source_image": data_uri(jpeg(stranger()), "image/jpeg"), "reference_image": FACE}
    response = client.post("/image-faceswap", json=body, headers={"accept": accept})
    assert decode(response.content).media_type == "image/jpeg" == response.headers["content-type"]


def test_the_default_video_is_a_webp_and_accept_chooses_another(client: TestClient) -> None:
    body = {"prompt": "x", "length": 5, "seed": 1}
    default = client.post("/wan2.6", json=body)
    assert decode(default.content).media_type == "image/webp" == default.headers["content-type"]
    mp4 = client.post("/wan2.6", json=body, headers={"accept": "video/mp4, image/webp;q=0.5"})
    assert decode(mp4.content).media_type == "video/mp4" == mp4.headers["content-type"]
    assert decode(mp4.content).frames == 5


SIZE = {"width": 832, "height": 480, "steps": 30, "fps": 16, "seed": 42, "negative_prompt": "blurry"}
WAN26 = {"prompt": "a cat walks", "length": 33, "cfg": 6.0, **SIZE}
WAN22 = {"prompt": "a cat walks", "num_frames": 33, "cfg": 5.0, **SIZE}
CALLS: dict[str, tuple[dict[str, Any], str]] = {
    # as the test script of the services before this one sends them: path, body, the answer's type
    "wan2.6": (WAN26, "image/webp"),
    "wan2.6-i2v": ({**WAN26, "reference_image": RAW}, "image/webp"),
    "wan2.6-i2v-faceswap": ({**WAN26, "reference_image": RAW, "face_image": RAW, "restore_face": True}, "video/mp4"),
    "wan22-i2v": ({**WAN22, "source_image": RAW}, "image/webp"),
    "wan22-i2v-faceswap": ({**WAN22, "source_image": RAW, "reference_image": RAW, "restore_face": True}, "video/mp4"),
    "image-faceswap": (
        {"source_image": RAW, "reference_image": RAW, "restore_face": True}
        | {"face_restore_visibility": 1.0, "codeformer_weight": 0.5},
        "image/jpeg",
    ),
}


@pytest.mark.slow
def test_the_calls_of_the_original_clients_script_pass_where_sizes_are_fitted(graph: FakeGraph) -> None:
    client = make_client(graph, limits={"oversize": "fit"})
    for path, (body, media_type) in CALLS.items():
        response = client.post(f"/{path}", json=body)
        assert response.status_code == 200, (path, response.text)
        assert response.headers["content-type"] == media_type, path
        assert "x-ignored-fields" not in response.headers, path
        if path == "image-faceswap":
            assert "x-adjusted" not in response.headers
            continue
        assert response.headers["x-adjusted"] == "width=256; height=144", path
        # WebP has equal frames in a row as one.
        assert decode(response.content).frames == (33 if media_type == "video/mp4" else 9), path
    for request in graph.wan26.requests + graph.wan22.requests:
        assert (request.width, request.height, request.num_frames, request.steps, request.seed) == (256, 144, 33, 30, 42)
