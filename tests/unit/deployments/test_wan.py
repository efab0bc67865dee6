"""The video deployments build their engines from their settings and models."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deployments import face_swapper, hardware, wan22_gguf, wan26
from deployments.engine import Usage
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.wan22_gguf import Wan22GGUF
from deployments.wan26 import Wan26
from serve.models import MODELS

MODELS26 = Wan26Models(text="wan2.1")
MODELS22 = Wan22Models(folder="a14b", high_noise=Path("high.gguf"), low_noise=Path("low.gguf"))


class Built:
    hardware = "a fake GPU"

    def usage(self) -> Usage:
        return Usage()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[Any, ...]]]:
    """Replace the module that imports torch, and record what it is asked to build."""
    recorded: dict[str, tuple[Any, ...]] = {}
    module = ModuleType("deployments.video.build")
    for name in ("build_wan26", "build_wan22"):

        def build(*arguments: Any, name: str = name) -> Built:
            recorded[name] = arguments
            return Built()

        setattr(module, name, build)
    monkeypatch.setitem(sys.modules, "deployments.video.build", module)
    monkeypatch.setattr(hardware, "publish", lambda _: None)
    yield recorded
    gc.unfreeze()


def test_each_deployment_passes_its_settings_and_models_to_its_builder(calls: dict[str, tuple[Any, ...]]) -> None:
    settings26, settings22 = Wan26Settings(spread="guidance"), Wan22Settings(boundary=0.8)
    wan26: Any = Wan26
    wan22: Any = Wan22GGUF
    wan26.func_or_class(settings26, MODELS26)
    wan22.func_or_class(settings22, MODELS22)
    assert calls == {"build_wan26": (settings26, MODELS26), "build_wan22": (settings22, MODELS22)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deployment", "settings", "models"), [(Wan26, Wan26Settings(), MODELS26), (Wan22GGUF, Wan22Settings(), MODELS22)]
)
@pytest.mark.usefixtures("calls")
def test_what_is_loaded_is_spared_by_the_garbage_collector(deployment: Any, settings: Any, models: Any) -> None:
    gc.unfreeze()  # what tests/conftest.py has frozen
    replica = deployment.func_or_class(settings, models)
    assert gc.get_freeze_count() > 1000
    assert not any(found is replica for found in gc.get_objects()), "it is not looked through any more"


@pytest.mark.parametrize(("deployment", "name"), [(Wan26, "Wan26"), (Wan22GGUF, "Wan22GGUF")])
def test_one_gpu_takes_one_request_and_the_queue_has_a_limit(deployment: Any, name: str) -> None:
    assert (deployment.name, deployment.max_ongoing_requests, deployment.max_queued_requests) == (name, 1, 32)


def test_deployments_have_the_names_of_the_registry() -> None:
    assert tuple(model.name for model in MODELS) == (wan26.NAME, wan22_gguf.NAME, face_swapper.NAME)
