"""A mode selects the transformer for each forward pass."""

from typing import Any

import pytest
from diffusers import WanImageToVideoPipeline, WanPipeline, WanVACEPipeline

from deployments.video.mode import Mode

EXPERTS: dict[str, Any] = {"transformer": "high noise", "transformer_2": "low noise"}
TWINS: tuple[dict[str, Any], ...] = tuple({part: f"{name} {number}" for part, name in EXPERTS.items()} for number in (1, 2, 3))


def mode_of(devices: int, *, splits_guidance: bool = True) -> Mode:
    return Mode(
        pipeline_class=WanImageToVideoPipeline,
        scheduler=None,
        transformers=EXPERTS,
        boundary=0.9,
        twins=TWINS[: devices - 1],
        splits_guidance=splits_guidance,
    )


@pytest.mark.parametrize(
    ("timestep", "number", "expected"),
    [
        (1000.0, 0, "high noise"),
        (900.0, 0, "high noise"),
        (899.9, 0, "low noise"),
        (1000.0, 1, "high noise 1"),
        (0.0, 3, "low noise 3"),
    ],
)
def test_experts_switch_under_the_boundary_on_every_device(timestep: float, number: int, expected: str) -> None:
    assert mode_of(4).transformer_at(timestep, number) == expected


@pytest.mark.parametrize(
    ("devices", "splits_guidance", "with_prompt", "without", "alone"),
    [
        (1, True, [0], [0], [0]),
        (2, True, [0], [1], [0, 1]),
        (4, True, [0, 1], [2, 3], [0, 1, 2, 3]),
        (2, False, [0, 1], [0, 1], [0, 1]),
        (3, False, [0, 1, 2], [0, 1, 2], [0, 1, 2]),
    ],
)
def test_the_devices_are_shared_by_the_passes_of_a_step(
    devices: int, splits_guidance: bool, with_prompt: list[int], without: list[int], alone: list[int]
) -> None:
    mode = mode_of(devices, splits_guidance=splits_guidance)
    assert [*mode.team(0, alone=False, most=9)] == with_prompt
    assert [*mode.team(1, alone=False, most=9)] == without
    assert [*mode.team(0, alone=True, most=9)] == alone


def test_a_small_pass_is_shared_by_fewer_devices() -> None:
    mode = mode_of(4)
    assert [*mode.team(0, alone=True, most=3)] == [0, 1, 2]
    assert [*mode.team(0, alone=False, most=1)] == [0]
    assert [*mode.team(1, alone=False, most=1)] == [2]


def test_the_pipeline_decides_whether_a_mode_takes_images() -> None:
    takes_image = [
        Mode(pipeline_class=pipeline_class, scheduler=None, transformers={}).takes_image
        for pipeline_class in (WanPipeline, WanImageToVideoPipeline, WanVACEPipeline)
    ]
    assert takes_image == [False, True, True]
