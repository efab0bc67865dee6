import json
from fractions import Fraction

import pytest

from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.http.examples import example, payload
from serve.media.data_uri import decode_base64
from serve.media.decode.opening import open_source
from serve.pipelines.requests import GenerateVideo
from tests.unit.serve.media.make_media import LIMITS

SCHEMAS = {endpoint.name: endpoint.schema for endpoint in make_endpoints(AppConfig())}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_endpoint_has_an_example_without_unknown_fields(name: str) -> None:
    request = SCHEMAS[name].parse(example(name), strict=True).request
    if isinstance(request, GenerateVideo):
        assert request.seed == 7  # so that a pasted example gives the same bytes every time
    assert len(json.dumps(example(name))) < 100_000


def test_the_payload_of_the_video_swap_is_a_real_clip() -> None:
    name = "batch-video-faceswap"
    still, source = (open_source(decode_base64(body["source_video"]), LIMITS) for body in (example(name), payload(name)))
    assert still.count == 1
    assert (source.count, source.fps) == (17, Fraction(16))
    assert source.audio is not None
    assert payload(name)["reference_image"] == example(name)["reference_image"]


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "batch-video-faceswap"])
def test_every_other_payload_is_the_example(name: str) -> None:
    assert payload(name) == example(name)


def test_an_endpoint_without_an_example_is_an_error() -> None:
    with pytest.raises(KeyError, match="image-upscale"):
        example("image-upscale")
