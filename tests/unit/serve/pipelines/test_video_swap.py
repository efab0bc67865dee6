"""The faces in a video are replaced; an unusable or oversized file is a problem."""

import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from av.video.frame import VideoFrame
from starlette.testclient import TestClient

from deployments.errors import RequestRefused
from deployments.wire import Face, FrameChunk, Frames, Reference, SwapOptions, SwappedChunk
from serve.client import decode
from serve.config import AppConfig, Limits, RunnerSettings
from serve.media.decode.opening import open_source
from serve.media.samples import PORTRAIT, clip, data_uri, pan, stranger, tone
from serve.media.spool import read_media
from serve.pipelines.context import ChunkStep, Step
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.requests import SwapVideo
from serve.pipelines.result import Result
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph, make_face
from tests.unit.serve.http.service import make_service_of
from tests.unit.serve.media.make_media import LIMITS, animation, audio_packets, decode_all, reencode, unnamed_files
from tests.unit.serve.media.make_media import film as film_with_sound
from tests.unit.serve.media.phone_video import TIMES, phone_video
from tests.unit.serve.pipelines.request_builders import FACE, make_context, pipelines_over

SMALL_LIMITS = Limits(max_source_frames=60, max_source_pixels=2_073_600, max_source_seconds=60)


def film(width: int, height: int, frames: int, noise: int) -> bytes:
    """Return grey frames with so much noise that H.264 cannot make them small."""
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
    """Return a GIF of many tiny frames."""
    buffer = io.BytesIO()
    images = [PIL.Image.new("L", (2, 2), i % 256) for i in range(frames)]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=20)
    return buffer.getvalue()


