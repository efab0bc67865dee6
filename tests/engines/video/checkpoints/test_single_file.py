"""Transformers from single files: the layouts and types that people publish, and what is wrong with a file that is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor
from pydantic import ValidationError
from safetensors.torch import save_file

from demo.gguf_file import original_name
from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.engine import WanEngine
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.checkpoints.single_file import load_single_file
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import Image, VideoRequest
from tests.engines.video.conftest import Recorder
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints

CPU = torch.device("cpu")
KINDS: dict[str, Callable[[], Any]] = {
    "text": lambda: WanTransformer3DModel(**TRANSFORMER),
    "36 channels": lambda: WanTransformer3DModel(**TRANSFORMER, in_channels=36, out_channels=16),
    "36 channels and CLIP": lambda: WanTransformer3DModel(**TRANSFORMER, in_channels=36, image_dim=64, added_kv_proj_dim=256),
    "VACE": lambda: WanVACETransformer3DModel(**TRANSFORMER, vace_layers=[0, 2]),
}
_OTHER_NAMES = (
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("add_k_proj", "k_img"),
    ("add_v_proj", "v_img"),
    ("norm_added_k", "norm_k_img"),
)


def published_name(name: str) -> str:
    """The original release's name of a tensor of any of ``KINDS``."""
    for ours, theirs in _OTHER_NAMES:
        name = name.replace(ours, theirs)
    if name.startswith("vace_blocks."):
        name = name.replace("proj_in.", "before_proj.").replace("proj_out.", "after_proj.")
    return name if "img_emb" in name else original_name(name)


def make(kind: str, folder: Path) -> Any:
    """A random model; its configuration is written to ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        model = KINDS[kind]()
    model.save_config(folder)
    return model


def write(path: Path, state: dict[str, torch.Tensor], prefix: str = "") -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def published(model: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {published_name(name): tensor.to(dtype) for name, tensor in model.state_dict().items()}


def scaled(model: Any, convention: str) -> dict[str, torch.Tensor]:
    """Matrices as scaled float8, the rest in float16."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in published(model).items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            state[name] = tensor.half()
            continue
        scale = tensor.abs().max() / 448
        state[name] = (tensor / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        if convention == "scale_weight":
            state[f"{layer}.scale_weight"] = scale
            state[f"{layer}.scale_input"] = torch.ones(())
        else:
            state[f"{layer}.weight_scale"] = scale
            told = json.dumps({"format": "float8_e4m3fn"}).encode()
            state[f"{layer}.comfy_quant"] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    if convention == "scale_weight":
        state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_layout_gives_the_very_weights(kind: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path)
    loaded = load_single_file(write(tmp_path / "m.safetensors", published(model)), tmp_path, torch.float32, CPU)
    assert type(loaded) is type(model)
    theirs = model.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.state_dict().items())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())
    assert torch.equal(loaded.rope.freqs_cos, model.rope.freqs_cos)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_comfyui_prefixes_and_types(stored: torch.dtype, prefix: str, tmp_path: Path) -> None:
    """Not scaled. In bfloat16 the parts that diffusers keeps in float32 are kept so."""
    model = make("text", tmp_path)
    path = write(tmp_path / "m.safetensors", published(model, stored), prefix)
    loaded = load_single_file(path, tmp_path, torch.bfloat16, CPU).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name].float(), tensor.to(stored).to(loaded[name].dtype).float()), name
    assert loaded["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    for name in ("condition_embedder.time_embedder.linear_1.weight", "blocks.0.norm2.weight", "scale_shift_table"):
        if name in loaded:
            assert loaded[name].dtype == torch.float32, name


@pytest.mark.parametrize("convention", ["scale_weight", "weight_scale"])
def test_scaled_float8_is_scaled_back(convention: str, tmp_path: Path) -> None:
    model = make("text", tmp_path)
    path = write(tmp_path / "m.safetensors", scaled(model, convention))
    loaded = load_single_file(path, tmp_path, torch.float32, CPU).state_dict()
    for name, tensor in model.state_dict().items():
        error = (loaded[name] - tensor).norm()
        assert error <= (0.04 if tensor.ndim == 2 else 1e-3) * tensor.norm(), (name, error)  # three bits of mantissa; eleven


FAULTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop("blocks.1.ffn.2.bias"), "missing tensor `blocks.1.ffn.net.2.bias`"),
    "unknown": (lambda t: t.update(lora_up=torch.ones(1)), "unknown tensor `lora_up`"),
    "another width": (lambda t: t.update({"head.head.weight": torch.ones(32, 256)}), "has shape [32, 256], expected [64, 256]"),
    "no scale": (lambda t: t.pop("blocks.1.ffn.2.scale_weight"), "`blocks.1.ffn.2.weight` has no scale"),
    "no weight": (lambda t: t.update({"blocks.9.ffn.2.scale_weight": torch.ones(())}), "has no weight `blocks.9.ffn.2.weight`"),
    "another quantisation": (
        lambda t: t.update({"a.comfy_quant": torch.tensor([*b'{"format": "nvfp4"}'], dtype=torch.uint8)}),
        "only float8 is read",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_by_what_is_wrong(fault: str, tmp_path: Path) -> None:
    spoil, says = FAULTS[fault]
    state = scaled(make("text", tmp_path), "scale_weight")
    spoil(state)
    with pytest.raises(CheckpointRefused) as refused:
        load_single_file(write(tmp_path / "m.safetensors", state), tmp_path, torch.float32, CPU)
    assert says in str(refused.value)
    assert "m.safetensors" in str(refused.value)


def test_a_truncated_and_an_absent_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", published(make("text", tmp_path)))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointRefused, match="truncated"):
        load_single_file(path, tmp_path, torch.float32, CPU)
    with pytest.raises(CheckpointRefused, match="no such file"):
        load_single_file(tmp_path / "none.safetensors", tmp_path, torch.float32, CPU)


def test_wan26_takes_single_files_for_both_paths(
    random_models: RandomCheckpoints, wan26: WanEngine, tmp_path: Path, small: VideoRequest, picture: Image
) -> None:
    from dataclasses import replace

    assert wan26._text is not None
    files = {
        name: write(tmp_path / f"{name}.safetensors", published(path.transformers["transformer"]))
        for name, path in (("text", wan26._text), ("image", wan26.image_path))
    }
    models = Wan26Models(
        text=str(random_models.text),
        image=str(random_models.vace),
        text_weights=files["text"],
        image_weights=files["image"],
    )
    engine = build_wan26(Wan26Settings(), models)
    for request in (small, replace(small, image=picture)):
        ours, theirs = (e.latents(request, Recorder()) for e in (engine, wan26))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # a mapped file's weights are aligned otherwise


def test_image_weights_without_their_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="`image_weights` needs `image`"):
        Wan26Models(text="somewhere", image_weights=tmp_path / "m.safetensors")


