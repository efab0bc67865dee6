"""Videos through real face models; tests/unit/serve/http has all other shapes of request."""

import io

import httpx
import numpy as np
import PIL.Image
import pytest

from deployments.faces.analysis import OpenCVAnalyser
from serve.http.examples import payload
from serve.media.samples import data_uri, pan, portrait, stranger
from tests.graph.conftest import Service
from tests.graph.frames import face_of, frames_of
from tests.unit.serve.media.make_media import animation

pytestmark = pytest.mark.graph
FACE = payload("wan2.6-i2v")["reference_image"]


def test_an_animation_labelled_as_a_video_is_swapped(service: Service, http: httpx.Client, analyser: OpenCVAnalyser) -> None:
    count = 5
    source = animation("WEBP", pan(stranger(), count=count, width=192, height=224))
    body = {"source_video": data_uri(source, "video/mp4"), "reference_image": FACE}
    response = http.post(f"{service.url}/batch-video-faceswap", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["x-fps"] == "10"
    assert response.headers["x-frames-swapped"] == str(count)
    frames = frames_of(response.content)
    assert len(frames) == count
    wanted, before = (face_of(analyser, image).embedding for image in (portrait(), stranger()))
    for frame in frames:
        swapped = face_of(analyser, frame).embedding
        assert swapped @ wanted > swapped @ before


def test_a_video_without_a_face_comes_back_unchanged(service: Service, http: httpx.Client) -> None:
    grey = np.random.default_rng(5).integers(0, 255, (12, 16, 1), dtype=np.uint8)  # colour would be halved by yuv420p
    hills = pan(grey.repeat(3, 2).repeat(16, 0).repeat(16, 1), count=3, width=96, height=96)
    buffer = io.BytesIO()
    images = [PIL.Image.fromarray(frame) for frame in hills]
    images[0].save(buffer, "WEBP", save_all=True, append_images=images[1:], duration=100, lossless=True)
    body = {"source_video": data_uri(buffer.getvalue(), "video/mp4"), "reference_image": FACE}
    response = http.post(f"{service.url}/batch-video-faceswap", json=body)
    assert response.headers["x-frames-swapped"] == response.headers["x-faces-found"] == "0"
    for before, after in zip(hills, frames_of(response.content), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 4  # H.264's own loss
