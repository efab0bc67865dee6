"""Loading: what does not fit is refused by name, and no socket is opened."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import load_file, save_file

from demo.gguf_file import original_name, quantize_q5_k, write_wan_gguf
from demo.training.pack import make_scheduler
from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import VideoRequest
from tests.engines.video.conftest import Recorder
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints


def copy_of(folder: Path, to: Path) -> Path:
    return shutil.copytree(folder, to / folder.name)


def load(folder: Path) -> object:
    return build_wan26(Wan26Settings(), Wan26Models(text=str(folder)))


def change_weights(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


FAULTS: dict[str, tuple[str, Any, str]] = {
    "missing": (
        "transformer",
        lambda t: t.pop("blocks.1.attn1.to_q.weight"),
        "missing tensor `blocks.1.attn1.to_q.weight`",
    ),
    "extra": ("transformer", lambda t: t.update(scale_weight=torch.ones(1)), "unknown tensor `scale_weight`"),
    "misshapen": (
        "vae",
        lambda t: t.update({"post_quant_conv.weight": torch.ones(16, 16, 1, 1, 2)}),
        "tensor `post_quant_conv.weight` has shape [16, 16, 1, 1, 2], expected [16, 16, 1, 1, 1]",
    ),
    "text encoder": (
        "text_encoder",
        lambda t: t.pop("encoder.final_layer_norm.weight"),
        "missing tensor `encoder.final_layer_norm.weight`",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_that_does_not_fit_is_named(random_models: RandomCheckpoints, tmp_path: Path, fault: str) -> None:
    part, change, says = FAULTS[fault]
    folder = copy_of(random_models.text, tmp_path)
    (weights,) = (folder / part).glob("*.safetensors")
    change_weights(weights, change)
    with pytest.raises(CheckpointRefused) as refused:
        load(folder)
    assert says in str(refused.value)
    assert part in str(refused.value)


def test_a_truncated_file_and_a_missing_shard_are_named(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointRefused, match="truncated"):
        load(folder)
    weights.write_bytes(whole)
    index = {"weight_map": {"a": weights.name, "b": "model-00002-of-00002.safetensors"}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointRefused, match=r"00002-of-00002.*missing"):
        load(folder)


def test_a_path_that_is_not_there_is_not_fetched(random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up a host"))
    with pytest.raises(CheckpointRefused, match="allow_hub"):
        build_wan26(Wan26Settings(), Wan26Models(text="Wan-AI/Wan2.1-T2V-1.3B-Diffusers"))


def test_wrong_architectures_are_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"no \*\.safetensors file"):
        load(random_models.a14b)
    folder = copy_of(random_models.text, tmp_path)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(CheckpointRefused, match="FluxTransformer2DModel"):
        load(folder)
    other = copy_of(random_models.vace, tmp_path)
    vae = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps({**vae, "latents_mean": [0.0] * 16}))
    with pytest.raises(CheckpointRefused, match="latents_mean"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(other)))


def test_loading_opens_no_socket(random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(random_models.vace)))
    build_wan22(Wan22Settings(), _experts(random_models, random_models.high_noise, random_models.low_noise))


def _experts(random_models: RandomCheckpoints, high: Path, low: Path) -> Wan22Models:
    return Wan22Models(folder=str(random_models.a14b), high_noise=high, low_noise=low)


def test_original_names_are_those_that_diffusers_reads() -> None:
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(**TRANSFORMER, in_channels=36)
    names = {original_name(name): tensor for name, tensor in model.state_dict().items()}
    assert "blocks.0.self_attn.q.weight" in names
    assert "head.modulation" in names
    assert set(convert_wan_transformer_to_diffusers(names)) == set(model.state_dict())


@pytest.mark.parametrize("quantization", ["Q8_0", "Q5_K"])
def test_gguf_quantisation_keeps_the_latents(
    random_models: RandomCheckpoints, tmp_path: Path, quantization: str, small: VideoRequest, picture: Any
) -> None:
    """Against float32 GGUF-free weights: the signal is well over the noise, and Q8_0 is better than Q5_K."""
    from dataclasses import replace

    from diffusers import WanTransformer3DModel

    paths = []
    exact = {}
    for part, seed in (("transformer", 1), ("transformer_2", 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WanTransformer3DModel(**TRANSFORMER, in_channels=36).eval()
        exact[part] = model
        path = tmp_path / f"{part}-{quantization}.gguf"
        write_wan_gguf(path, model.state_dict(), quantization, part)  # type: ignore[arg-type]
        paths.append(path)
        kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
        assert kinds["blocks.0.self_attn.q.weight"] == quantization
        assert kinds["patch_embedding.weight"] == "F32"
    engine = build_wan22(Wan22Settings(), _experts(random_models, *paths))
    request = replace(small, image=picture)
    quantised = engine.latents(request, Recorder())
    assert engine._image is not None
    engine._image.transformers.update(exact)
    truth = engine.latents(request, Recorder())
    snr = 10 * torch.log10(truth.pow(2).mean() / (truth - quantised).pow(2).mean())
    assert snr > (35 if quantization == "Q8_0" else 20)


def test_q5_k_blocks_are_read_back_by_the_gguf_package() -> None:
    weights = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    weights[0] = 0
    packed = quantize_q5_k(weights)
    read = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q5_K)
    assert read.shape == weights.shape
    assert np.array_equal(read[0], weights[0])
    error = np.abs(read - weights).max()
    assert error < (weights.max() - weights.min()) / 31  # one step of five bits, at the widest
    with pytest.raises(ValueError, match="256"):
        quantize_q5_k(weights[:, :100])


def test_gguf_that_does_not_fit_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    good = random_models.high_noise

    def refused(high: Path, low: Path) -> str:
        with pytest.raises(CheckpointRefused) as refusal:
            build_wan22(Wan22Settings(), _experts(random_models, high, low))
        return str(refusal.value)

    assert "named as both experts" in refused(good, good)
    assert "no such file" in refused(tmp_path / "none.gguf", good)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[:-5000])
    assert "truncated" in refused(cut, good)
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"not a gguf file at all" * 10)
    assert "not a readable GGUF file" in refused(noise, good)
    alien = tmp_path / "alien.gguf"
    writer = gguf.GGUFWriter(alien, arch="llama")
    writer.add_tensor("a", np.zeros((2, 2), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert "`llama`, expected `wan`" in refused(alien, good)
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng(devices=[]):
        state = WanTransformer3DModel(**TRANSFORMER, in_channels=36).state_dict()
    state.pop("blocks.2.ffn.net.2.bias")
    missing = tmp_path / "missing.gguf"
    write_wan_gguf(missing, state, "Q8_0", "missing")
    assert "missing tensor `blocks.2.ffn.net.2.bias`" in refused(missing, random_models.low_noise)


def test_a_scheduler_that_is_not_for_flow_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_flow_sigmas": False}))
    with pytest.raises(CheckpointRefused, match="use_flow_sigmas"):
        load(folder)
    assert make_scheduler(5.0).config.prediction_type == "flow_prediction"


def image_folder(random_models: RandomCheckpoints, to: Path, *, clip: bool) -> Path:
    """A Wan 2.1 image-to-video folder, 36 channels, with or without an image encoder."""
    from diffusers import WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    folder = copy_of(random_models.text, to)
    shutil.rmtree(folder / "transformer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        extra = {"image_dim": 64, "added_kv_proj_dim": 256} if clip else {}
        WanTransformer3DModel(**TRANSFORMER, in_channels=36, **extra).save_pretrained(folder / "transformer")
        if clip:
            config = CLIPVisionConfig(
                hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=14
            )
            CLIPVisionModel(config).save_pretrained(folder / "image_encoder")
            CLIPImageProcessor().save_pretrained(folder / "image_processor")
    return folder


@pytest.mark.parametrize("clip", [False, True])
def test_a_36_channel_checkpoint_is_wan26s_image_path(
    random_models: RandomCheckpoints, tmp_path: Path, small: VideoRequest, picture: Any, clip: bool
) -> None:
    from dataclasses import replace

    folder = image_folder(random_models, tmp_path, clip=clip)
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))
    one, other = (engine.latents(replace(small, image=p), Recorder()) for p in (picture, 255 - picture))
    assert one.shape == (1, 16, 2, 8, 8)
    assert not torch.equal(one, other)
    assert engine.latents(small, Recorder()).shape == (1, 16, 2, 8, 8)  # the text path is still there
    if clip:
        (weights,) = (folder / "image_encoder").glob("*.safetensors")
        name = next(n for n in load_file(weights) if n.endswith("mlp.fc1.weight"))
        change_weights(weights, lambda tensors: tensors.pop(name))
        with pytest.raises(CheckpointRefused, match="missing tensor"):
            build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))


def test_a_text_checkpoint_configured_for_images_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    with pytest.raises(CheckpointRefused, match="no input for a picture"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))


def test_a_gpu_that_torch_does_not_see_is_not_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.video.memory.device import pick_device

    assert pick_device(Wan26Settings()).type == "cpu"
    with pytest.raises(CheckpointRefused, match="no CUDA device"):
        pick_device(Wan26Settings(device="cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(CheckpointRefused, match="torch sees none"):
        pick_device(Wan26Settings())


def test_a_gguf_type_that_is_not_known_is_named(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / "integers.gguf"
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_tensor("blocks.0.norm3.bias", np.zeros(8, np.int8))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(CheckpointRefused, match=r"norm3\.bias` is I8; known are .*Q5_K"):
        build_wan22(Wan22Settings(), _experts(random_models, path, random_models.low_noise))
