"""Every setting is typed, documented and consistent with the others."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from serve.config import AppConfig, Hardware, Limits, RunnerSettings
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26


def test_unknown_and_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        AppConfig.model_validate({"wan27": {}})
    with pytest.raises(ValidationError, match="over its limit"):
        AppConfig.model_validate({"limits": {"max_frames": 5}})


def test_every_setting_is_documented() -> None:
    def undocumented(model: type[BaseModel], path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(f"{path}.{name}")
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    found += undocumented(kind, f"{path}.{name}")
        return found

    assert undocumented(AppConfig, "AppConfig") == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_steps": 29}, r"wan26_defaults\.steps is 30, which is over its limit of 29"),
        ({"max_width": 816}, r"wan26_defaults\.width is 832, which is over its limit of 816"),
        ({"max_height": 464}, r"wan26_defaults\.height is 480, which is over its limit of 464"),
        ({"max_cfg": 5.5}, r"wan26_defaults\.cfg is 6\.0, which is over its limit of 5\.5"),
        ({"max_fps": 12}, r"wan26_defaults\.fps is 16, which is over its limit of 12"),
        ({"max_pixels": 1000}, r"wan26_defaults: 832 x 480 is more than limits\.max_pixels"),
    ],
)
def test_a_default_over_a_limit_is_refused_because_no_request_could_use_it(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AppConfig.model_validate({"limits": limits})


def test_the_steps_of_a_distilled_model_have_the_limit_of_all_steps() -> None:
    with pytest.raises(ValidationError, match=r"wan26_defaults\.distilled_steps is 8, which is over its limit of 6"):
        AppConfig.model_validate(
            {"limits": {"max_steps": 6}, "wan26_defaults": {"steps": 6, "distilled_steps": 8}, "wan22_defaults": {"steps": 6}}
        )


@pytest.mark.parametrize("setting", ["wan26", "wan22_gguf"])
def test_several_gpus_must_be_used_and_a_spread_needs_two(setting: str) -> None:
    def config(spread: str, num_gpus: float) -> AppConfig:
        hardware = {"num_gpus": num_gpus}
        return AppConfig.model_validate({setting: {"hardware": hardware, "engine": {"spread": spread}}})

    with pytest.raises(ValidationError, match=rf"{setting}\.hardware\.num_gpus is 2, but only one GPU would be used"):
        config("none", 2)
    with pytest.raises(
        ValidationError, match=rf"{setting}\.engine\.spread is `guidance` and .* is 1, but this spread needs two GPUs"
    ):
        config("guidance", 1)
    assert getattr(config("guidance", 2), setting).engine.spread == "guidance"
    assert getattr(config("none", 0.5), setting).hardware.num_gpus == 0.5


@pytest.mark.parametrize(
    ("hardware", "label"),
    [
        ({}, "CPU"),
        ({"num_gpus": 0.5}, "GPU"),
        ({"num_gpus": 1, "accelerator_type": "L40S"}, "L40S"),
        ({"num_gpus": 1, "accelerator_type": "L40S", "gpu_type": "NVIDIA L40S 48 GB"}, "NVIDIA L40S 48 GB"),
    ],
)
def test_the_label_of_hardware_is_the_most_exact_name_that_is_known(hardware: dict[str, Any], label: str) -> None:
    assert Hardware.model_validate(hardware).label == label


def test_the_settings_of_a_deployment_are_found_by_its_model() -> None:
    config = AppConfig.model_validate({"face_swapper": {"hardware": {"num_cpus": 7}}})
    assert config.deployment_of(FACE_SWAPPER).hardware.num_cpus == 7
    assert config.deployment_of(WAN26) is config.wan26
    assert config.deployment_of(WAN22_GGUF) is config.wan22_gguf


def test_settings_that_no_request_could_live_with_are_refused() -> None:
    for wrong in ({"window": 1}, {"swap_ahead": 0}, {"encoder_threads": 0}, {"h264_crf": 52}, {"h264_preset": "placebo"}):
        with pytest.raises(ValidationError):
            RunnerSettings.model_validate(wrong)
    with pytest.raises(ValidationError):
        Limits(max_width=1000)


def test_the_proxy_must_have_room_for_the_largest_body() -> None:
    AppConfig.model_validate({"proxy": {"max_receiving_bytes": 4000}, "limits": {"max_body_bytes": 3000}})
    with pytest.raises(ValueError, match=r"too little for a body of limits\.max_body_bytes, 3001"):
        AppConfig.model_validate({"proxy": {"max_receiving_bytes": 4000}, "limits": {"max_body_bytes": 3001}})
