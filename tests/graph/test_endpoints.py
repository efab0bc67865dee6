"""The seven endpoints over HTTP, through the real graph; every answer is decoded and examined."""

import io
import re
from collections.abc import Iterator
from fractions import Fraction

import av
import httpx
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageSequence
import pytest

from deployments.faces.analysis import OpenCVAnalyser
from serve.cli.smoke import ENDPOINTS
from serve.client import Answer, check_answer, decode
from serve.http.examples import payload
from serve.media.data_uri import decode_base64
from serve.media.images import encode_image
from serve.media.samples import PORTRAIT, clip, data_uri, group, jpeg, portrait, stranger
from tests.graph.conftest import SHORT, Service
from tests.graph.frames import face_at, face_of, frames_of
from tests.pictures import decode_image

pytestmark = pytest.mark.graph


def audio_of(data: bytes) -> list[tuple[int | None, bytes]]:
    with av.open(io.BytesIO(data), mode="r") as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(container.streams.audio[0]) if packet.size]


def pictures_of(data: bytes) -> list[npt.NDArray[np.uint8]]:
    """Return the frames of an animation."""
    with PIL.Image.open(io.BytesIO(data)) as animation:
        return [np.asarray(frame.convert("RGB")) for frame in PIL.ImageSequence.Iterator(animation)]


@pytest.fixture(scope="module")
def answers(service: Service) -> Iterator[dict[str, Answer]]:
    with httpx.Client(timeout=120) as http:
        found = {}
        for name in ENDPOINTS:
            response = http.post(f"{service.url}/{name}", json=payload(name))
            assert response.status_code == 200, response.text
            found[name] = Answer(response.content, response.headers, 0.0)
        yield found


@pytest.mark.parametrize("name", ENDPOINTS)
def test_answer_is_what_its_headers_say(answers: dict[str, Answer], name: str) -> None:
    answer = answers[name]
    decoded = check_answer(name, answer)
    headers = answer.headers
    video = name.startswith("wan")
    swap = "faceswap" in name
    assert decoded.frames == (SHORT["num_frames"] if video else 17 if "batch" in name else 1)
    assert (decoded.width, decoded.height) == ((128, 128) if video else (192, 224) if "batch" in name else (260, 300))
    assert headers["x-gpu-type"] == "CPU"
    assert headers["content-disposition"].startswith(f'inline; filename="{name}-')
    assert ("x-seed" in headers) == video
    assert headers.get("x-seed", "7") == "7"
    assert ("x-fps" in headers) == (name != "image-faceswap")
    assert ("x-face-engine" in headers) == swap
    if swap:
        assert headers["x-face-engine"] == "alignment"
        assert headers["x-face-restorer"] == "none"
        assert headers["x-frame-count"] == headers["x-frames"]
    phases = {part.split(";")[0].strip() for part in headers["server-timing"].split(",")}
    assert phases >= ({"denoise", "decode", "encode", "queue"} if video else {"swap", "encode"})
    # Wan26 costs 0.001 USD per second in this configuration, the others nothing.
    cost, seconds = float(headers["x-cost-usd"]), float(headers["x-execution-time-sec"])
    assert seconds > 0
    assert (cost > 0) == name.startswith("wan2.6")
    if name in ("wan2.6", "wan2.6-i2v"):
        assert cost == pytest.approx(seconds * 0.001, abs=2e-6)


