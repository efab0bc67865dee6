"""Results carry a watermark, whatever their format: from the request to the bytes."""

import base64
import io
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from deployments.wire import Face, FrameChunk, VideoRequest
from serve.media.decode.opening import open_source
from serve.media.samples import clip, data_uri, stranger
from serve.provenance.watermark import PUBLISHED_SECRET, Payload, Reading, detect
from serve.provenance.watermark.secret import SecretRefused
from serve.provenance.watermark_reading import read_watermark
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph, FakeVideoModel, make_face
from tests.unit.serve.http.service import FACE, make_client
from tests.unit.serve.media.make_media import LIMITS
from tests.unit.serve.provenance.watermark.frames import portrait_film

ON = {"enabled": True, "key_id": 6}
VIDEO = {"prompt": "a cat", "width": 256, "height": 144, "num_frames": 9, "seed": 5}
SECRET = b"a secret of this test's own"


@dataclass
class FilmModel(FakeVideoModel):
    """A video model whose frames have the structure of photographs."""

    async def generate(self, request: VideoRequest, stream: object, origin: object = None) -> AsyncGenerator[Any, None]:
        film = portrait_film(request.width, request.height, request.num_frames)
        async for event in super().generate(request, stream, origin):
            if isinstance(event, FrameChunk):
                yield FrameChunk(event.index, film[event.index : event.index + len(event.frames)])
            else:
                yield event


@dataclass
class SmallFaceSwapper(FakeFaceSwapper):
    """A face swapper that paints the upper left corner."""

    faces: Any = field(default_factory=lambda: (make_face(),))

    async def swap(self, chunk: FrameChunk, faces: Any, *others: Any) -> Any:
        swapped = await super().swap(chunk, faces, *others)
        swapped.frames[:, 40:] = chunk.frames[:, 40:]
        return swapped


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph(wan26=FilmModel(), swapper=SmallFaceSwapper())


def watermarked(graph: FakeGraph, **settings: Any) -> TestClient:
    return make_client(graph, provenance={"watermark": {**ON, **settings}})


def reading_of(content: bytes, secret: bytes = PUBLISHED_SECRET) -> Reading | None:
    return read_watermark(content, [secret])


def picture() -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(portrait_film(256, 192, 1)[0]).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return re.findall(r"request (\S+): watermark=(\S+)", caplog.text)


@pytest.mark.slow
@pytest.mark.parametrize("media_type", ["video/mp4", "image/webp", "image/gif"])
def test_a_video_carries_the_number_that_the_log_has(
    graph: FakeGraph, media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = watermarked(graph)
    with caplog.at_level(logging.INFO, "ray.serve"):
        answer = client.post("/wan2.6", json=VIDEO, headers={"accept": media_type})
    assert answer.headers["content-type"] == media_type
    assert "watermark" in answer.headers["x-provenance"].split(", ")
    reading = reading_of(answer.content)
    assert reading is not None
    assert reading.payload.key_id == 6
    assert logged(caplog) == [(answer.headers["x-request-id"], str(reading.payload))]


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
def test_a_swapped_picture_carries_it_too(graph: FakeGraph, media_type: str) -> None:
    client = watermarked(graph)
    fields = {"source_image": picture(), "reference_image": FACE}
    answer = client.post("/image-faceswap", json=fields, headers={"accept": media_type})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    reading = reading_of(answer.content)
    assert reading is not None
    assert reading.payload.key_id == 6


@pytest.mark.slow
@pytest.mark.parametrize("faces", [(), (make_face(),)], ids=["no face", "a face"])
@pytest.mark.parametrize("media_type", ["video/mp4", "image/gif"])
def test_a_film_carries_it_only_if_a_face_was_replaced(media_type: str, faces: tuple[Face, ...]) -> None:
    client = watermarked(FakeGraph(swapper=SmallFaceSwapper(faces=faces)))
    fields = {"source_video": data_uri(clip(stranger(), 9, 8, (256, 144)), "video/mp4"), "reference_image": FACE}
    answer = client.post("/video-faceswap", json=fields, headers={"accept": media_type})
    assert (answer.status_code, answer.headers["x-frames-swapped"]) == (200, "9" if faces else "0")
    said = [mark.split("=")[0] for mark in answer.headers["x-provenance"].split(", ")]
    frames = np.stack([frame for frame, _ in open_source(answer.content, LIMITS).frames()])
    found = detect(frames, scaled=False) is not None  # not at other scales, which takes seconds
    assert ("watermark" in said, found) == (bool(faces), bool(faces))


@pytest.mark.slow
def test_equal_requests_have_equal_bytes_and_others_another_number(graph: FakeGraph) -> None:
    client = watermarked(graph)
    first, again, other = (client.post("/wan2.6", json={**VIDEO, "seed": seed}).content for seed in (5, 5, 6))
    assert first == again
    numbers = [reading.payload for content in (first, other) if (reading := reading_of(content)) is not None]
    assert len(set(numbers)) == 2


@pytest.mark.slow
def test_without_the_setting_there_is_no_watermark(graph: FakeGraph, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        answer = watermarked(graph, enabled=False).post("/wan2.6", json=VIDEO)
    assert "watermark" not in answer.headers["x-provenance"]
    assert reading_of(answer.content) is None
    assert logged(caplog) == []


@pytest.mark.slow
def test_a_secret_hides_it_from_everybody_else(graph: FakeGraph, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    answer = watermarked(graph, key=path).post("/wan2.6", json=VIDEO)
    assert reading_of(answer.content) is None
    reading = reading_of(answer.content, SECRET)
    assert reading is not None
    assert reading.payload != Payload(6, 0)


def test_a_service_does_not_start_with_a_secret_that_cannot_be_read(graph: FakeGraph, tmp_path: Path) -> None:
    with pytest.raises(SecretRefused, match=r"provenance\.watermark\.key: .*cannot be read"):
        watermarked(graph, key=tmp_path / "none")
