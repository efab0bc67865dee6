"""Settings of `spread` that contradict each other are refused when the configuration is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve.config import AppConfig

CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "one GPU": (
        {"hardware": {"num_gpus": 1}, "engine": {"spread": "experts"}},
        "wan22_gguf.hardware.num_gpus is 1, but this spread needs two GPUs or more",
    ),
    "four GPUs for two experts": (
        {"hardware": {"num_gpus": 4}, "engine": {"spread": "experts"}},
        "`experts` and wan22_gguf.hardware.num_gpus is 4, but this spread needs two GPUs, one for each expert",
    ),
    "an odd number": (
        {"hardware": {"num_gpus": 3}, "engine": {"spread": "guidance"}},
        "`guidance` and wan22_gguf.hardware.num_gpus is 3, but this spread needs an even number of GPUs.*`spread: sequence`",
    ),
    "part of a GPU": ({"hardware": {"num_gpus": 0.5}, "engine": {"spread": "sequence"}}, "needs two GPUs or more"),
    "an idle GPU": ({"hardware": {"num_gpus": 2}}, "only one GPU would be used: set wan22_gguf.engine.spread"),
    "offloaded": ({"engine": {"spread": "experts", "experts": "offloaded"}}, "is for a single small GPU"),
    "batched": (
        {"engine": {"spread": "guidance", "batch_guidance": True}},
        "on two GPUs, `batch_guidance` .*both in one",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradicting_settings_are_refused(kind: str) -> None:
    settings, message = CONTRADICTIONS[kind]
    with pytest.raises(ValidationError, match=message):
        AppConfig.model_validate({"wan22_gguf": settings})


@pytest.mark.parametrize(
    ("spread", "count"),
    [("experts", 2), ("guidance", 2), ("guidance", 4), ("guidance", 8), ("sequence", 2), ("sequence", 3), ("sequence", 8)],
)
def test_gpus_that_can_all_be_used_are_accepted(spread: str, count: int) -> None:
    AppConfig.model_validate({"wan22_gguf": {"hardware": {"num_gpus": count}, "engine": {"spread": spread}}})