def pixel(level: int) -> bytes:
    """Return a PNG of one pixel."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (1, 1), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


WHOLE = clip(stranger())


def cut(tenths: int) -> bytes:
    """Return a valid video, cut short."""
    return WHOLE[: len(WHOLE) * tenths // 10]


BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    **{f"cut after {tenth} tenths": (partial(cut, tenth), 422, "truncated") for tenth in range(1, 10)},
    "sound alone": (lambda: tone(0.5), 422, "contains no video"),
    "text": (lambda: b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n" * 20, 422, "send MP4, WebM, GIF or WebP"),
    "an archive": (lambda: b"PK\x03\x04" + bytes(3000), 422, "send MP4, WebM, GIF or WebP"),
    "more than 1080p": (lambda: film(1922, 1080, 1, 0), 413, "at most 2073600 pixels"),
    "too many frames": (lambda: gif(70), 413, "at most 60"),
}


def client(graph: FakeGraph) -> TestClient:
    return TestClient(make_service_of(AppConfig(limits=SMALL_LIMITS), graph))


def send(graph: FakeGraph, video: bytes, face: bytes = FACE, **fields: str) -> Any:
    files = {"source_video": ("a", video), "reference_image": ("b", face)}
    return client(graph).post("/batch-video-faceswap", files=files, data=fields)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_video_is_a_problem_that_names_the_field(kind: str) -> None:
    make, status, detail = BAD[kind]
    response = send(FakeGraph(), make())
    assert response.status_code == status, response.text
    (error,) = response.json()["errors"]
    assert error["pointer"] == "#/source_video"
    assert detail in error["detail"]


@pytest.mark.slow
def test_an_image_of_one_black_pixel_shows_nobody() -> None:
    graph = FakeGraph()
    as_face = send(graph, WHOLE, face=pixel(0))
    assert as_face.status_code == 422
    assert as_face.json()["errors"][0]["pointer"] == "#/reference_image"
    as_video = send(graph, pixel(0))
    assert as_video.status_code == 200
    assert as_video.headers["X-Frames-Swapped"] == "0"
    required = send(graph, pixel(0), require_face="true")
    assert required.status_code == 422
    assert required.json()["errors"][0]["pointer"] == "#/source_video"


@pytest.mark.slow
def test_large_uploads_and_results_are_on_disk_and_nothing_of_them_stays() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=()))
    good = send(graph, WHOLE)
    assert good.status_code == 200
    graph.swapper.references.clear()
    before = unnamed_files()
    large = film(640, 480, 12, 120)
    assert len(large) > 3 * 2**20, "not large enough to be kept on disk"
    response = send(graph, large)
    assert response.status_code == 200, response.text
    assert len(response.content) > 2**20
    assert len(response.content) == int(response.headers["content-length"])
    assert decode(response.content).frames == 12
    assert send(graph, large[: len(large) // 2]).status_code == 422
    graph.swapper.references.clear()
    assert unnamed_files() == before
    assert send(graph, WHOLE).content == good.content


class BoxSwapper(FakeFaceSwapper):
    """A swapper that paints only the boxes of the faces white."""

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        reference: Reference,
        options: SwapOptions,
        origin: object = None,
    ) -> SwappedChunk:
        frames = chunk.frames.copy()
        for frame, found in zip(frames, faces, strict=True):
            for face in found:
                left, top, right, bottom = face.box.astype(int)
                frame[top:bottom, left:right] = 255
        return SwappedChunk(chunk.index, frames, self.seconds, "none")


@pytest.mark.slow
def test_a_phones_video_comes_back_upright_with_its_times_and_its_sound() -> None:
    video = phone_video()
    before, shown = decode_all(source := open_source(video, LIMITS))
    assert before[0].shape == (224, 192, 3), "the video is not turned"
    assert len({b - a for a, b in pairwise(shown)}) > 1, "its rate does not vary"
    swapper = BoxSwapper(faces=(make_face((40, 60, 100, 140)),))
    response = send(FakeGraph(swapper=swapper), video)
    assert response.status_code == 200, response.text
    assert response.headers["X-Frames-Swapped"] == str(len(TIMES))
    after, times = decode_all(result := open_source(response.content, LIMITS))
    assert times == shown
    assert result.duration == source.duration
    assert audio_packets(response.content) == audio_packets(video)
    with av.open(io.BytesIO(response.content), mode="r") as container:
        assert container.streams.audio[0].codec_context.channels == 6
    for old, new in zip(before, after, strict=True):
        difference = np.abs(old.astype(int) - new).mean(axis=2)
        assert np.percentile(difference, 25) < 4, "pixels outside the face are unchanged"
        assert difference[70:130, 50:90].min() > 20, "the face is replaced"


def make_request(source: bytes, **fields: Any) -> SwapVideo:
    return SwapVideo.model_validate({"source": source, "face": FACE, **fields})


async def run(request: SwapVideo, graph: FakeGraph, steps: list[Step] | None = None, **limits: Any) -> Result:
    """Return the result of a request, with its file in memory."""
    result = await pipelines_over(graph, **limits).video_swap.run(request, make_context(steps=steps))
    return replace(result, data=read_media(result.data))


def frames_of(data: bytes) -> Frames:
    return np.stack(decode_all(open_source(data, LIMITS))[0])


async def test_every_frame_with_a_face_is_swapped_and_the_sound_is_kept() -> None:
    graph, steps = FakeGraph(), list[Step]()
    film = clip(stranger(), 9, 8, (64, 48))
    result = await run(make_request(film), graph, steps)
    assert (result.frames, result.fps, result.seed) == (9, Fraction(8), None)
    assert result.swap is not None
    assert (result.swap.frames, result.swap.swapped) == (9, 9)
    assert frames_of(read_media(result.data)).min() > 250, "every frame is white"
    assert audio_packets(read_media(result.data)) == audio_packets(film)
    decoded = [step.index for step in steps if isinstance(step, ChunkStep) and step.kind == "decoded"]
    encoded = [step.index for step in steps if isinstance(step, ChunkStep) and step.kind == "encoded"]
    assert decoded == encoded == [0, 4, 8]


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("matroska", "flac")])
async def test_no_file_of_a_caller_is_opened_in_this_process(
    container: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that crashes would end the Runner with all of its jobs."""
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 24_000)).astype(np.float32)
    source = film_with_sound(container, codec, wave, "stereo")
    av_open: Callable[..., Any] = av.open

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    def open_for_writing(file: object, mode: str | None = None, **options: Any) -> Any:
        assert mode == "w", "a container was opened to be read"
        return av_open(file, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", open_for_writing)
        patch.setattr(PIL.Image, "open", refuse)
        result = await run(make_request(source), FakeGraph())
    data = read_media(result.data)
    assert audio_packets(data) == audio_packets(reencode(open_source(source, LIMITS)).read())
    assert frames_of(data).shape[0] == result.frames == 8


async def test_another_rate_repeats_frames_and_keeps_the_duration() -> None:
    result = await run(make_request(clip(stranger(), 8, 8, (64, 48)), fps=16.0), FakeGraph())
    assert (result.frames, result.fps) == (16, Fraction(16))
    assert decode(read_media(result.data)).frames == 16


async def test_a_rate_that_makes_too_many_frames_is_refused_before_a_gpu_works() -> None:
    graph = FakeGraph()
    with pytest.raises(RequestRefused, match="results in 24 frames; at most 20 are accepted: lower it") as refused:
        await run(make_request(clip(stranger(), 8, 8, (64, 48)), fps=24.0), graph, max_source_frames=20)
    assert refused.value.field == "fps"
    assert graph.swapper.identified == []


@pytest.mark.parametrize(
    ("limits", "detail"),
    [
        ({"max_source_frames": 7}, "at least 8 frames"),
        ({"max_source_seconds": 0.5}, "lasts 1.0 seconds"),
        ({"max_source_pixels": 64 * 47}, "64 x 48 pixels"),
    ],
)
async def test_a_video_over_a_limit_is_refused_before_a_gpu_works(limits: dict[str, Any], detail: str) -> None:
    graph = FakeGraph()
    with pytest.raises(MediaOverLimit) as over:
        await run(make_request(clip(stranger(), 8, 8, (64, 48))), graph, **limits)
    assert over.value.field == "source"
    assert detail in over.value.detail
    assert graph.swapper.identified == []


async def test_a_required_face_that_no_frame_shows_is_a_refusal() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=()))
    request = make_request(animation("GIF", pan(stranger(), 5, 64, 48)), require_face=True)
    with pytest.raises(RequestRefused, match="`require_face` is true") as refused:
        await run(request, graph)
    assert refused.value.field == "source"
    result = await run(request.model_copy(update={"require_face": False}), graph)
    assert result.swap is not None
    assert (result.frames, result.swap.swapped) == (5, 0)


def test_a_still_image_is_served_as_a_video_of_one_frame() -> None:
    body = {"source_video": data_uri(PORTRAIT.read_bytes(), "video/mp4"), "reference_image": data_uri(FACE, "image/jpeg")}
    graph = FakeGraph()
    app = make_service_of(AppConfig(runner=RunnerSettings(h264_crf=1)), graph)
    response = TestClient(app).post("/video-faceswap", json=body)
    assert response.headers["x-model"] == "batch-video-faceswap"
    assert (response.headers["x-frames"], response.headers["x-frames-swapped"]) == ("1", "1")
    assert frames_of(response.content).shape == (1, 192, 160, 3)
