"""LoRAs: a copy computes what merged weights would, and the model is unchanged."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.quantizers.gguf.utils import GGUFParameter
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.settings import VideoSettings
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.checkpoints.lora import fit_lora, is_lora, read_lora, with_lora, with_loras
from deployments.video.kernels.install import install_fast_blocks
from tests.engines.random_models import RandomCheckpoints, make_lora
from tests.engines.video.checkpoints.published import (
    CPU,
    KINDS,
    LAYER,
    PAIR,
    RANK,
    State,
    forward,
    make,
    merged,
    products,
    published,
    published_layer,
    write,
)


def original(lora: State) -> State:
    """Return ``lora`` by the names of the original release."""
    renamed = {}
    for name, tensor in lora.items():
        layer, end = name.split(".lora_")
        renamed[f"diffusion_model.{published_layer(layer)}.lora_{end}"] = tensor
    return renamed


def with_alpha(lora: State, alpha: float) -> State:
    """Return ``lora`` as `lora_down` and `lora_up`, scaled by ``alpha`` over the rank."""
    state = {name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): tensor for name, tensor in lora.items()}
    return state | {name.replace("lora_A.weight", "alpha"): torch.tensor(alpha) for name in lora if "lora_A" in name}


LAYOUTS: dict[str, tuple[Callable[[State], State], float]] = {
    "diffusers": (lambda lora: {f"transformer.{name}": tensor for name, tensor in lora.items()}, 1.0),
    "original": (original, 1.0),
    "original, down and up with alpha": (lambda lora: with_alpha(original(lora), 2.0), 2.0 / RANK),
    "half precision": (lambda lora: {name: tensor.half() for name, tensor in original(lora).items()}, 1.0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_computes_what_merged_weights_would(kind: str, layout: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path)
    lora, (rename, scale) = make_lora(model, RANK), LAYOUTS[layout]
    path = write(tmp_path / "lora.safetensors", rename(lora))
    assert is_lora(path)
    before = forward(model)
    view = with_lora(model, path, torch.float32)
    expected = forward(merged(model, products(lora, scale), kind))
    tolerance = 5e-3 if layout == "half precision" else 1e-4
    torch.testing.assert_close(forward(view), expected, rtol=tolerance, atol=tolerance)
    assert (expected - before).abs().mean() > 10 * tolerance, "the LoRA must change the result"
    assert torch.equal(forward(model), before), "the original is unchanged"
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    assert shared <= {parameter.data_ptr() for parameter in view.parameters()}, "weights are shared"


@pytest.mark.parametrize("fast", [False, True])
def test_full_differences_of_weights_biases_norms_and_modulations(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("text", tmp_path)
    changes = {
        "blocks.0.attn1.norm_q.weight": ("diffusion_model.blocks.0.self_attn.norm_q.diff", 0.5),
        "blocks.1.ffn.net.2.bias": ("diffusion_model.blocks.1.ffn.2.diff_b", 0.5),
        "blocks.1.norm2.bias": ("diffusion_model.blocks.1.norm3.diff_b", 0.5),
        "blocks.2.attn2.to_k.weight": ("diffusion_model.blocks.2.cross_attn.k.diff", 0.2),
        "patch_embedding.weight": ("diffusion_model.patch_embedding.diff", 0.1),
        "blocks.1.scale_shift_table": ("diffusion_model.blocks.1.diff_m", 0.5),
        "blocks.3.scale_shift_table": ("diffusion_model.blocks.3.diff_m", 0.5),
        "scale_shift_table": ("diffusion_model.head.diff_m", 0.5),
    }
    state = {name: torch.randn_like(model.state_dict()[name]) * size for name, (_, size) in changes.items()}
    lora = make_lora(model, RANK)
    lora = {name: tensor for name, tensor in lora.items() if name.startswith("blocks.3.ffn.")}
    path = write(tmp_path / "lora.safetensors", original(lora) | {changes[name][0]: state[name] for name in state})
    expected = forward(merged(model, state | products(lora), "text"))
    if fast:
        install_fast_blocks_on_cpu(model, monkeypatch)
    before = forward(model)
    torch.testing.assert_close(forward(with_lora(model, path, torch.float32)), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(forward(model), before)


@pytest.mark.parametrize("change", ["product", "whole"])
def test_a_quantised_expert_keeps_its_weights_as_stored(random_models: RandomCheckpoints, tmp_path: Path, change: str) -> None:
    def load() -> Any:
        return load_gguf(
            random_models.high_noise, folder=random_models.a14b, part="transformer", dtype=torch.float32, device=CPU
        )

    name = "blocks.1.ffn.net.0.proj"
    down, up = torch.randn(RANK, 256) * 0.2, torch.randn(512, RANK) * 0.2
    state = {"lora_A.weight": down, "lora_B.weight": up} if change == "product" else {"diff": up @ down}
    path = tmp_path / "lora.safetensors"
    save_file({f"transformer.{name}.{end}": tensor for end, tensor in state.items()}, path)
    model = load()
    view = with_lora(model, path, torch.float32)
    assert isinstance(view.get_parameter(f"{name}.linear.weight"), GGUFParameter)
    plain = load()
    plain.dequantize()
    plain.get_submodule(name).weight.data += up @ down
    torch.testing.assert_close(forward(view), forward(plain), rtol=1e-3, atol=1e-3)
    assert (forward(view) - forward(model)).abs().mean() > 1e-2


@pytest.mark.parametrize("kind", ["text", "VACE"])
def test_fast_blocks_are_changed_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(kind, tmp_path)
    lora = make_lora(model, RANK)
    path = write(tmp_path / "lora.safetensors", original(lora))
    expected = forward(merged(model, products(lora), kind))
    install_fast_blocks_on_cpu(model, monkeypatch)
    before = forward(model)
    torch.testing.assert_close(forward(with_lora(model, path, torch.float32)), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(forward(model), before)


def install_fast_blocks_on_cpu(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install fast blocks as on a GPU, with a GPU's activation.

    A CPU's epilogue is the exact activation, a GPU's the approximation.
    """
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    monkeypatch.setattr(
        torch, "_addmm_activation", lambda bias, x, w, use_gelu: F.gelu(torch.addmm(bias, x, w), approximate="tanh")
    )
    install_fast_blocks(model, VideoSettings(compile=False), torch.device("cuda"))


