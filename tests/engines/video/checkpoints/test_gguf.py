"""GGUF files: written and read weights agree, and a file that does not fit is refused by name."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gguf
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Settings
from deployments.video.build import build_wan22
from deployments.video.checkpoints import gguf as gguf_file
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.gguf import load_gguf
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints, wan22_models
from tests.engines.video.checkpoints.gguf_files import finish
from tests.engines.video.checkpoints.published import CPU, KINDS, State, forward, make, names_in, published
from tests.engines.video.recorder import image_mode_of, latents_of
from training.gguf_file import Quantization, original_name, quantize_q5_k, write_wan_gguf


def test_original_names_are_those_that_diffusers_reads() -> None:
    with torch.device("meta"):
        model = WanTransformer3DModel(**TRANSFORMER, in_channels=36)
    names = {original_name(name): tensor for name, tensor in model.state_dict().items()}
    assert "blocks.0.self_attn.q.weight" in names
    assert "head.modulation" in names
    assert set(convert_wan_transformer_to_diffusers(names)) == set(model.state_dict())


@pytest.mark.parametrize("quantization", ["Q8_0", "Q5_K"])
def test_gguf_quantisation_keeps_the_latents(
    random_models: RandomCheckpoints, tmp_path: Path, quantization: Quantization, small: VideoRequest, image: Image
) -> None:
    """The error against float32 weights is small, and smaller for Q8_0 than for Q5_K."""
    paths = []
    exact = {}
    for part, seed in (("transformer", 1), ("transformer_2", 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WanTransformer3DModel(**TRANSFORMER, in_channels=36).eval()
        exact[part] = model
        path = tmp_path / f"{part}-{quantization}.gguf"
        write_wan_gguf(path, model.state_dict(), quantization=quantization, name=part)
        paths.append(path)
        kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
        assert kinds["blocks.0.self_attn.q.weight"] == quantization
        assert kinds["patch_embedding.weight"] == "F32"
    engine = build_wan22(Wan22Settings(), wan22_models(random_models, high=paths[0], low=paths[1]))
    request = replace(small, image=image)
    quantised = latents_of(engine, request)
    image_mode_of(engine).transformers.update(exact)
    truth = latents_of(engine, request)
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

    def refusal(high: Path, low: Path) -> str:
        with pytest.raises(CheckpointRefused) as refused:
            build_wan22(Wan22Settings(), wan22_models(random_models, high=high, low=low))
        return str(refused.value)

    assert "configured as both experts" in refusal(good, good)
    assert "no such file" in refusal(tmp_path / "none.gguf", good)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[:-5000])
    assert "truncated" in refusal(cut, good)
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"\xff\xfenot a gguf file at all" * 10)
    assert "not a readable GGUF file" in refusal(noise, good)
    other = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, arch="llama")
    writer.add_tensor("a", np.zeros((2, 2), np.float32))
    finish(writer)
    assert "`llama`, expected `wan`" in refusal(other, good)
    with torch.random.fork_rng(devices=[]):
        state = WanTransformer3DModel(**TRANSFORMER, in_channels=36).state_dict()
    state.pop("blocks.2.ffn.net.2.bias")
    missing = tmp_path / "missing.gguf"
    write_wan_gguf(missing, state, quantization="Q8_0", name="missing")
    assert "missing tensor `blocks.2.ffn.net.2.bias`" in refusal(missing, random_models.low_noise)


def test_an_unsupported_tensor_type_is_named(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / "integers.gguf"
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_tensor("blocks.0.norm3.bias", np.zeros(8, np.int8))
    finish(writer)
    with pytest.raises(CheckpointRefused, match=r"norm3\.bias` is I8, which is not supported; available: .*Q5_K"):
        build_wan22(Wan22Settings(), wan22_models(random_models, high=path))


SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,)}
"""Where blocks of the types that the gguf package cannot write have their scales in float16."""


def pack(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """Return a matrix in ``kind``.

    Those of the types that the package cannot write are random blocks with scales of a weight's
    size.
    """
    array = tensor.detach().numpy()
    if kind.name not in SCALES:
        packed: np.ndarray[Any, Any] = gguf.quants.quantize(array, kind)
        return packed
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (array.size // block, size), dtype=np.uint8)
    for offset in SCALES[kind.name]:
        blocks[:, offset : offset + 2] = np.frombuffer(np.array([1e-4], np.float16).tobytes(), np.uint8)
    return blocks.reshape(array.shape[0], -1)


BLOCKS = ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS"]


@pytest.mark.parametrize("others", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("matrices", [*BLOCKS, "F16", "BF16"])
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
    finish(writer)
    loaded = load_gguf(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(dequantize_gguf_tensor(tensor).float(), exact[name], rtol=2e-3, atol=1e-4, msg=name)
    model.load_state_dict(exact)
    inputs = (
        torch.randn(1, 36, 2, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.tensor([500.0]),
        torch.zeros(1, 512, 256),
    )
    with torch.no_grad():
        result, expected = (m(*inputs, return_dict=False)[0].float() for m in (loaded, model.eval()))
    assert (result - expected).norm() < 0.01 * expected.norm()


def rewritten(source: Path, path: Path, *, arch: str | None = "wan", prefix: str = "", flat: bool = False) -> Path:
    """Write the GGUF file ``source`` again, as another converter would."""
    writer = gguf.GGUFWriter(path, arch or "none")
    if arch is None:
        writer.kv_data[0].pop("general.architecture")
    for tensor in gguf.GGUFReader(source).tensors:
        data = np.array(tensor.data)
        if flat and tensor.name == "patch_embedding.weight":
            shape = [int(side) for side in reversed(tensor.shape)]
            writer.add_array(f"comfy.gguf.orig_shape.{prefix}{tensor.name}", shape)
            data = data.reshape(shape[0], -1)
        plain = tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        writer.add_tensor(prefix + tensor.name, data, raw_dtype=None if plain else tensor.tensor_type)
    finish(writer)
    return path


CONVERTERS: dict[str, dict[str, Any]] = {
    "diffusion_model.": {"prefix": "diffusion_model."},
    "model.diffusion_model.": {"prefix": "model.diffusion_model."},
    "pipe.dit.": {"prefix": "pipe.dit."},
    "another architecture": {"arch": "pig"},
    "no architecture": {"arch": None},
    "a flat convolution": {"flat": True},
    "all of it": {"prefix": "model.diffusion_model.", "arch": None, "flat": True},
}


@pytest.mark.parametrize("converter", CONVERTERS)
def test_files_of_other_converters_are_the_same_model(random_models: RandomCheckpoints, tmp_path: Path, converter: str) -> None:
    path = rewritten(random_models.high_noise, tmp_path / "m.gguf", **CONVERTERS[converter])
    files = (random_models.high_noise, path)
    expected, loaded = (
        load_gguf(file, folder=random_models.a14b, part="transformer", dtype=torch.float32, device=CPU).state_dict()
        for file in files
    )
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def of_sdcpp(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the dimensions that stable-diffusion.cpp stores of it."""
    if tensor.ndim == 5:
        tensor = tensor.flatten(0, 1)
    while tensor.ndim > 1 and len(tensor) == 1:
        tensor = tensor[0]
    return tensor


