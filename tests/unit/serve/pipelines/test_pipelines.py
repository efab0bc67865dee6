"""The pipelines of a replica, built from its settings."""

import numpy as np
import pytest

from serve.media.images import encode_image
from serve.models import MODELS
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.image_swap import ImageSwapPipeline
from serve.pipelines.requests import SwapImage
from serve.pipelines.video import VideoPipeline
from serve.pipelines.video_swap import VideoSwapPipeline
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.pipelines.request_builders import FACE, make_context, pipelines_over


def test_there_is_a_pipeline_for_each_kind_of_request_and_a_handle_for_each_model() -> None:
    pipelines = pipelines_over(FakeGraph())
    assert isinstance(pipelines.video, VideoPipeline)
    assert isinstance(pipelines.image_swap, ImageSwapPipeline)
    assert isinstance(pipelines.video_swap, VideoSwapPipeline)
    assert [pipelines.handles.of(model.name).model for model in MODELS] == list(MODELS)


async def test_the_limit_for_images_holds_for_the_source_and_for_the_face() -> None:
    pipelines = pipelines_over(FakeGraph(), max_image_pixels=160 * 192 - 1)
    small = encode_image(np.full((40, 40, 3), 90, np.uint8), "image/png")
    for fields, field in (({"source": FACE, "face": small}, "source"), ({"source": small, "face": FACE}, "face")):
        with pytest.raises(MediaOverLimit) as over:
            await pipelines.image_swap.run(SwapImage.model_validate(fields), make_context("image/png"))
        assert over.value.field == field