def pack(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """A matrix in ``kind``; the package has no writer for K types, so theirs are random blocks with scales of a weight's size."""
    array = tensor.detach().numpy()
    if not kind.name.endswith("_K"):
        return gguf.quants.quantize(array, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (array.size // block, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16([1e-4]).tobytes(), np.uint8)
    if kind.name in ("Q3_K", "Q6_K"):
        blocks[:, -2:] = scale
    else:
        blocks[:, :2] = blocks[:, 2:4] = scale
    return blocks.reshape(array.shape[0], -1)


@pytest.mark.parametrize("others", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("matrices", ["Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16"])
def test_every_gguf_type_is_read_as_the_gguf_package_reads_it(tmp_path: Path, matrices: str, others: str) -> None:
    (tmp_path / "transformer").mkdir()
    model = make("36 channels", tmp_path / "transformer")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, arch="wan")
    exact: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        kind = gguf.GGMLQuantizationType[matrices if tensor.ndim == 2 and name.endswith(".weight") else others]
        packed = pack(tensor, kind) if tensor.ndim == 2 else gguf.quants.quantize(tensor.detach().numpy(), kind)
        writer.add_tensor(original_name(name), packed, raw_dtype=kind)
        exact[name] = torch.from_numpy(gguf.quants.dequantize(packed, kind)).view(tensor.shape)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    loaded = load_gguf(path, tmp_path, "transformer", torch.float32, CPU)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(dequantize_gguf_tensor(tensor).float(), exact[name], rtol=2e-3, atol=1e-4, msg=name)
    model.load_state_dict(exact)
    inputs = (
        torch.randn(1, 36, 2, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500.0]),
        torch.zeros(1, 512, 256),
    )
    with torch.no_grad():
        ours, theirs = (m(*inputs, return_dict=False)[0].float() for m in (loaded, model.eval()))
    assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_experts_may_be_safetensors_and_two_that_are_one_are_refused(
    random_models: RandomCheckpoints, tmp_path: Path, small: VideoRequest, picture: Image
) -> None:
    from dataclasses import replace

    model = make("36 channels", tmp_path)
    high = write(tmp_path / "wan2.2_i2v_high_noise_14B_fp16.safetensors", published(model))
    for parameter in model.parameters():
        parameter.data *= 1.01
    low = write(tmp_path / "wan2.2_i2v_low_noise_14B_fp16.safetensors", published(model))

    def build(one: Path, other: Path) -> WanEngine:
        return build_wan22(Wan22Settings(), Wan22Models(folder=str(random_models.a14b), high_noise=one, low_noise=other))

    assert build(high, low).latents(replace(small, image=picture), Recorder()).isfinite().all()
    with pytest.raises(CheckpointRefused, match="configured as `high_noise`, but by its name"):
        build(low, high)
    same = tmp_path / "expert.safetensors"
    same.write_bytes(high.read_bytes())
    with pytest.raises(CheckpointRefused, match="hold the same bytes"):
        build(high, same)
    renamed = tmp_path / "expert.gguf"  # its metadata still say which one it is
    renamed.write_bytes(random_models.low_noise.read_bytes())
    with pytest.raises(
        CheckpointRefused, match=r"expert\.gguf: configured as `high_noise`, but by its name `Wan2\.2-I2V-LowNoise"
    ):
        build(renamed, low)
    with pytest.raises(CheckpointRefused, match=r"neither a \.gguf nor a \.safetensors"):
        build(write(tmp_path / "expert.bin", published(model, torch.float16)), low)
