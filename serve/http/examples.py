"""Example requests, one for each endpoint.

They are the examples of the OpenAPI document and the payloads of `ryla smoke`, the load test and
the tests.
"""

from functools import cache
from typing import Any

from serve.media.samples import OFFICER, PORTRAIT, clip, data_uri, jpeg, stranger
from serve.route_table import EndpointName


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
        EndpointName.WAN26: circle,
        EndpointName.WAN26_I2V: {**pan, "reference_image": face},
        EndpointName.WAN26_I2V_FACESWAP: {**zoom, "reference_image": officer, "face_image": face},
        EndpointName.WAN22_I2V: {**zoom, "source_image": officer},
        EndpointName.WAN22_I2V_FACESWAP: {**pan, "source_image": face, "face_image": officer},
        EndpointName.IMAGE_FACESWAP: {"source_image": other, "reference_image": face},
        EndpointName.BATCH_VIDEO_FACESWAP: {"source_video": other, "reference_image": face},
    }
    return bodies[name]


@cache
def payload(name: str) -> dict[str, Any]:
    """Return the example with a real clip where the endpoint takes a video."""
    body = example(name)
    return {**body, "source_video": data_uri(clip(stranger()), "video/mp4")} if "source_video" in body else body
