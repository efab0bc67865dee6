"""Example requests, one for each endpoint.

They are the examples of the OpenAPI document and the payloads of `ryla smoke`, the load test and
the tests.
"""

from functools import cache
from typing import Any

from serve.media.samples import OFFICER, PORTRAIT, clip, data_uri, jpeg, stranger


@cache
def example(name: str) -> dict[str, Any]:
    """Return a body for the endpoint ``name`` that is short enough for a document.

    Every field that it leaves out has a default.
    """
    face = data_uri(PORTRAIT.read_bytes(), "image/jpeg")
    other = data_uri(jpeg(stranger()), "image/jpeg")
    officer = data_uri(OFFICER.read_bytes(), "image/jpeg")
    circle = {"prompt": "a red circle moves to the right", "seed": 7}
    zoom = {"prompt": "a portrait of an officer, the camera zooms in", "seed": 7}
    pan = {"prompt": "a smiling astronaut, the camera pans left", "seed": 7}
    bodies: dict[str, dict[str, Any]] = {
        "wan2.6": circle,
        "wan2.6-i2v": {**pan, "reference_image": face},
        "wan2.6-i2v-faceswap": {**zoom, "reference_image": officer, "face_image": face},
        "wan22-i2v": {**zoom, "source_image": officer},
        "wan22-i2v-faceswap": {**pan, "source_image": face, "face_image": officer},
        "image-faceswap": {"source_image": other, "reference_image": face},
        "batch-video-faceswap": {"source_video": other, "reference_image": face},
    }
    return bodies[name]


@cache
def payload(name: str) -> dict[str, Any]:
    """Return the example with a real clip where the endpoint takes a video."""
    body = example(name)
    return {**body, "source_video": data_uri(clip(stranger()), "video/mp4")} if "source_video" in body else body
