"""The two experts: their weights, and files that cannot be a pair."""

from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFParameter

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Settings
from deployments.video.build import build_wan22
from deployments.video.checkpoints.experts import dequantise
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.engine import WanEngine
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints, wan22_models
from tests.engines.video.checkpoints.published import make, published, write
from tests.engines.video.recorder import latents_of

LAYER = "blocks.0.attn1.to_q.weight"


def load(random_models: RandomCheckpoints) -> torch.nn.Module:
    model = load_gguf(
        random_models.high_noise, folder=random_models.a14b, part="transformer", dtype=torch.float32, device=torch.device("cpu")
    )
    assert isinstance(model, torch.nn.Module)
    return model


def is_stored(model: torch.nn.Module) -> bool:
    return isinstance(model.get_parameter(LAYER), GGUFParameter)


def expected(path: Path) -> torch.Tensor:
    [tensor] = [t for t in gguf.GGUFReader(path).tensors if t.name == "blocks.0.self_attn.q.weight"]
    return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def test_dequantised_weights_are_those_in_the_file_and_plain_layers_are_unchanged(
    random_models: RandomCheckpoints,
) -> None:
    stored = load(random_models)
    inputs = (
        torch.randn(1, 36, 2, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500.0]),
        torch.zeros(1, 512, 256),
    )
    with torch.no_grad():
        before = stored(*inputs, return_dict=False)[0]
    assert is_stored(stored)
    plain = torch.nn.Linear(2, 2)
    kept = plain.weight.clone()
    dequantise(plain)
    dequantise(stored)
    assert torch.equal(plain.weight, kept)
    assert not is_stored(stored)
    weight = stored.get_parameter(LAYER)
    torch.testing.assert_close(weight.float(), expected(random_models.high_noise), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(stored(*inputs, return_dict=False)[0], before, rtol=1e-4, atol=1e-4)


def test_experts_may_be_safetensors_and_must_be_two_different_files(
    random_models: RandomCheckpoints, tmp_path: Path, small: VideoRequest, image: Image
) -> None:
    model = make("36 channels", tmp_path)
    high = write(tmp_path / "wan2.2_i2v_high_noise_14B_fp16.safetensors", published(model))
    for parameter in model.parameters():
        parameter.data *= 1.01
    low = write(tmp_path / "wan2.2_i2v_low_noise_14B_fp16.safetensors", published(model))

    def build(high: Path, low: Path) -> WanEngine:
        return build_wan22(Wan22Settings(), wan22_models(random_models, high=high, low=low))

    assert latents_of(build(high, low), replace(small, image=image)).isfinite().all()
    with pytest.raises(CheckpointRefused, match="configured as `high_noise`, but its name"):
        build(low, high)
    same = tmp_path / "expert.safetensors"
    same.write_bytes(high.read_bytes())
    with pytest.raises(CheckpointRefused, match="have the same content"):
        build(high, same)
    folders = [tmp_path / name for name in ("high_noise_model", "low_noise_model")]
    for folder, file in zip(folders, (high, low), strict=True):
        folder.mkdir()
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(file.read_bytes())
    assert latents_of(build(*folders), replace(small, image=image)).isfinite().all()
    (folders[1] / "diffusion_pytorch_model.safetensors").write_bytes(high.read_bytes())
    with pytest.raises(CheckpointRefused, match="have the same content"):
        build(*folders)
    renamed = tmp_path / "expert.gguf"  # its metadata still has its name
    renamed.write_bytes(random_models.low_noise.read_bytes())
    with pytest.raises(
        CheckpointRefused, match=r"expert\.gguf: configured as `high_noise`, but its name `Wan2\.2-I2V-LowNoise"
    ):
        build(renamed, low)
    onnx = tmp_path / "expert.onnx"
    onnx.write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(CheckpointRefused, match=r"must be a \.gguf or a \.safetensors"):
        build(onnx, low)
