"""The deployments' settings: what is refused, and that every setting is described."""

import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments import settings
from deployments.settings import (
    AlignmentFaceModels,
    FaceSettings,
    Settings,
    Size,
    Tracking,
    VideoSettings,
    Wan22Models,
    Wan22Settings,
    Wan26Models,
    Wan26Settings,
)

ALL = [c for _, c in inspect.getmembers(settings, inspect.isclass) if issubclass(c, Settings) and c is not Settings]


@pytest.mark.parametrize("model", ALL)
def test_every_setting_is_described_in_a_sentence(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        text = " ".join((field.description or "").split())
        assert text[:1].isupper() or text.startswith("`"), name
        assert text.endswith((".", ".)")), name


def test_unknown_settings_are_refused_and_known_ones_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Tracking.model_validate({"detect_evry": 2})
    tracking = Tracking()
    with pytest.raises(ValidationError, match="frozen"):
        tracking.detect_every = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention": "cudnn", "dtype": "float32"}, "does not support `dtype: float32`"),
        ({"spread": "guidance", "batch_guidance": True}, "choose one of them"),
        ({"cache_threshold": 2.5}, "less than or equal to 2"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"stall_timeout_s": 0}, "greater than 0"),
    ],
)
@pytest.mark.parametrize("model", [Wan26Settings, Wan22Settings])
def test_video_settings_that_contradict_each_other_are_refused(
    model: type[VideoSettings], values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(values)


def test_offloaded_experts_run_on_one_gpu_only() -> None:
    assert Wan22Settings(experts="offloaded").spread == "none"
    for spread in ("guidance", "experts"):
        with pytest.raises(ValidationError, match="leave it out with `spread`"):
            Wan22Settings.model_validate({"experts": "offloaded", "spread": spread})


def test_image_weights_need_their_folder() -> None:
    with pytest.raises(ValidationError, match="needs `image`"):
        Wan26Models(text="wan", image_weights=Path("vace.safetensors"))
    assert Wan26Models(text="wan", image="vace", image_weights=Path("vace.safetensors")).image == "vace"


@pytest.mark.parametrize("only", ["high_noise_distilled", "low_noise_distilled"])
def test_both_experts_are_distilled_or_neither(only: str) -> None:
    both = {"folder": "a14b", "high_noise": Path("high.gguf"), "low_noise": Path("low.gguf")}
    with pytest.raises(ValidationError, match="set both or neither"):
        Wan22Models.model_validate({**both, only: Path("lora.safetensors")})
    assert Wan22Models.model_validate(both).high_noise_distilled is None


@pytest.mark.parametrize(("width", "height"), [(840, 480), (832, 470), (0, 480)])
def test_sizes_are_multiples_of_16(width: int, height: int) -> None:
    with pytest.raises(ValidationError):
        Size(width=width, height=height)


def test_a_detector_sees_a_multiple_of_32() -> None:
    with pytest.raises(ValidationError, match="multiple of 32"):
        FaceSettings(detection_size=650)
    assert FaceSettings(detection_size=320).detection_size == 320


def test_the_swap_by_alignment_needs_both_models() -> None:
    with pytest.raises(ValidationError, match="recogniser"):
        AlignmentFaceModels.model_validate({"detector": "yunet.onnx"})
