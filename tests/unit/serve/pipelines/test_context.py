"""What a request carries through its pipeline."""

import dataclasses

import pytest

from deployments.wire import Progress
from serve.pipelines.context import ChunkStep, Step
from tests.unit.serve.pipelines.request_builders import make_context


def test_the_seed_of_a_request_cannot_change_on_its_way() -> None:
    context = make_context(seed=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.seed = 4  # type: ignore[misc]
    assert context.seed == 3


def test_an_observer_sees_steps_of_the_model_and_of_chunks() -> None:
    steps: list[Step] = []
    observe = make_context(steps=steps).observe
    observe(Progress("denoise", 1, 2))
    observe(ChunkStep("decoded", 0))
    assert steps == [Progress("denoise", 1, 2), ChunkStep("decoded", 0)]
