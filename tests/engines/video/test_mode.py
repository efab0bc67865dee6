"""A mode selects the transformer for each forward pass."""

from typing import Any

import pytest
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

from deployments.video.mode import Mode
from deployments.video.sampling.guidance import Branch

EXPERTS: dict[str, Any] = {"transformer": "high noise", "transformer_2": "low noise"}
TWINS: dict[str, Any] = {"transformer": "high noise twin", "transformer_2": "low noise twin"}


@pytest.mark.parametrize(
    ("timestep", "branch", "expected"),
    [
        (1000.0, 0, "high noise"),
        (900.0, 0, "high noise"),
        (899.9, 0, "low noise"),
        (1000.0, 1, "high noise twin"),
        (0.0, 1, "low noise twin"),
    ],
)
def test_experts_switch_under_the_boundary_and_twins_run_without_the_prompt(
    timestep: float, branch: Branch, expected: str
) -> None:
    mode = Mode(pipeline_class=WanImageToVideoPipeline, scheduler=None, transformers=EXPERTS, boundary=0.9, twins=TWINS)
    assert mode.transformer_at(timestep, branch) == expected
    assert mode.devices == 2


def test_without_twins_both_passes_run_the_same_transformer() -> None:
    mode = Mode(pipeline_class=WanPipeline, scheduler=None, transformers={"transformer": "only"})
    assert {mode.transformer_at(0.0, 0), mode.transformer_at(1000.0, 1)} == {"only"}
    assert mode.devices == 1


def test_the_pipeline_decides_whether_a_mode_takes_images() -> None:
    takes_image = [
        Mode(pipeline_class=pipeline_class, scheduler=None, transformers={}).takes_image
        for pipeline_class in (WanPipeline, WanImageToVideoPipeline, WanVACEPipeline)
    ]
    assert takes_image == [False, True, True]
