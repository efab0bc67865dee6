import numpy as np
import pytest

from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints, wan22_models, write_checkpoints


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> RandomCheckpoints:
    checkpoints = RandomCheckpoints(tmp_path_factory.mktemp("random-models"))
    write_checkpoints(checkpoints)
    return checkpoints


@pytest.fixture(scope="session")
def wan26(random_models: RandomCheckpoints) -> WanEngine:
    return build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(random_models.vace)))


@pytest.fixture(scope="session")
def wan22(random_models: RandomCheckpoints) -> WanEngine:
    return build_wan22(Wan22Settings(), wan22_models(random_models))


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def small() -> VideoRequest:
    return VideoRequest(prompt="a cat", negative_prompt="", width=64, height=64, num_frames=5, steps=2, cfg=4.0, seed=1)
