"""fp8: every linear layer of the blocks, over the very weights; near the exact result, and refused where it cannot be."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers.models.activations import GELU

from deployments.errors import AccelerationNotSupported
from deployments.video import unfused
from deployments.video.kernels.install import LinearGelu
from deployments.video.acceleration.fp8 import Fp8, Fp8Linear
from deployments.video.engine import WanEngine
from deployments.video.acceleration.choice import Shortcuts
from deployments.wire import Image, VideoRequest
from tests.engines.video.conftest import Recorder
from tests.deployments.test_block_cache import inputs_of


def test_rows_are_scaled_each_by_itself() -> None:
    x = torch.tensor([[1.0, -3.0, 0.5], [1000.0, 250.0, 0.0], [0.0, 0.0, 0.0]])
    quantised, scales = unfused.quantise_rows(x)
    assert quantised.float().abs().amax(dim=1).tolist() == [448.0, 448.0, 0.0]
    torch.testing.assert_close(quantised.float() * scales, x, rtol=0.07, atol=0)


@pytest.mark.parametrize("kind", ["text", "vace"])
def test_every_linear_layer_of_the_blocks_and_nothing_else(wan26: WanEngine, kind: str) -> None:
    path = {"text": wan26._text, "vace": wan26._image}[kind]
    assert path is not None
    transformer = copy.deepcopy(path.transformers["transformer"]).to(torch.bfloat16)  # the engine is every test's
    inputs = {
        name: value.to(torch.bfloat16) if isinstance(value, torch.Tensor) and name != "timestep" else value
        for name, value in inputs_of(path).items()
    }
    view = Fp8(unfused).view(transformer, 0)
    plain = {name for name, module in transformer.named_modules() if type(module) is torch.nn.Linear}
    converted = {name for name, module in view.named_modules() if isinstance(module, Fp8Linear)}
    assert converted == {name for name in plain if name.startswith(("blocks.", "vace_blocks."))}
    assert len(converted) >= 10 * len(transformer.blocks)
    assert {p.data_ptr() for p in view.parameters()} == {p.data_ptr() for p in transformer.parameters()}, "weights are shared"
    with torch.no_grad():
        exact = transformer(**inputs)[0].float()
        made = view(**inputs)[0].float()
        assert torch.equal(transformer(**inputs)[0].float(), exact), "the model itself stays as it was"
    assert 1e-4 < float((made - exact).norm() / exact.norm()) < 0.1


def test_a_layer_with_its_activation_is_computed_too() -> None:
    theirs = GELU(64, 128, approximate="tanh").to(torch.bfloat16)
    block = torch.nn.Module()
    block.blocks = torch.nn.ModuleList([torch.nn.Sequential(LinearGelu(theirs))])
    x = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.no_grad():
        made, exact = Fp8(unfused).view(block, 0).blocks[0](x).float(), theirs(x).float()
    assert 1e-4 < float((made - exact).norm() / exact.norm()) < 0.06


def test_it_is_refused_where_it_cannot_be(wan26: WanEngine, wan22: WanEngine, small: VideoRequest, picture: Image) -> None:
    with pytest.raises(AccelerationNotSupported, match="needs a GPU that has such arithmetic"):
        wan26.generate(replace(small, acceleration="fp8"), Recorder())
    able = wan22.with_image_path(wan22.image_path)
    able._shortcuts = Shortcuts(fp8=unfused)
    with pytest.raises(AccelerationNotSupported, match="kept quantised"):
        able.generate(replace(small, image=picture, acceleration="fp8"), Recorder())
