"""The step cache reuses velocities that hardly change, and requests do not share it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from deployments.errors import AccelerationNotSupported
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.acceleration.step_cache import StepCache
from deployments.video.build import build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import VideoRequest
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.recorder import Recorder, latents_of


def engine_with(models: RandomCheckpoints, threshold: float | None) -> WanEngine:
    return build_wan26(Wan26Settings(cache_threshold=threshold), Wan26Models(text=str(models.text), image=str(models.vace)))


class Path:
    """Latents that move by 1 a step, and velocities that change by ``rate`` times as much."""

    def __init__(self, cache: StepCache, rate: float) -> None:
        self._cache, self._rate = cache, rate
        self.position = 0.0
        self.computed: list[int] = []

    def step(self, phase: str = "only") -> float:
        latents = torch.tensor([100.0 + self.position])

        def compute() -> torch.Tensor:
            self.computed.append(int(self.position))
            return torch.tensor([10.0 + self._rate * self.position])

        velocity = self._cache.velocity(latents, phase, compute)
        self.position += 1
        return float(velocity)


def test_a_velocity_is_reused_until_its_predicted_change_is_over_the_threshold() -> None:
    path = Path(StepCache(0.26, steps=12), rate=1.0)
    velocities = [path.step() for _ in range(12)]
    # After steps 0 to 2, which are always computed, a step changes the velocity by 1 of 12, so that
    # three are under the threshold; after step 6 it is 1 of 16, so that four are.
    assert path.computed == [0, 1, 2, 6, 11]
    assert velocities == [10, 11, 12, 12, 12, 12, 16, 16, 16, 16, 16, 21]


@pytest.mark.parametrize(("threshold", "reused"), [(1e-9, 0), (1e9, 21)])
def test_the_threshold_decides_how_much_is_reused(threshold: float, reused: int) -> None:
    cache = StepCache(threshold, steps=28)
    path = Path(cache, rate=1.0)
    for _ in range(28):
        path.step()
    assert (cache.reused, cache.steps) == (reused, 28)
    assert cache.describe() == f"cache; threshold={threshold:g}; reused={reused}/28"
    assert path.computed[:7] == [*range(7)]


def test_an_interval_takes_the_place_of_the_threshold() -> None:
    cache = StepCache(1e-9, steps=12, every=3)
    path = Path(cache, rate=1.0)
    for phase in "a" * 12:
        path.step(phase)
    assert path.computed == [0, 1, 2, 3, 5, 8], "each one earlier than with equal groups"
    assert cache.describe() == "cache; every=3; reused=6/12"
    path = Path(StepCache(1e-9, steps=9, every=3), rate=1.0)
    for phase in "aaaaabbbb":
        path.step(phase)
    assert path.computed == [0, 1, 2, 4, 5, 7], "a new phase begins with a step that is computed"


def test_nothing_is_reused_from_another_phase() -> None:
    path = Path(StepCache(1e9, steps=4), rate=1.0)
    for phase in ("a", "a", "a", "b", "b", "b", "a", "a", "a"):
        path.step(phase)
    assert path.computed == [0, 1, 3, 4, 6, 7]


def test_a_velocity_that_is_not_a_number_is_never_reused() -> None:
    cache = StepCache(1e9, steps=4)
    for step in range(8):
        cache.velocity(torch.tensor([float(step)]), "only", lambda: torch.tensor([float("nan")]))
    assert cache.reused == 0


def test_concurrent_requests_do_not_share_a_cache(random_models: RandomCheckpoints, small: VideoRequest) -> None:
    engine = engine_with(random_models, 2.0)
    request = replace(small, steps=8, acceleration="cache")
    requests = [request, replace(request, seed=2), replace(request, acceleration="none")]
    alone = [latents_of(engine, request) for request in requests]
    with ThreadPoolExecutor(3) as pool:
        together = [*pool.map(lambda request: latents_of(engine, request), requests)]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(alone[0], alone[2]), "the cache must have been used for this test to mean anything"


def test_a_cache_that_reuses_nothing_changes_nothing(random_models: RandomCheckpoints, small: VideoRequest) -> None:
    engine = engine_with(random_models, 1e-9)
    request = replace(small, steps=6)
    assert torch.equal(latents_of(engine, replace(request, acceleration="cache")), latents_of(engine, request))


def test_a_model_without_a_threshold_refuses_the_cache(random_models: RandomCheckpoints, small: VideoRequest) -> None:
    with pytest.raises(AccelerationNotSupported, match="not set up for `cache`"):
        engine_with(random_models, None).generate(replace(small, acceleration="cache"), Recorder())