def write_sdcpp(path: Path, state: State, kind: gguf.GGMLQuantizationType) -> Path:
    """Write ``state`` as `sd --mode convert` does with ComfyUI's file of it.

    It knows no architecture for Wan, and quantises all but biases and embeddings.
    """
    writer = gguf.GGUFWriter(path, "none")
    writer.kv_data[0].pop("general.architecture")
    for name, whole in state.items():
        tensor = np.ascontiguousarray(of_sdcpp(whole).detach().numpy())
        if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] or name.endswith(".bias") or "embedding" in name:
            writer.add_tensor(f"model.diffusion_model.{name}", tensor)
        else:
            writer.add_tensor(f"model.diffusion_model.{name}", gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    finish(writer)
    return path


@pytest.mark.parametrize("quantisation", ["F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("model_kind", KINDS)
def test_files_of_stable_diffusion_cpp_have_their_dimensions_back(model_kind: str, quantisation: str, tmp_path: Path) -> None:
    model = make(model_kind, tmp_path / "transformer")
    kind = gguf.GGMLQuantizationType[quantisation]
    path = write_sdcpp(tmp_path / "wan2.2_high_noise.gguf", published(model), kind)
    dimensions = {len(tensor.shape) for tensor in gguf.GGUFReader(path).tensors}
    assert dimensions == {1, 2, 4}
    loaded = load_gguf(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU).state_dict()
    for name, tensor in model.state_dict().items():
        found = dequantize_gguf_tensor(loaded[name]).float()
        assert found.shape == tensor.shape
        error = {"F16": 1e-3, "Q8_0": 0.01, "Q4_0": 0.2}[quantisation]
        assert (found - tensor).norm() <= error * tensor.norm(), name
    assert torch.equal(loaded["patch_embedding.weight"], model.state_dict()["patch_embedding.weight"]) or quantisation == "F16"
    (finding,) = check_video_models(tmp_path)
    assert finding.faults == ()
    assert finding.setting.startswith("models.")


def test_a_merged_convolution_without_its_bias_is_refused(tmp_path: Path) -> None:
    model = make("36 channels", tmp_path / "transformer")
    state = {name: tensor for name, tensor in published(model).items() if name != "patch_embedding.bias"}
    path = write_sdcpp(tmp_path / "m.gguf", state, gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(CheckpointRefused, match=r"missing tensor `patch_embedding\.bias`"):
        load_gguf(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)
    (finding,) = check_video_models(tmp_path)
    assert finding.faults


FLAT = {
    "rows of other blocks": ("Q8_0", "blocks.0.self_attn.q.weight", 128),
    "one row": ("Q4_0", "blocks.0.ffn.2.weight", 256 * 512),
    "K-quants": ("Q5_K", "blocks.0.ffn.2.weight", 256),
    "a bias": ("Q8_0", "blocks.0.ffn.0.bias", 32),
    "a table": ("Q8_0", "blocks.1.modulation", 6 * 256),
}


@pytest.mark.parametrize("case", FLAT)
def test_a_quantised_tensor_that_is_stored_flat_has_its_noted_shape(case: str, tmp_path: Path) -> None:
    quantisation, flat, columns = FLAT[case]
    kind = gguf.GGMLQuantizationType[quantisation]
    model = make("36 channels", tmp_path / "transformer")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "wan")
    for name, tensor in published(model).items():
        if name == flat:
            packed = pack(tensor.reshape(-1, columns), kind)
            expected = torch.from_numpy(gguf.quants.dequantize(packed, kind)).reshape(tensor.shape)
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [*tensor.shape])
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor.numpy())
    finish(writer)
    loaded = load_gguf(tmp_path / "m.gguf", folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)
    found = dequantize_gguf_tensor(loaded.state_dict()[names_in(model)[flat]]).float()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)
    assert forward(loaded).isfinite().all()