def test_image_faceswap_puts_the_reference_there_and_touches_nothing_else(
    service: Service, http: httpx.Client, analyser: OpenCVAnalyser
) -> None:
    source = group()
    body = {
        "source_image": data_uri(encode_image(source, "image/png"), "image/png"),
        "reference_image": payload("wan2.6-i2v")["reference_image"],
    }
    response = http.post(f"{service.url}/image-faceswap", json=body, headers={"accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-faces-found"] == "6"
    result = np.asarray(PIL.Image.open(io.BytesIO(response.content)))
    before, wanted = (face_of(analyser, image) for image in (source, portrait()))
    after = face_at(analyser, result, before)  # which need not be the largest any more
    assert after.embedding @ wanted.embedding > after.embedding @ before.embedding + 0.1
    size = max(before.box[2] - before.box[0], before.box[3] - before.box[1])
    centre = np.array([before.box[[0, 2]].mean(), before.box[[1, 3]].mean()])
    rows, columns = np.mgrid[: source.shape[0], : source.shape[1]]
    far = np.hypot(columns - centre[0], rows - centre[1]) > 1.5 * size
    assert far.mean() > 0.5
    np.testing.assert_array_equal(result[far], source[far])
    assert np.abs(result.astype(int) - source)[~far].mean() > 1


def test_video_faceswap_swaps_every_frame_and_keeps_the_sound(
    service: Service, answers: dict[str, Answer], analyser: OpenCVAnalyser
) -> None:
    source = clip(stranger())
    answer = answers["batch-video-faceswap"]
    assert answer.headers["x-frames-swapped"] == "17"
    assert answer.headers["x-fps"] == "16"
    wanted = face_of(analyser, portrait()).embedding
    originals, results = frames_of(source), frames_of(answer.data)
    assert len(originals) == len(results) == 17
    for original, result in zip(originals, results, strict=True):
        swapped = face_of(analyser, result).embedding
        assert swapped @ wanted > swapped @ face_of(analyser, original).embedding
    assert audio_of(answer.data) == audio_of(source)
    starts = []
    for data in (source, answer.data):
        with av.open(io.BytesIO(data), mode="r") as container:
            first = {
                stream.type: min(p.pts * p.time_base for p in container.demux(stream) if p.pts is not None)
                for stream in (container.streams.video[0],)
            }
        starts.append(first["video"])
    assert abs(starts[0] - starts[1]) < Fraction(1, 16)


@pytest.mark.parametrize(
    ("name", "field"), [("wan2.6-i2v-faceswap", "reference_image"), ("wan22-i2v-faceswap", "source_image")]
)
def test_a_generated_video_shows_the_person_and_then_the_other_face(
    service: Service, http: httpx.Client, answers: dict[str, Answer], analyser: OpenCVAnalyser, name: str, field: str
) -> None:
    answer = answers[name]
    assert answer.headers["x-frames-swapped"] == answer.headers["x-frames"] == str(SHORT["num_frames"])
    body = payload(name)
    shown, wanted = (
        face_of(analyser, decode_image(decode_base64(body[part]), 10**8)).embedding for part in (field, "face_image")
    )
    plain = http.post(
        f"{service.url}/{name.removesuffix('-faceswap')}",
        json={k: v for k, v in body.items() if k != "face_image"},
        headers={"accept": "video/mp4"},
    )
    for before, after in zip(frames_of(plain.content), frames_of(answer.data), strict=True):
        generated, swapped = face_of(analyser, before).embedding, face_of(analyser, after).embedding
        assert generated @ shown > generated @ wanted  # the model keeps the person in the image
        assert swapped @ wanted > generated @ wanted + 0.1  # and the swap brings the other person's face


def test_multipart_gives_the_same_as_json(service: Service, http: httpx.Client, answers: dict[str, Answer]) -> None:
    files = {
        "source_image": ("a.png", jpeg(stranger()), "image/png"),  # a wrong media type, as today's callers send it
        "reference_image": ("b.jpg", PORTRAIT.read_bytes(), "image/jpeg"),
    }
    response = http.post(f"{service.url}/image-faceswap", files=files, data={"restore_face": "false"})
    assert response.status_code == 200, response.text
    assert decode(response.content) == decode(answers["image-faceswap"].data)
    same = np.asarray(PIL.Image.open(io.BytesIO(response.content))).astype(int)
    assert np.array_equal(same, np.asarray(PIL.Image.open(io.BytesIO(answers["image-faceswap"].data))))


def test_same_seed_same_frames_and_another_seed_others(
    service: Service, http: httpx.Client, answers: dict[str, Answer]
) -> None:
    again = http.post(f"{service.url}/wan2.6", json=payload("wan2.6"))
    assert again.content == answers["wan2.6"].data
    other = http.post(f"{service.url}/wan2.6", json={**payload("wan2.6"), "seed": 8, "steps": 2})
    assert other.content != answers["wan2.6"].data


def test_acceleration_is_used_on_request_and_reported(service: Service, http: httpx.Client, answers: dict[str, Answer]) -> None:
    """An accelerated video differs from the exact one, but less than another seed's video does."""
    assert "x-acceleration" not in answers["wan2.6"].headers

    def post(**fields: object) -> httpx.Response:
        return http.post(f"{service.url}/wan2.6", json={**payload("wan2.6"), **fields})

    quick, other = post(acceleration="fast"), post(seed=8)
    reported = re.fullmatch(r"cache; every=3; reused=(\d+)/(\d+)", quick.headers["x-acceleration"])
    assert reported is not None, quick.headers["x-acceleration"]
    assert 0 < int(reported[1]) < int(reported[2])
    exact, reused, strange = (
        np.stack(pictures_of(data)).astype(int) for data in (answers["wan2.6"].data, quick.content, other.content)
    )
    assert 0 < np.abs(exact - reused).mean() < np.abs(exact - strange).mean()
    refused = post(acceleration="warp")
    (error,) = refused.json()["errors"]
    assert (refused.status_code, error["pointer"]) == (422, "#/acceleration")
    assert "'cache'" in error["detail"]


def test_a_distilled_video_of_four_steps_is_like_the_exact_one(service: Service, http: httpx.Client) -> None:
    """Four passes instead of 24 stay nearer to the exact video than another seed's video."""
    prompt = "a red square moves to the left on a black background"

    def post(**fields: object) -> tuple[npt.NDArray[np.int64], httpx.Response]:
        body = {"prompt": prompt, "width": 64, "height": 64, "seed": 1, **fields}
        response = http.post(f"{service.url}/wan2.6", json=body, headers={"Accept": "video/mp4"})
        return np.stack(frames_of(response.content)).astype(int), response

    (exact, _), (strange, _) = post(steps=12, cfg=3), post(steps=12, cfg=3, seed=2)
    distilled, response = post(acceleration="distilled", negative_prompt="blurred")
    assert response.headers["x-acceleration"] == "distilled; steps=4"
    assert response.headers["x-ignored-fields"] == "negative_prompt"
    assert 0 < np.abs(exact - distilled).mean() < 0.5 * np.abs(exact - strange).mean()
    assert np.array_equal(distilled, post(acceleration="distilled")[0])


def test_concurrent_requests_do_not_mix(service: Service, answers: dict[str, Answer]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bodies = [{**payload("wan2.6"), "width": 64, "height": 64, "steps": 4, "seed": seed} for seed in (1, 2)]

    def post(body: dict[str, object]) -> bytes:
        return httpx.post(f"{service.url}/wan2.6", json=body, timeout=120).content

    alone = [post(body) for body in bodies]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(post, bodies))
    assert together == alone
    assert alone[0] != alone[1]
