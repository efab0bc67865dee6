"""The pipelines of a replica, and how often one runs if a replica is lost."""

import logging
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, WorkerCrashedError

from deployments.errors import NoFaceFound
from serve.media.images import encode_image
from serve.models import MODELS, WAN26
from serve.pipelines import pipelines as module
from serve.pipelines.attempts import ATTEMPTS
from serve.pipelines.context import RequestContext
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.handles import VideoHandle
from serve.pipelines.image_swap import ImageSwapPipeline
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.requests import GenerateVideo, SwapImage
from serve.pipelines.result import Result
from serve.pipelines.video import VideoPipeline
from serve.pipelines.video_swap import VideoSwapPipeline
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.pipelines.request_builders import FACE, make_context, pipelines_over, video_request


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


class Flaky:
    """A video pipeline that fails once with each of ``errors`` and then succeeds.

    Each run reports a second of work.
    """

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.seeds: list[int] = []
        """The seed of each run."""

    async def run(self, model: VideoHandle, request: GenerateVideo, context: RequestContext) -> Result:
        self.seeds.append(context.seed)
        context.meter.add_work(model.model.name, 1)
        if self._errors:
            raise self._errors.pop(0)
        return Result(b"file", "video/mp4", 1)


def with_video(pipeline: Flaky) -> Pipelines:
    """Return pipelines of which that for videos is ``pipeline``."""
    return replace(pipelines_over(FakeGraph()), video=cast(VideoPipeline, pipeline))


async def test_a_lost_replica_costs_an_attempt_but_no_money(caplog: pytest.LogCaptureFixture) -> None:
    flaky, context = Flaky(ActorDiedError()), make_context(seed=5)
    module.logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, "ray.serve"):
            result = await with_video(flaky).run(WAN26.name, video_request(), context)
    finally:
        module.logger.removeHandler(caplog.handler)
    assert (result.attempts, result.data) == (2, b"file")
    assert flaky.seeds == [5, 5]
    assert context.meter.execution_s == 1, "the failed attempt is not charged"
    assert "a replica was lost (ActorDiedError)" in caplog.text


async def test_a_request_that_succeeds_at_once_is_run_once() -> None:
    flaky = Flaky()
    assert (await with_video(flaky).run(WAN26.name, video_request(), make_context())).attempts == 1
    assert len(flaky.seeds) == 1


@pytest.mark.parametrize("attempts", [ATTEMPTS, 4])
async def test_the_last_attempt_ends_the_request(attempts: int) -> None:
    flaky = Flaky(*(ActorDiedError() for _ in range(attempts - 1)), WorkerCrashedError())
    with pytest.raises(WorkerCrashedError):
        await with_video(flaky).run(WAN26.name, video_request(), make_context(), attempts=attempts)
    assert len(flaky.seeds) == attempts


async def test_a_request_that_is_at_fault_is_not_tried_again() -> None:
    flaky = Flaky(NoFaceFound("face", "no face found"))
    with pytest.raises(NoFaceFound):
        await with_video(flaky).run(WAN26.name, video_request(), make_context())
    assert len(flaky.seeds) == 1
