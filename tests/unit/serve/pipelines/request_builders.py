"""Builds the requests and contexts that the tests of pipelines share."""

from typing import Any

from serve.config import AppConfig, Hardware, Limits
from serve.media.samples import PORTRAIT
from serve.models import MODELS
from serve.pipelines.context import RequestContext, Step
from serve.pipelines.meter import Meter
from serve.pipelines.pipelines import Pipelines, make_pipelines
from serve.pipelines.requests import GenerateVideo
from tests.unit.serve.fake_graph import FakeGraph

FACE = PORTRAIT.read_bytes()


def make_context(media_type: str = "video/mp4", *, seed: int = 7, steps: list[Step] | None = None) -> RequestContext:
    """Return a context whose observer appends to ``steps``; every model costs 1 USD a second."""
    meter = Meter({model.name: Hardware(price_usd_per_hour=3600) for model in MODELS})
    return RequestContext(seed=seed, media_type=media_type, meter=meter, observe=([] if steps is None else steps).append)


def pipelines_over(graph: FakeGraph, **limits: Any) -> Pipelines:
    """Return the pipelines over a fake graph, with default settings but for ``limits``."""
    return make_pipelines(AppConfig(limits=Limits(**limits)), graph.handles())


def video_request(**fields: Any) -> GenerateVideo:
    """Return a request for a small video of nine frames."""
    defaults: dict[str, Any] = {
        "prompt": "a cat",
        "negative_prompt": "blurred",
        "width": 64,
        "height": 48,
        "num_frames": 9,
        "steps": 2,
        "cfg": 4.0,
        "fps": 8.0,
        "seed": None,
    }
    return GenerateVideo(**{**defaults, **fields})
