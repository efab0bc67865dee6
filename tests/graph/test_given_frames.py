"""Frames that a caller gives: a first and a last one, a video to change, and one to continue."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from deployments.wire import Frames
from serve.media.images import cover
from serve.media.samples import OFFICER, PORTRAIT
from tests.graph.conftest import Service
from tests.graph.frames import frames_of
from tests.pictures import decode_image
from tests.unit.serve.media.make_media import animation

pytestmark = pytest.mark.graph

Pixels = npt.NDArray[np.float64]
SIDE = 64
SMALL = {"width": SIDE, "height": SIDE, "length": 5, "steps": 2, "cfg": 1, "seed": 1, "fps": 10}
PROMPT = "a red square moves to the right on a black background"


def moving_square(count: int) -> Frames:
    """Return frames in which a red square moves to the right by 4 pixels each."""
    frames = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[24:40, 4 * number : 4 * number + 16] = (220, 30, 30)
    return frames


SOURCE = moving_square(12)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def make(service: Service, http: httpx.Client, path: str, **fields: Any) -> tuple[Pixels, httpx.Headers]:
    response = http.post(f"{service.url}{path}", json={**SMALL, **fields}, headers={"accept": "video/mp4"})
    assert response.status_code == 200, response.text
    return np.stack(frames_of(response.content)).astype(float), response.headers


def differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the mean difference of two pictures or videos."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def of_file(path: Path) -> Pixels:
    return cover(decode_image(path.read_bytes(), 10**7), SIDE, SIDE).astype(float)


def test_a_model_that_was_not_trained_for_a_last_frame_refuses_it(service: Service, http: httpx.Client) -> None:
    """The engine's tests compare videos between two frames with those of diffusers' pipelines."""
    first = {"prompt": "a portrait of an astronaut", "reference_image": text(PORTRAIT.read_bytes())}
    for path in ("/wan2.6-i2v", "/wan22-i2v"):
        made, _ = make(service, http, path, **first)
        assert differ(made[0], of_file(PORTRAIT)) < differ(made[0], of_file(OFFICER)) / 2
        response = http.post(f"{service.url}{path}", json={**SMALL, **first, "last_image": text(OFFICER.read_bytes())})
        assert response.status_code == 422, response.text
        (error,) = response.json()["errors"]
        assert (error["pointer"], error["detail"]) == (
            "#/last_image",
            "this model was not trained to end with a given frame; leave it out",
        )


def test_a_video_of_a_video_is_more_like_it_with_less_strength(service: Service, http: httpx.Client) -> None:
    source = {"prompt": PROMPT, "steps": 4, "source_video": text(animation("gif", SOURCE))}
    little, everything = (make(service, http, "/wan2.6", **source, strength=strength)[0] for strength in (0.3, 1))
    assert len(little) == 5
    signal = [10 * np.log10(255**2 / np.square(video - SOURCE[:5]).mean()) for video in (little, everything)]
    assert signal[0] > max(20, signal[1] + 5), signal


def test_a_continued_video_begins_with_the_end_of_the_source(service: Service, http: httpx.Client) -> None:
    made, _ = make(service, http, "/wan2.6", prompt=PROMPT, source_video=text(animation("gif", SOURCE)), extend=4)
    assert len(made) == 5
    assert differ(made[:4], SOURCE[-4:]) < 0.75 * differ(made[:4], SOURCE[:4])


def test_a_video_that_is_too_large_is_made_smaller_in_its_shape(service: Service, http: httpx.Client) -> None:
    made, headers = make(service, http, "/wan2.6", prompt=PROMPT, width=512, height=64)
    assert headers["x-adjusted"] == "width=256; height=32"
    assert made.shape == (5, 32, 256, 3)
