"""The first-block cache: diffusers' own result, over every kind of transformer, and no request sees another's."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from diffusers.hooks import FirstBlockCacheConfig

from deployments.errors import AccelerationNotSupported
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.acceleration.block_cache import BlockCache
from deployments.video.engine import Path, WanEngine
from deployments.video.acceleration.choice import Shortcuts
from deployments.video.build import build_wan26
from deployments.wire import Image, VideoRequest
from tests.engines.video.conftest import Recorder
from tests.engines.random_models import RandomCheckpoints


def engine_with(models: RandomCheckpoints, threshold: float | None) -> WanEngine:
    settings = Wan26Settings(cache_threshold=threshold)
    return build_wan26(settings, Wan26Models(text=str(models.text), image=str(models.vace)))


@pytest.fixture
def request_(small: VideoRequest) -> VideoRequest:
    return replace(small, steps=8, acceleration="cache")


@pytest.mark.parametrize("threshold", [0.05, 0.15, 0.4])
def test_the_latents_are_those_of_diffusers_own_cache(
    random_models: RandomCheckpoints, request_: VideoRequest, threshold: float
) -> None:
    pipeline = WanPipeline.from_pretrained(random_models.text, local_files_only=True)
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    theirs = pipeline(
        prompt=request_.prompt,
        negative_prompt=request_.negative_prompt,
        **{"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 8, "guidance_scale": 4.0},
        **{"output_type": "latent", "generator": torch.Generator().manual_seed(1)},
    ).frames
    engine = engine_with(random_models, threshold)
    torch.testing.assert_close(engine.latents(request_, Recorder()), theirs, rtol=1e-4, atol=1e-4)
    reused = int(engine.generate(request_, Recorder()).acceleration.partition("reused=")[2].partition("/")[0])
    assert (reused > 0) == (threshold > 0.3)


def inputs_of(path: Path) -> dict[str, Any]:
    transformer = path.transformers["transformer"]
    noise = torch.Generator().manual_seed(3)
    inputs = {
        "hidden_states": torch.randn(1, transformer.config.in_channels, 2, 8, 8, generator=noise),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": torch.randn(1, 512, 256, generator=noise),
        "return_dict": False,
    }
    if hasattr(transformer, "vace_blocks"):
        inputs["hidden_states"] = inputs["hidden_states"][:, :16]
        inputs["control_hidden_states"] = torch.randn(1, transformer.config.vace_in_channels, 2, 8, 8, generator=noise)
        inputs["control_hidden_states_scale"] = torch.ones(len(transformer.config.vace_layers))
    return inputs


@pytest.mark.parametrize("kind", ["text", "vace", "a14b"])
def test_what_is_reused_is_what_all_blocks_would_have_made_of_the_same_input(
    wan26: WanEngine, wan22: WanEngine, kind: str
) -> None:
    path = {"text": wan26._text, "vace": wan26._image, "a14b": wan22._image}[kind]
    assert path is not None
    transformer, inputs = path.transformers["transformer"], inputs_of(path)
    calls: list[str] = []
    blocks = {f"blocks.{i}": block for i, block in enumerate(transformer.blocks)}
    blocks |= {f"vace.{i}": block for i, block in enumerate(getattr(transformer, "vace_blocks", []))}
    hooks = [block.register_forward_pre_hook(lambda *_, name=name: calls.append(name)) for name, block in blocks.items()]
    cache = BlockCache(1e-6)
    try:
        with torch.no_grad():
            exact = transformer(**inputs)[0]
            calls.clear()
            first = cache.view(transformer, 0)(**inputs)[0]
            assert sorted(calls) == sorted(blocks), "each block once"
            calls.clear()
            again = cache.view(transformer, 0)(**inputs)[0]
            assert calls == ["blocks.0"]
            other = {**inputs, "timestep": torch.tensor([300.0])}
            changed = cache.view(transformer, 0)(**other)[0]
            expected = transformer(**other)[0]
    finally:
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(first, exact, rtol=0, atol=0)
    torch.testing.assert_close(again, exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(changed, expected, rtol=0, atol=0)
    assert (cache.reused, cache.passes) == (1, 3)
    assert str(cache) == "cache; threshold=1e-06; reused=1/3"


def test_each_expert_and_each_branch_has_a_memory_of_its_own(wan22: WanEngine, small: VideoRequest, picture: Image) -> None:
    """At a threshold that all passes, each of the four runs once; what one expert left is nothing to the other."""
    path = wan22.image_path
    engine = wan22.with_image_path(path)
    engine._shortcuts = Shortcuts(cache_threshold=0.999)
    finished = engine.generate(replace(small, steps=12, image=picture, acceleration="cache"), Recorder())
    assert finished.acceleration == "cache; threshold=0.999; reused=20/24"


def test_requests_at_the_same_time_see_nothing_of_each_other(random_models: RandomCheckpoints, request_: VideoRequest) -> None:
    engine = engine_with(random_models, 0.4)
    requests = [request_, replace(request_, seed=2), replace(request_, acceleration="none")]
    alone = [engine.latents(request, Recorder()) for request in requests]
    with ThreadPoolExecutor(3) as pool:
        together = [*pool.map(lambda request: engine.latents(request, Recorder()), requests)]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(alone[0], alone[2]), "nothing was reused, so this shows nothing"


def test_a_model_without_a_threshold_refuses_it(random_models: RandomCheckpoints, request_: VideoRequest) -> None:
    with pytest.raises(AccelerationNotSupported, match="not set up for `cache`"):
        engine_with(random_models, None).generate(request_, Recorder())