FAULTS: dict[str, tuple[State, str]] = {
    "unknown kind": (
        {f"{LAYER}.hada_w1_a": torch.zeros(2, 2)},
        "unknown tensor `diffusion_model.blocks.0.self_attn.q.hada_w1_a`",
    ),
    "unknown end": (
        {f"{LAYER}.lora_mid.weight": torch.zeros(2, 2)},
        "unknown tensor `diffusion_model.*; expected a name that ends in",
    ),
    "another layer": (
        {name.replace("self_attn.q", "self_attn.p"): tensor for name, tensor in PAIR.items()},
        "changes `blocks.0.attn1.p`, which this model does not have",
    ),
    "another model": (
        {name.replace(".0.", ".9."): tensor for name, tensor in PAIR.items()},
        "changes `blocks.9.attn1.to_q`, which this model does not have",
    ),
    "half a change": (
        {f"{LAYER}.lora_up.weight": PAIR[f"{LAYER}.lora_up.weight"]},
        "the change of `blocks.0.attn1.to_q` is incomplete; it has only up",
    ),
    "alpha alone": ({f"{LAYER}.alpha": torch.tensor(1.0)}, "is incomplete; it has only alpha"),
    "a wider model": (
        PAIR | {f"{LAYER}.lora_up.weight": torch.zeros(512, 2)},
        r"changes `blocks.0.attn1.to_q` by \[512, 256\], which is \[256, 256\] in this model",
    ),
    "changed twice": (PAIR | {f"{LAYER}.diff": torch.zeros(256, 256)}, "is changed twice, by `diff` and by a low-rank product"),
    "no layer": (
        {name.replace(".self_attn.q", ""): tensor for name, tensor in PAIR.items()},
        "changes `blocks.0`, which this model does not have",
    ),
    "a modulation of another model": (
        {"diffusion_model.blocks.0.diff_m": torch.zeros(1, 6, 512)},
        r"changes `blocks.0.scale_shift_table`, which is \[1, 6, 256\] in this model, by `diff` \[1, 6, 512\]",
    ),
    "a wrong bias": (PAIR | {f"{LAYER}.diff_b": torch.zeros(255)}, r"changes the bias of `blocks.0.attn1.to_q` by \[255\]"),
    "a product for a convolution": (
        {name.replace("blocks.0.self_attn.q", "patch_embedding"): tensor for name, tensor in PAIR.items()},
        r"changes `patch_embedding` by \[256, 256\], which is \[256, 16, 1, 2, 2\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(fault: str, tmp_path: Path) -> None:
    model = make("text", tmp_path)
    state, message = FAULTS[fault]
    with pytest.raises(CheckpointRefused, match=message) as refused:
        with_lora(model, write(tmp_path / "lora.safetensors", state), torch.float32)
    assert str(tmp_path / "lora.safetensors") in str(refused.value)


def test_whole_models_are_no_loras_and_broken_files_are_refused(tmp_path: Path) -> None:
    model = make("text", tmp_path)
    assert not is_lora(write(tmp_path / "whole.safetensors", published(model)))
    assert not is_lora(tmp_path / "expert.gguf")
    path = write(tmp_path / "lora.safetensors", original(make_lora(model)))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointRefused, match="not a readable safetensors file, perhaps truncated"):
        is_lora(path)


def flat(name: str) -> str:
    return "lora_unet_" + published_layer(name).replace(".", "_")


def down_up(name: str) -> str:
    return name.replace("lora_A", "lora_down").replace("lora_B", "lora_up")


Layout = Callable[[str, str], str]
"""Returns a tensor's name for a layer, by diffusers' name, and one of its two matrices."""
TRAINERS: dict[str, Layout] = {
    "musubi-tuner and kohya": lambda layer, end: f"{flat(layer)}.{down_up(end)}",
    "musubi-tuner, diffusers' names": lambda layer, end: f"lora_unet_{layer.replace('.', '_')}.{down_up(end)}",
    "LyCORIS's plain LoRA": lambda layer, end: f"lycoris_{layer.replace('.', '_')}.{down_up(end)}",
    "PEFT": lambda layer, end: f"base_model.model.{layer}.{end}",
    "PEFT with the adapter's name": lambda layer, end: f"base_model.model.{layer}.{end.replace('.', '.default.')}",
    "DiffSynth-Studio": lambda layer, end: f"{published_layer(layer)}.{end.replace('.', '.default.')}",
    "DiffSynth-Studio, later": lambda layer, end: f"pipe.dit.{published_layer(layer)}.{end.replace('.', '.default.')}",
    "VideoX-Fun": lambda layer, end: f"{flat(layer).replace('unet_', 'unet__')}.{down_up(end)}",
    "bare original names": lambda layer, end: f"{published_layer(layer)}.{down_up(end)}",
    "ComfyUI": lambda layer, end: f"model.diffusion_model.{published_layer(layer)}.{down_up(end)}",
    "old diffusers": lambda layer, end: (
        f"transformer.{layer}.{end.replace('lora_A', 'lora.down').replace('lora_B', 'lora.up')}"
    ),
    "bare names of diffusers": lambda layer, end: f"{layer}.{end}",
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("kind", ["text", "36 channels and CLIP", "VACE"])
def test_every_trainers_names_are_read(kind: str, trainer: str, tmp_path: Path) -> None:
    model = make(kind, tmp_path)
    lora = make_lora(model, RANK)
    extra = (
        {} if "old" in trainer else {name: model.get_submodule(name) for name in ("condition_embedder.time_proj", "proj_out")}
    )
    for name, layer in extra.items():
        lora |= {f"{name}.lora_A.weight": torch.randn(RANK, layer.in_features) * 0.1}
        lora |= {f"{name}.lora_B.weight": torch.randn(layer.out_features, RANK) * 0.1}
    renamed = {}
    for name, tensor in lora.items():
        layer_name, end = name.split(".lora_")
        renamed[TRAINERS[trainer](layer_name, f"lora_{end}")] = tensor
    if "proj_out" in extra and "LyCORIS" not in trainer and "diffusers' names" not in trainer:
        assert len(renamed) == len(lora)
    path = write(tmp_path / "lora.safetensors", renamed)
    assert is_lora(path)
    expected = forward(merged(model, products(lora), kind))
    torch.testing.assert_close(forward(with_lora(model, path, torch.float32)), expected, rtol=1e-4, atol=1e-4)


def test_changes_of_the_attention_to_an_image_are_left_out_of_a_model_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make("36 channels", tmp_path)
    lora = make_lora(model, RANK)
    image: State = {}
    for part in ("k_img", "v_img"):
        image |= {f"blocks.0.cross_attn.{part}.lora_down.weight": torch.ones(RANK, 256)}
        image |= {f"blocks.0.cross_attn.{part}.lora_up.weight": torch.ones(256, RANK)}
        image |= {f"blocks.0.cross_attn.{part}.diff_b": torch.ones(256)}
    image |= {"blocks.0.cross_attn.norm_k_img.diff": torch.ones(256), "img_emb.proj.1.diff_b": torch.ones(1280)}
    state = original(lora) | {f"diffusion_model.{name}": tensor for name, tensor in image.items()}
    with caplog.at_level(logging.INFO):
        view = with_lora(model, write(tmp_path / "lora.safetensors", state), torch.float32)
    torch.testing.assert_close(forward(view), forward(merged(model, products(lora), "36 channels")), rtol=1e-4, atol=1e-4)
    assert "4 changes of the attention to an image are left out, because the model has none" in caplog.text
    only = write(tmp_path / "only.safetensors", {f"diffusion_model.{name}": tensor for name, tensor in image.items()})
    with pytest.raises(CheckpointRefused, match="changes nothing that this model has"):
        with_lora(model, only, torch.float32)


@pytest.mark.parametrize("form", ["a difference", "low rank"])
@pytest.mark.parametrize(("kind", "channels"), [("text", 36), ("VACE", 36), ("36 channels", 16)])
def test_a_change_of_the_first_layer_for_other_inputs_is_left_out(
    kind: str, channels: int, form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LoRAs that distil have one, and are used for text and for images."""
    model = make(kind, tmp_path)
    lora = make_lora(model, RANK)
    first: State = {"patch_embedding.diff_b": torch.ones(256)}
    if form == "low rank":
        first["patch_embedding.lora_down.weight"] = torch.ones(RANK, channels, 1, 2, 2)
        first["patch_embedding.lora_up.weight"] = torch.ones(256, RANK, 1, 1, 1)
    else:
        first["patch_embedding.diff"] = torch.ones(256, channels, 1, 2, 2)
    state = original(lora) | {f"diffusion_model.{name}": tensor for name, tensor in first.items()}
    with caplog.at_level(logging.INFO):
        view = with_lora(model, write(tmp_path / "lora.safetensors", state), torch.float32)
    alone = with_lora(model, write(tmp_path / "alone.safetensors", original(lora)), torch.float32)
    assert torch.equal(view.patch_embedding.weight, model.patch_embedding.weight)
    assert torch.equal(view.patch_embedding.bias, model.patch_embedding.bias)
    changed, expected = (model.blocks[0].attn1.to_q(torch.ones(1, 256)) for model in (view, alone))
    torch.testing.assert_close(changed, expected)
    assert "1 changes of the input of an image are left out" in caplog.text
    odd = original(lora) | {"diffusion_model.patch_embedding.diff": torch.ones(256, 20, 1, 2, 2)}
    with pytest.raises(CheckpointRefused, match="changes `patch_embedding` by"):
        with_lora(model, write(tmp_path / "odd.safetensors", odd), torch.float32)


def test_a_low_rank_change_of_a_convolution_is_a_whole_one(tmp_path: Path) -> None:
    model = make("text", tmp_path)
    down, up = torch.randn(RANK, 16, 1, 2, 2) * 0.1, torch.randn(256, RANK, 1, 1, 1) * 0.1
    state = {"diffusion_model.patch_embedding.lora_down.weight": down, "diffusion_model.patch_embedding.lora_up.weight": up}
    view = with_lora(model, write(tmp_path / "lora.safetensors", state), torch.float32)
    product = torch.einsum("rcthw,or->octhw", down, up[:, :, 0, 0, 0])
    expected = forward(merged(model, {"patch_embedding.weight": product}, "text"))
    torch.testing.assert_close(forward(view), expected, rtol=1e-4, atol=1e-4)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in PAIR.items()}
    state[f"{LAYER}.lora_up.weight"][3, 1] = float("nan")
    with pytest.raises(CheckpointRefused, match=rf"`{LAYER}\.lora_up\.weight` holds NaN or infinity"):
        with_lora(make("text", tmp_path), write(tmp_path / "lora.safetensors", state), torch.float32)


def test_several_loras_add_up_and_one_may_be_on_a_copy_with_another(tmp_path: Path) -> None:
    model = make("text", tmp_path)
    before = forward(model)
    loras, changes = [], []
    for number, factor in enumerate((0.5, -1.0, 2.0)):
        lora = make_lora(model, RANK + number)
        bias = torch.randn(256) * 0.3
        state = original(lora) | {f"{LAYER}.diff_b": bias, "diffusion_model.blocks.1.diff_m": torch.full((1, 6, 256), 0.1)}
        file = read_lora(write(tmp_path / f"{number}.safetensors", state))
        loras.append((fit_lora(file, model, torch.float32), factor))
        changes.append(products(lora, factor) | {"blocks.0.attn1.to_q.bias": factor * bias})
        changes[-1]["blocks.1.scale_shift_table"] = torch.full((1, 6, 256), 0.1 * factor)
    total: State = {}
    for change in changes:
        total = {name: total.get(name, torch.zeros(())) + change.get(name, torch.zeros(())) for name in total | change}
    expected = forward(merged(model, total, "text"))
    stacked = forward(with_loras(model, loras))
    one_after_another = forward(with_loras(with_loras(model, loras[:1]), loras[1:]))
    torch.testing.assert_close(stacked, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one_after_another, expected, rtol=1e-3, atol=1e-3)
    assert with_loras(model, [(lora, 0.0) for lora, _ in loras]) is model
    assert torch.equal(forward(model), before)