def test_a_matrix_whose_rows_are_no_whole_blocks_is_dequantised() -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    matrix = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    packed = pack(matrix.reshape(3, 32), kind)
    tensor = SimpleNamespace(tensor_type=kind, data=packed)
    read = gguf_file._read(cast(gguf.ReaderTensor, tensor), (8, 12))
    torch.testing.assert_close(read, torch.from_numpy(gguf.quants.dequantize(packed, kind)).reshape(8, 12))


@pytest.mark.parametrize("shape", [[-256, -256], [256], "256x256", [256.0, 256.0], [512, 256]])
def test_a_noted_shape_that_cannot_be_is_refused(shape: Any, tmp_path: Path) -> None:
    make("36 channels", tmp_path / "transformer")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "wan")
    name = "blocks.0.self_attn.q.weight"
    if isinstance(shape, str):
        writer.add_string(f"comfy.gguf.orig_shape.{name}", shape)
    else:
        writer.add_array(f"comfy.gguf.orig_shape.{name}", shape)
    writer.add_tensor(
        name, pack(torch.ones(256, 256), gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0
    )
    finish(writer)
    with pytest.raises(CheckpointRefused, match=r"orig_shape.* but must be a list of whole numbers whose product is 65536"):
        load_gguf(tmp_path / "m.gguf", folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *BLOCKS])
def test_nan_is_found_in_blocks_and_in_plain_tensors(tmp_path: Path, kind: str) -> None:
    """The first weight of a tensor is NaN, or a scale of its last block, where a block has any."""
    quantization = gguf.GGMLQuantizationType[kind]
    good = pack(torch.randn(4, 512, generator=torch.Generator().manual_seed(0)), quantization)
    raw = np.ascontiguousarray(good).view(np.uint8).reshape(-1).copy()
    block = gguf.GGML_QUANT_SIZES[quantization][1]
    nan = {2: np.array([0x00, 0x7E], np.uint8), 4: np.array([0, 0, 0xC0, 0x7F], np.uint8)}
    if block <= 4:
        raw[:block] = nan[block] if kind != "BF16" else np.array([0xC0, 0x7F], np.uint8)
    else:
        offset = SCALES.get(kind, (0,))[-1]
        raw[len(raw) - block + offset : len(raw) - block + offset + 2] = nan[2]
    spoilt = raw.view(good.dtype).reshape(good.shape)
    assert np.isnan(gguf.quants.dequantize(spoilt, quantization)).any()
    (tmp_path / "transformer").mkdir()
    make("36 channels", tmp_path / "transformer")
    for name, data in (("good", good), ("spoilt", spoilt)):
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, arch="wan")
        writer.add_tensor("blocks.0.self_attn.q.weight", data, raw_dtype=quantization)
        finish(writer)
        with pytest.raises(CheckpointRefused, match="holds NaN or infinity" if name == "spoilt" else "missing tensor"):
            load_gguf(path, folder=tmp_path, part="transformer", dtype=torch.float32, device=CPU)
