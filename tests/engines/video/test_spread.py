"""Two devices of one replica: the same video, its passes or its experts apart. (On a CPU both are the same one.)"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video import wan
from deployments.video.sampling.denoise import _Pace
from deployments.video.memory.device import pick_second
from deployments.video.engine import Path, WanEngine
from deployments.video.acceleration.choice import Shortcuts
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import Image, VideoRequest
from serve.config import AppConfig
from tests.engines.video.conftest import Recorder
from tests.engines.random_models import RandomCheckpoints

CPU = torch.device("cpu")


def models_of(made: RandomCheckpoints) -> Wan22Models:
    return Wan22Models(folder=str(made.a14b), high_noise=made.high_noise, low_noise=made.low_noise)


def calls_of(path: Path) -> list[str]:
    """What is called from now on."""
    calls: list[str] = []
    for kind, transformers in (("own", path.transformers), ("twin", path.twins or {})):
        for name, transformer in transformers.items():
            transformer.register_forward_hook(lambda *_, said=f"{kind} {name}": calls.append(said))
    return calls


@pytest.mark.parametrize("model", ["text", "vace"])
def test_the_pass_without_the_prompt_runs_on_the_second(
    random_models: RandomCheckpoints, wan26: WanEngine, small: VideoRequest, picture: Image, model: str
) -> None:
    models = Wan26Models(text=str(random_models.text), image=str(random_models.vace))
    engine = build_wan26(Wan26Settings(spread="guidance"), models)
    request = replace(small, image=picture) if model == "vace" else small
    path = engine._path(request)
    calls = calls_of(path)
    assert torch.equal(engine.latents(request, Recorder()), wan26.latents(request, Recorder()))
    assert calls == ["own transformer", "twin transformer"] * 2
    assert path.twins is not None
    own, twin = ({p.data_ptr() for p in some["transformer"].parameters()} for some in (path.transformers, path.twins))
    assert not own & twin, "each device has its own weights"
    calls.clear()
    engine.latents(replace(request, cfg=1.0), Recorder())
    assert set(calls) == {"own transformer"}


def test_both_experts_have_twins(
    random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, picture: Image
) -> None:
    engine = build_wan22(Wan22Settings(spread="guidance"), models_of(random_models))
    request = replace(small, image=picture)
    calls = calls_of(engine.image_path)
    assert torch.equal(engine.latents(request, Recorder()), wan22.latents(request, Recorder()))
    assert calls == ["own transformer", "twin transformer", "own transformer_2", "twin transformer_2"]


def test_the_first_block_cache_remembers_each_of_the_two(
    random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, picture: Image
) -> None:
    """It lets go what an expert left that does not come back; a twin does come back."""
    engine = build_wan22(Wan22Settings(spread="guidance"), models_of(random_models))
    alone = wan22.with_image_path(wan22.image_path)
    for some in (engine, alone):
        some._shortcuts = Shortcuts(cache_threshold=0.99)
    request = replace(small, image=picture, steps=8, acceleration="cache")
    one, other = (some.generate(request, Recorder()).acceleration for some in (engine, alone))
    assert one == other
    assert "reused=12/16" in one, "of each expert's passes all but the first two"


class Counted:
    """`load_expert`, and where each expert was put."""

    def __init__(self, load: Any) -> None:
        self.devices: list[tuple[str, str]] = []
        self._load = load

    def __call__(self, path: Any, folder: Any, part: str, dtype: torch.dtype, device: torch.device) -> Any:
        self.devices.append((part, str(device)))
        return self._load(path, folder, part, dtype, CPU)


def test_each_expert_is_on_its_own_device(
    random_models: RandomCheckpoints, wan22: WanEngine, small: VideoRequest, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(wan.load_expert)
    monkeypatch.setattr(wan, "load_expert", counted)
    monkeypatch.setattr(wan, "pick_second", lambda device: torch.device("cpu", 1))
    engine = build_wan22(Wan22Settings(spread="experts"), models_of(random_models))
    assert counted.devices == [("transformer", "cpu"), ("transformer_2", "cpu:1")]
    assert engine.image_path.twins is None
    request = replace(small, image=picture)
    assert torch.equal(engine.latents(request, Recorder()), wan22.latents(request, Recorder()))


def test_one_gpu_is_not_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CheckpointRefused, match=r"wants two GPUs in this replica, torch sees 1; set `hardware\.num_gpus: 2`"):
        pick_second(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_second(torch.device("cuda")) == torch.device("cuda", 1)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "one GPU": (
        {"hardware": {"num_gpus": 1}, "engine": {"spread": "experts"}},
        "runs on 2 GPUs; wan22_gguf.hardware.num_gpus is 1",
    ),
    "an idle GPU": ({"hardware": {"num_gpus": 2}}, "nothing uses the second: set wan22_gguf.engine.spread"),
    "offloaded": ({"engine": {"spread": "experts", "experts": "offloaded"}}, "is for a single small GPU"),
    "batched": (
        {"engine": {"spread": "guidance", "batch_guidance": True}},
        "two forwards on two GPUs, `batch_guidance` both in one",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(kind: str) -> None:
    given, sentence = CONTRADICTIONS[kind]
    with pytest.raises(ValidationError, match=sentence):
        AppConfig.model_validate({"wan22_gguf": given})
    AppConfig.model_validate({"wan22_gguf": {"hardware": {"num_gpus": 2}, "engine": {"spread": "experts"}}})


class Event:
    """A GPU's, in the order in which it is waited for."""

    waited: list[int]
    made = 0

    def __init__(self, *, blocking: bool) -> None:
        assert blocking
        self.number = Event.made
        Event.made += 1

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        Event.waited.append(self.number)


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_cpu_is_as_many_passes_ahead_as_there_are_devices(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.waited, Event.made = [], 0
    told: list[int] = []
    pace = _Pace(torch.device("cuda"), told.append, ahead)
    for _ in range(3):
        for _ in range(2):
            pace.forward()
            assert len(Event.waited) == max(0, Event.made - ahead)
        pace.step()
    pace.end()
    assert Event.waited == list(range(6))
    assert told == [0, 1, 1, 2, 2, 3], "a step is done when both its passes are"
