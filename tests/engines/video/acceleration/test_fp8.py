"""fp8 computes every linear layer of the blocks near the exact result, from shared weights.

The products run on the GPU where there is one: not every version of PyTorch has them on a CPU.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.activations import GELU

from deployments.errors import AccelerationNotSupported
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.acceleration.fp8 import Fp8, Fp8Linear, pays
from deployments.video.engine import WanEngine
from deployments.video.kernels import reference
from deployments.video.kernels.linear_gelu import LinearGelu
from deployments.video.mode import Mode
from deployments.wire import Image, VideoRequest
from tests.engines.video.recorder import Recorder, image_mode_of, text_mode_of


def _scales_rows() -> bool:
    """Return whether PyTorch multiplies float8 matrices with a scale for each row on this CPU.

    Where oneDNN has such products for the CPU, PyTorch takes one scale for a whole matrix only.
    """
    matrix, scales = torch.ones(16, 16).to(torch.float8_e4m3fn), torch.ones(16, 1)
    try:
        torch._scaled_mm(matrix, matrix.T, scale_a=scales, scale_b=scales.T, out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


needs_scales_of_rows = pytest.mark.skipif(
    not _scales_rows(), reason="PyTorch has no float8 product with scales by row on this CPU"
)


def inputs_of(mode: Mode) -> dict[str, Any]:
    """Return seeded random inputs of the mode's transformer."""
    transformer = mode.transformers["transformer"]
    noise = torch.Generator().manual_seed(3)
    inputs: dict[str, Any] = {
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


def test_each_row_has_its_own_scale() -> None:
    x = torch.tensor([[1.0, -3.0, 0.5], [1000.0, 250.0, 0.0], [0.0, 0.0, 0.0]])
    quantised, scales = reference.quantise_rows(x)
    assert quantised.float().abs().amax(dim=1).tolist() == [448.0, 448.0, 0.0]
    torch.testing.assert_close(quantised.float() * scales, x, rtol=0.07, atol=0)


@needs_scales_of_rows
@pytest.mark.parametrize("kind", ["text", "vace"])
def test_every_linear_layer_of_the_blocks_is_converted_and_no_other(wan26: WanEngine, kind: str) -> None:
    mode = {"text": text_mode_of(wan26), "vace": image_mode_of(wan26)}[kind]
    # All tests share the engine, so this is another transformer of the same form.
    original = mode.transformers["transformer"]
    torch.manual_seed(0)
    transformer = type(original).from_config(original.config).to(torch.bfloat16)
    inputs = {
        name: value.to(torch.float32 if name == "timestep" else torch.bfloat16) if isinstance(value, torch.Tensor) else value
        for name, value in inputs_of(mode).items()
    }
    view = Fp8(reference).view(transformer, 0)
    plain = {name for name, module in transformer.named_modules() if type(module) is torch.nn.Linear}
    converted = {name for name, module in view.named_modules() if isinstance(module, Fp8Linear)}
    assert converted == {name for name in plain if name.startswith(("blocks.", "vace_blocks."))}
    assert len(converted) >= 10 * len(transformer.blocks)
    assert {p.data_ptr() for p in view.parameters()} == {p.data_ptr() for p in transformer.parameters()}, "weights are shared"
    with torch.no_grad():
        exact = transformer(**inputs)[0].float()
        result = view(**inputs)[0].float()
        assert torch.equal(transformer(**inputs)[0].float(), exact), "the original is unchanged"
    assert 1e-4 < float((result - exact).norm() / exact.norm()) < 0.1


@needs_scales_of_rows
def test_a_layer_with_its_activation_is_converted_too() -> None:
    published = GELU(64, 128, approximate="tanh").to(torch.bfloat16)
    block = torch.nn.Module()
    block.blocks = torch.nn.ModuleList([torch.nn.Sequential(LinearGelu(published))])
    x = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.no_grad():
        result, exact = Fp8(reference).view(block, 0).blocks[0](x).float(), published(x).float()
    assert 1e-4 < float((result - exact).norm() / exact.norm()) < 0.06


def test_fp8_is_refused_without_fp8_hardware_and_for_quantised_weights(
    wan26: WanEngine, wan22: WanEngine, small: VideoRequest, image: Image
) -> None:
    unable = replace(wan26, accelerations=AccelerationOptions())
    with pytest.raises(AccelerationNotSupported, match="needs a GPU with fp8 arithmetic"):
        unable.generate(replace(small, acceleration="fp8"), Recorder())
    able = replace(wan22, accelerations=AccelerationOptions(fp8_operations=reference))
    with pytest.raises(AccelerationNotSupported, match="keeps its weights quantised"):
        able.generate(replace(small, image=image, acceleration="fp8"), Recorder())


def test_it_is_offered_for_a_wide_model_only() -> None:
    assert pays(SimpleNamespace(num_attention_heads=40, attention_head_dim=128)), "A14B"
    assert not pays(SimpleNamespace(num_attention_heads=12, attention_head_dim=128)), "1.3B"
