import numpy as np
import pytest

from deployments.errors import Cancelled
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.engine import WanEngine
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import FrameChunk, Image, Progress, VideoRequest
from tests.engines.random_models import RandomCheckpoints, write_checkpoints


class Recorder:
    """A sink that keeps what it gets; ``stop_at`` raises Cancelled at that event."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[Progress | FrameChunk] = []
        self._stop_at = stop_at

    def _take(self, event: Progress | FrameChunk) -> None:
        if self._stop_at is not None and len(self.events) >= self._stop_at:
            raise Cancelled("the test has seen enough")
        self.events.append(event)

    progress = chunk = _take

    def ready(self) -> None:
        pass

    @property
    def chunks(self) -> list[FrameChunk]:
        return [event for event in self.events if isinstance(event, FrameChunk)]


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> RandomCheckpoints:
    made = RandomCheckpoints(tmp_path_factory.mktemp("random-models"))
    write_checkpoints(made)
    return made


@pytest.fixture(scope="session")
def wan26(random_models: RandomCheckpoints) -> WanEngine:
    return build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(random_models.vace)))


@pytest.fixture(scope="session")
def wan22(random_models: RandomCheckpoints) -> WanEngine:
    return build_wan22(
        Wan22Settings(),
        Wan22Models(folder=str(random_models.a14b), high_noise=random_models.high_noise, low_noise=random_models.low_noise),
    )


@pytest.fixture
def picture() -> Image:
    return np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def small() -> VideoRequest:
    return VideoRequest("a cat", "", 64, 64, 5, 2, 4.0, 1)
