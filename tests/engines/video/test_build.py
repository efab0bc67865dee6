"""The builders on two devices of one replica: the same videos. (On a CPU both devices are one.)"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video import build
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.experts import load_expert
from deployments.video.engine import WanEngine
from deployments.video.mode import Mode
from deployments.video.parallel import sequence
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints, wan22_models
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of, text_mode_of

CPU = torch.device("cpu")


def record_calls(mode: Mode) -> list[str]:
    """Return a list that receives the name of each transformer that is called from now on."""
    calls: list[str] = []
    for kind, transformers in (("own", mode.transformers), *(("twin", twins) for twins in mode.twins)):
        for name, transformer in transformers.items():
            transformer.register_forward_hook(lambda *_, call=f"{kind} {name}": calls.append(call))
    return calls


@pytest.mark.parametrize("model", ["text", "vace"])
def test_the_passes_of_a_guided_step_run_on_a_device_each(
    random_models: RandomCheckpoints, wan26: WanEngine, small: VideoRequest, image: Image, model: str
) -> None:
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace))
    engine = build_wan26(Wan26Settings(spread="guidance"), models)
    request = replace(small, image=image) if model == "vace" else small
    mode = image_mode_of(engine) if model == "vace" else text_mode_of(engine)
    calls = record_calls(mode)
    assert torch.equal(latents_of(engine, request), latents_of(wan26, request))
    assert sorted(calls) == ["own transformer"] * 2 + ["twin transformer"] * 2
    own, twin = (
        {parameter.data_ptr() for parameter in transformers["transformer"].parameters()}
        for transformers in (mode.transformers, *mode.twins)
    )
    assert not own & twin, "each device has its own weights"


@pytest.mark.parametrize("model", ["text", "vace"])
@pytest.mark.parametrize("spread", ["guidance", "sequence"])
@pytest.mark.parametrize(("cfg", "until"), [(1.0, 1.0), (4.0, 0.5)])
def test_a_pass_that_is_alone_runs_on_both_devices(
    random_models: RandomCheckpoints,
    wan26: WanEngine,
    small: VideoRequest,
    image: Image,
    model: str,
    spread: Any,
    cfg: float,
    until: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sequence, "VALUES_PER_DEVICE", 1)  # these videos are too small to be worth it
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace))
    engine = build_wan26(Wan26Settings(spread=spread), models)
    request = replace(small, image=image if model == "vace" else None, cfg=cfg, guidance_until=until)
    expected = latents_of(wan26, request)
    torch.testing.assert_close(latents_of(engine, request), expected, rtol=1e-3, atol=1e-4)


def test_a_distilled_model_runs_on_both_devices(
    random_models: RandomCheckpoints, small: VideoRequest, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "VALUES_PER_DEVICE", 1)
    request = replace(small, image=image, acceleration="distilled", cfg=1.0)
    engines = [
        build_wan22(
            Wan22Settings(spread=spread),
            wan22_models(random_models).model_copy(
                update={
                    "high_noise_distilled": random_models.high_noise_lora,
                    "low_noise_distilled": random_models.low_noise_lora,
                }
            ),
        )
        for spread in ("none", "guidance")
    ]
    distilled = image_mode_of(engines[1]).distilled
    assert distilled is not None
    assert len(distilled.twins) == 1
    one, both = (latents_of(engine, request) for engine in engines)
    torch.testing.assert_close(both, one, rtol=1e-3, atol=1e-4)


def test_both_experts_have_twins(random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, image: Image) -> None:
    engine = build_wan22(Wan22Settings(spread="guidance"), wan22_models(random_models))
    request = replace(small, image=image)
    calls = record_calls(image_mode_of(engine))
    assert torch.equal(latents_of(engine, request), latents_of(wan22, request))
    assert sorted(calls[:2]) == ["own transformer", "twin transformer"]
    assert sorted(calls[2:]) == ["own transformer_2", "twin transformer_2"]


def test_the_step_cache_saves_the_passes_of_both_devices(
    random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, image: Image
) -> None:
    spread = build_wan22(Wan22Settings(spread="guidance"), wan22_models(random_models))
    calls = record_calls(image_mode_of(spread))
    request = replace(small, image=image, steps=8, acceleration="cache")
    descriptions = [
        replace(engine, accelerations=AccelerationOptions(cache_threshold=1e9)).generate(request, Recorder()).acceleration
        for engine in (spread, wan22)
    ]
    assert descriptions[0] == descriptions[1] == "cache; threshold=1e+09; reused=4/8"
    # Each expert computes its first two steps, with two passes a step.
    assert sorted(calls) == sorted(["own transformer", "twin transformer", "own transformer_2", "twin transformer_2"] * 2)


class RecordingLoader:
    """`load_expert` that records where each expert is put."""

    def __init__(self, load: Any) -> None:
        self.devices: list[tuple[str, str]] = []
        self._load = load

    def __call__(self, path: Path, *, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
        self.devices.append((part, str(device)))
        return self._load(path, folder=folder, part=part, dtype=dtype, device=CPU)


def test_each_expert_is_on_its_own_device(
    random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = RecordingLoader(load_expert)
    monkeypatch.setattr(build, "load_expert", loader)
    monkeypatch.setattr(build, "pick_devices", lambda device, _: (device, torch.device("cpu", 1)))
    engine = build_wan22(Wan22Settings(spread="experts"), wan22_models(random_models))
    assert loader.devices == [("transformer", "cpu"), ("transformer_2", "cpu:1")]
    assert image_mode_of(engine).twins == ()
    request = replace(small, image=image)
    assert torch.equal(latents_of(engine, request), latents_of(wan22, request))
