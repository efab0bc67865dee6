"""NaN and infinity: found wherever they are, by one pass, and not suspected where they are not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.errors import CheckpointRefused, NotFinite, WeightsDamaged
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.build import build_wan26
from deployments.video.checkpoints.finite import not_finite
from deployments.wire import VideoRequest
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.checkpoints.folders import copy_of
from tests.engines.video.recorder import Recorder, latents_of, text_mode_of


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_bad_number_is_found(dtype: torch.dtype, value: str) -> None:
    tensors = {
        "good": torch.randn(9, 9).to(dtype),
        "bad": torch.randn(9, 9).to(dtype),
        "whole": torch.ones(2, dtype=torch.int8),
    }
    tensors["bad"][4, 7] = float(value)
    assert list(not_finite(tensors)) == ["bad"]


def test_huge_numbers_and_opposite_infinities_are_told_apart() -> None:
    huge, both = torch.full((64,), 3e38), torch.zeros(4)
    both[0], both[1] = float("inf"), float("-inf")
    assert list(not_finite({"huge": huge, "both": both, "empty": torch.zeros(0)})) == ["both"]


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_folder_with_nan_is_refused_by_the_name_of_the_tensor(
    random_models: RandomCheckpoints, tmp_path: Path, part: str
) -> None:
    folder = copy_of(random_models.text, tmp_path)
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    name = sorted(name for name, tensor in tensors.items() if tensor.ndim > 1)[-1]
    tensors[name].view(-1)[1] = float("nan")
    save_file(tensors, file)
    with pytest.raises(CheckpointRefused) as refused:
        build_wan26(Wan26Settings(), Wan26Models(text=str(folder)))
    assert f"`{name}` holds NaN or infinity" in str(refused.value)


def test_latents_that_are_no_numbers_are_no_video(random_models: RandomCheckpoints, small: VideoRequest) -> None:
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text)))
    transformer = text_mode_of(engine).transformers["transformer"]
    hook = transformer.proj_out.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
    sink = Recorder()
    with pytest.raises(NotFinite, match="has computed NaN or infinity in place of a video") as failed:
        engine.generate(small, sink)
    assert not isinstance(failed.value, WeightsDamaged)
    assert sink.chunks == []
    hook.remove()
    assert latents_of(engine, small).isfinite().all()
    weight = transformer.get_parameter("blocks.1.ffn.net.2.weight")
    weight.data[0, 0] = float("nan")  # as a fault of the memory would leave it
    with pytest.raises(WeightsDamaged, match=r"`blocks\.1\.ffn\.net\.2\.weight` holds NaN or infinity"):
        engine.generate(small, Recorder())


def test_frames_that_are_no_numbers_are_no_video(random_models: RandomCheckpoints, small: VideoRequest) -> None:
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text)))
    engine.vae.decoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(NotFinite, match="the VAE has computed NaN"):
        engine.generate(small, Recorder())
