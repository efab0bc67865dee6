"""Settings of `spread` that contradict each other are refused when the configuration is read."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve.config import AppConfig

CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "one GPU": (
        {"hardware": {"num_gpus": 1}, "engine": {"spread": "experts"}},
        "needs 2 GPUs, but wan22_gguf.hardware.num_gpus is 1",
    ),
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


def test_two_gpus_for_two_experts_are_accepted() -> None:
    AppConfig.model_validate({"wan22_gguf": {"hardware": {"num_gpus": 2}, "engine": {"spread": "experts"}}})
