"""Today's callers: every shape of request that the contract names, over HTTP, and what comes decoded."""

import io
from collections.abc import Callable
from typing import Any

import av
import httpx
import numpy as np
import PIL.Image
import pytest

from deployments.faces.analysis import OpenCVAnalyser
from deployments.wire import Image
from serve.client import decode
from serve.http.examples import payload
from serve.media.samples import PORTRAIT, clip, data_uri, jpeg, pan, portrait, stranger
from tests.graph.conftest import Service
from tests.graph.frames import face_of, frames_of

pytestmark = pytest.mark.graph
FACE = payload("wan2.6-i2v")["reference_image"]


def animation(kind: str, count: int = 5) -> bytes:
    pictures = [PIL.Image.fromarray(frame) for frame in pan(stranger(), count, 192, 224)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=100)
    return buffer.getvalue()


def webm(count: int = 5) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=10, options={"crf": "20", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = 192, 224, "yuv420p"
        for pixels in pan(stranger(), count, 192, 224):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def png(image: Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG", **options)
    return buffer.getvalue()


SOURCES: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    # what it is: its bytes, the label that it is sent under, frames, X-FPS
    "MP4": (lambda: clip(stranger(), 5, 10), "video/mp4", 5, "10"),
    "WebM": (webm, "video/webm", 5, "10"),
    "GIF": (lambda: animation("GIF"), "image/gif", 5, "10"),
    "animated WebP labelled MP4": (lambda: animation("WEBP"), "video/mp4", 5, "10"),
    "PNG still labelled JPEG": (lambda: png(stranger()), "image/jpeg", 1, "16"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_video_of_any_kind_is_swapped(service: Service, http: httpx.Client, analyser: OpenCVAnalyser, kind: str) -> None:
    make, label, count, fps = SOURCES[kind]
    body = {"source_video": data_uri(make(), label), "reference_image": FACE}
    response = http.post(f"{service.url}/batch-video-faceswap", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["x-fps"] == fps
    assert response.headers["x-frames-swapped"] == str(count)
    frames = frames_of(response.content)
    assert len(frames) == count
    wanted, before = (face_of(analyser, image).embedding for image in (portrait(), stranger()))
    for frame in frames:
        swapped = face_of(analyser, frame).embedding
        assert swapped @ wanted > swapped @ before


def test_fps_resamples_a_clip_and_retimes_an_animation(service: Service, http: httpx.Client) -> None:
    for data, count in ((clip(stranger(), 10, 10), 20), (animation("WEBP", 4), 4)):
        body = {"source_video": data_uri(data, "video/mp4"), "reference_image": FACE, "fps": "20"}
        response = http.post(f"{service.url}/video-faceswap", json=body)
        assert response.headers["x-fps"] == "20"
        assert response.headers["x-frames"] == str(count) == str(decode(response.content).frames)


def test_a_video_without_a_face_comes_back_unchanged(service: Service, http: httpx.Client) -> None:
    grey = np.random.default_rng(5).integers(0, 255, (12, 16, 1), dtype=np.uint8)  # colour would be halved by yuv420p
    hills = pan(grey.repeat(3, 2).repeat(16, 0).repeat(16, 1), 3, 96, 96)
    buffer = io.BytesIO()
    pictures = [PIL.Image.fromarray(frame) for frame in hills]
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    body = {"source_video": data_uri(buffer.getvalue(), "video/mp4"), "reference_image": FACE}
    response = http.post(f"{service.url}/batch-video-faceswap", json=body)
    assert response.headers["x-frames-swapped"] == response.headers["x-faces-found"] == "0"
    for before, after in zip(hills, frames_of(response.content), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 4  # H.264's own loss


def test_pictures_are_upright_flattened_and_of_any_shape(
    service: Service, http: httpx.Client, analyser: OpenCVAnalyser
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 8  # the camera was turned the other way
    lying = png(np.ascontiguousarray(np.rot90(stranger(), -1)), exif=exif)
    response = http.post(
        f"{service.url}/image-faceswap",
        json={"source_image": data_uri(lying, "image/png"), "reference_image": FACE},
        headers={"accept": "image/webp"},
    )
    assert response.status_code == 200, response.text
    assert decode(response.content).media_type == "image/webp" == response.headers["content-type"]
    result = np.asarray(PIL.Image.open(io.BytesIO(response.content)).convert("RGB"))
    assert result.shape == stranger().shape
    swapped = face_of(analyser, result).embedding
    assert swapped @ face_of(analyser, portrait()).embedding > swapped @ face_of(analyser, stranger()).embedding
    glass = PIL.Image.new("RGBA", (40, 200), (0, 0, 0, 0))
    buffer = io.BytesIO()
    glass.save(buffer, "PNG")
    small = {"prompt": "x", "steps": 1, "width": 64, "height": 48, "length": 1, "seed": 1}
    white = PIL.Image.new("RGB", (300, 80), "white")
    same = [
        http.post(f"{service.url}/wan2.6-i2v", json={**small, "reference_image": data_uri(data, "image/png")}).content
        for data in (buffer.getvalue(), png(np.asarray(white)))
    ]
    assert same[0] == same[1]  # transparent is white, whatever its shape


def test_reference_face_and_length_are_known_on_every_path(service: Service, http: httpx.Client) -> None:
    small = {"steps": 1, "width": 64, "height": 64, "seed": 1}
    pictures = [{"face_image": FACE}, {"reference_face": FACE}]
    one, two = (
        http.post(
            f"{service.url}/wan2.6-i2v-faceswap", json={**small, "prompt": "x", "length": 5, "reference_image": FACE, **p}
        )
        for p in pictures
    )
    assert one.status_code == two.status_code == 200, two.text
    assert one.content == two.content
    assert decode(one.content).frames == 5
    by_length = http.post(f"{service.url}/wan22-i2v", json={**small, "length": "5", "source_image": FACE})
    assert decode(by_length.content).frames == 5


def test_a_video_as_a_form_and_as_webp(service: Service, http: httpx.Client) -> None:
    files = {
        "source_video": ("clip.mp4", clip(stranger(), 5, 10), "application/octet-stream"),
        "reference_image": ("me", PORTRAIT.read_bytes(), "text/plain"),
    }
    response = http.post(f"{service.url}/batch-video-faceswap", files=files, headers={"accept": "image/webp"})
    assert response.status_code == 200, response.text
    decoded = decode(response.content)
    assert (decoded.media_type, decoded.frames) == ("image/webp", 5)
    long = {"source_image": "A" * 3_000_000, "reference_image": FACE}  # a text part of a form, over a megabyte
    refused = http.post(f"{service.url}/image-faceswap", data=long, files={"nothing": ("", b"", "x/y")})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/source_image"
    broken = http.post(
        f"{service.url}/image-faceswap",
        content=b"--x\r\nnot a form",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert broken.status_code in (400, 422)
    no_boundary = http.post(f"{service.url}/image-faceswap", content=b"x", headers={"content-type": "multipart/form-data"})
    assert no_boundary.json()["type"] == "urn:ryla:problem:invalid-form"


def test_a_page_may_read_problems_too(service: Service, http: httpx.Client) -> None:
    response = http.post(f"{service.url}/wan2.6", json={}, headers={"origin": "https://example.org"})
    assert response.status_code == 422
    assert response.headers["access-control-allow-origin"] == "https://example.org"


def test_jpeg_of_a_jpeg_is_what_the_table_says(service: Service, http: httpx.Client) -> None:
    body = {"source_image": data_uri(jpeg(stranger()), "image/jpeg"), "reference_image": FACE}
    for accept in ("*/*", "image/jpeg", "text/html, */*;q=0.1"):
        response = http.post(f"{service.url}/image-faceswap", json=body, headers={"accept": accept})
        assert decode(response.content).media_type == "image/jpeg"
