"""Files that are no videos, or too much of one: a problem each, and nothing is left of them in the service."""

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import httpx
import numpy as np
import PIL.Image
import pytest
from av.video.frame import VideoFrame

from deployments.wire import Frames
from serve.media.samples import PORTRAIT, clip, stranger, tone
from tests.graph.conftest import Service, wait_until

pytestmark = pytest.mark.graph


def film(width: int, height: int, frames: int, noise: int) -> bytes:
    """Grey, with so much noise, which H.264 cannot make small."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"preset": "ultrafast", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(frames):
            pixels = (
                rng.integers(127 - noise, 128 + noise, (height, width, 3), dtype=np.uint8)
                if noise
                else np.zeros((height, width, 3), np.uint8)
            )
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def gif(frames: int) -> bytes:
    buffer = io.BytesIO()
    pictures = [PIL.Image.new("L", (2, 2), i % 256) for i in range(frames)]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=20)
    return buffer.getvalue()


def pixel() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (1, 1), (200, 150, 120)).save(buffer, "PNG")
    return buffer.getvalue()


WHOLE = clip(stranger())
BAD = {
    **{f"cut after {tenth} tenths": (WHOLE[: len(WHOLE) * tenth // 10], 422, "truncated") for tenth in range(1, 10)},
    "sound alone": (tone(0.5), 422, "contains no video"),
    "text": (b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n" * 20, 422, "send MP4, WebM, GIF or WebP"),
    "an archive": (b"PK\x03\x04" + bytes(3000), 422, "send MP4, WebM, GIF or WebP"),
    "8K": (film(7680, 4320, 1, 0), 413, "at most 2073600 pixels"),
    "too many frames": (gif(700), 413, "at most 600"),
}


def send(service: Service, http: httpx.Client, video: bytes, face: bytes | None = None, **fields: str) -> httpx.Response:
    files = {"source_video": ("a", video), "reference_image": ("b", face or PORTRAIT.read_bytes())}
    return http.post(f"{service.url}/batch-video-faceswap", files=files, data=fields)


def on_disk(service: Service) -> list[str]:
    """Files without a name that the ingress has open among the temporary ones."""
    (pid,) = service.replicas("ryla", "Ingress").values()
    files = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sorted(file for file in files if file.startswith(f"{tempfile.gettempdir()}/#") and file.endswith("(deleted)"))


def frames_of(video: bytes) -> Frames:
    with av.open(io.BytesIO(video), mode="r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_video_is_a_problem_that_names_the_field(service: Service, http: httpx.Client, kind: str) -> None:
    video, status, says = BAD[kind]
    response = send(service, http, video)
    assert response.status_code == status, response.text
    (error,) = response.json()["errors"]
    assert error["pointer"] == "#/source_video"
    assert says in error["detail"]


def test_a_picture_of_one_pixel_shows_nobody(service: Service, http: httpx.Client) -> None:
    as_face = send(service, http, WHOLE, face=pixel())
    assert as_face.status_code == 422
    assert as_face.json()["errors"][0]["pointer"] == "#/reference_image"
    as_video = send(service, http, pixel())
    assert as_video.status_code == 200
    assert as_video.headers["X-Frames-Swapped"] == "0"
    assert send(service, http, pixel(), require_face="true").status_code == 422


def test_large_uploads_and_answers_are_on_disk_and_nothing_of_them_stays(service: Service, http: httpx.Client) -> None:
    good = send(service, http, WHOLE)
    assert good.status_code == 200
    before, replicas = on_disk(service), service.replicas("ryla", "FaceSwapper")
    large = film(640, 480, 12, 120)
    assert len(large) > 3 * 2**20, "not large enough to be kept on disk"
    answer = send(service, http, large)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 2**20
    assert len(answer.content) == int(answer.headers["content-length"])
    assert len(frames_of(answer.content)) == 12
    assert send(service, http, large[: len(large) // 2]).status_code == 422
    wait_until(lambda: on_disk(service) == before, 20)
    assert send(service, http, WHOLE).content == good.content
    assert service.replicas("ryla", "FaceSwapper") == replicas
