"""Where trainers say how strong a LoRA is: in the header, or in PEFT's settings beside the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.lora_folder import LoraFolder
from deployments.video.checkpoints.lora import read_lora, with_lora
from tests.engines.random_models import make_lora
from tests.engines.video.checkpoints.published import LAYER, PAIR, RANK, forward, make, merged, products, write

ADAPTERS: dict[str, tuple[dict[str, Any], float]] = {
    "alpha": ({"r": RANK, "lora_alpha": 2 * RANK}, 2.0),
    "rsLoRA": ({"r": RANK, "lora_alpha": RANK, "use_rslora": True}, RANK**0.5),
    "an alpha for some layers": (
        {"r": RANK, "lora_alpha": 99.0, "alpha_pattern": {r"attn\d\..*": RANK, r"ffn\..*": RANK}},
        1.0,
    ),
}


def flat(settings: dict[str, Any], prefix: str) -> dict[str, str]:
    """Return ``settings`` as a text for each, which is all that a header can hold."""
    texts = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in settings.items()}
    return {f"{prefix}{name}": text for name, text in texts.items()}


HEADERS: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "diffusers' header": lambda settings: {
        "lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in settings.items()})
    },
    "diffusers' header of a low-noise expert": lambda settings: {
        "lora_adapter_metadata": json.dumps({f"transformer_2.{name}": value for name, value in settings.items()})
    },
    "a header with an object for the model": lambda settings: {"lora_adapter_metadata": json.dumps({"transformer": settings})},
    "finetrainers' header": lambda settings: {
        "lora_config": json.dumps({**settings, "init_lora_weights": True, "target_modules": ["to_q"]}, indent=4)
    },
    "a flat header": lambda settings: flat(settings, ""),
    "a flat header of the transformer": lambda settings: flat(settings, "transformer.") | {"lora_config": "None"},
}


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "loftq", "corda"])
@pytest.mark.parametrize("where", ["diffusers' header", "a flat header", "beside"])
def test_an_adapter_that_has_changed_its_model_is_refused(where: str, start: str, tmp_path: Path) -> None:
    settings = {"r": RANK, "lora_alpha": RANK, "init_lora_weights": start}
    lora = {f"transformer.{name}": t for name, t in make_lora(make("text", tmp_path), RANK).items()}
    path = tmp_path / "adapter_model.safetensors"
    save_file(lora, path, None if where == "beside" else HEADERS[where](settings))
    if where == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointRefused, match=f"changing the model itself .`{start}`"):
        read_lora(path)


@pytest.mark.parametrize("form", ADAPTERS)
@pytest.mark.parametrize("where", [*HEADERS, "beside", "beside, in a bucket"])
def test_alpha_is_found_in_the_header_and_beside_the_file(where: str, form: str, tmp_path: Path) -> None:
    settings, scale = ADAPTERS[form]
    model = make("text", tmp_path)
    lora = make_lora(model, RANK)
    if where in HEADERS:
        path = tmp_path / "pytorch_lora_weights.safetensors"
        header = {"format": "pt", **HEADERS[where](settings)}
        save_file({f"transformer.{name}": t for name, t in lora.items()}, path, header)
    else:  # as PEFT does
        path = write(tmp_path / "adapter_model.safetensors", {f"base_model.model.{name}": t for name, t in lora.items()})
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    if where == "beside, in a bucket":
        bucket = fsspec.filesystem("memory")
        for file in (path, tmp_path / "adapter_config.json"):
            bucket.pipe(f"/{tmp_path.name}/ink/{file.name}", file.read_bytes())
        folder = LoraFolder(f"memory://{tmp_path.name}")
        path = folder.path_of(folder.entries()["ink"].files["all"])
    expected = forward(merged(model, products(lora, scale), "text"))
    torch.testing.assert_close(forward(with_lora(model, path, torch.float32)), expected, rtol=1e-4, atol=1e-4)


def test_a_pattern_is_for_the_names_that_the_file_has(tmp_path: Path) -> None:
    settings = {"r": 2, "lora_alpha": 2, "alpha_pattern": {"blocks.0.self_attn.q": 8, r"ffn\.0": 4}}
    layers = ("blocks.0.self_attn.q", "blocks.1.self_attn.q", "blocks.1.ffn.0")
    matrices = {
        f"diffusion_model.{layer}.{part}.weight": torch.ones(shape)
        for layer in layers
        for part, shape in (("lora_A", (2, 4)), ("lora_B", (4, 2)))
    }
    path = tmp_path / "style.safetensors"
    save_file(matrices, path, {"lora_adapter_metadata": json.dumps(settings)})
    ups = {name: float(change["up"].flatten()[0]) for name, change in read_lora(path).changes.items()}
    assert ups == {"blocks.0.attn1.to_q": 4.0, "blocks.1.attn1.to_q": 1.0, "blocks.1.ffn.net.0.proj": 2.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "must be a JSON object"),
        ('{"use_dora": true}', "a DoRA"),
        ('{"lora_alpha": "x"}', "an alpha in its adapter settings is not a number"),
        ('{"alpha_pattern": {"q": []}}', "an alpha in its adapter settings is not a number"),
        *(
            (settings, "an alpha in its adapter settings is NaN or infinite")
            for number in ("NaN", "Infinity", "-1e999")
            for settings in (f'{{"lora_alpha": {number}}}', f'{{"alpha_pattern": {{"q": {number}}}}}')
        ),
        ('{"lora_alpha": 1e39}', "scaled by 5e"),
        (f'{{"lora_alpha": 1{"0" * 400}}}', "not a number"),
    ],
)
def test_adapter_settings_that_cannot_be_used_are_refused(settings: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({name: tensor + 1 for name, tensor in PAIR.items()}, path, {"lora_adapter_metadata": settings})
    with pytest.raises(CheckpointRefused, match=message):
        with_lora(make("text", tmp_path), path, torch.float32)


@pytest.mark.parametrize("settings", [b"{", b"\xff\xfe", b"[]", b""])
def test_settings_beside_an_adapter_that_are_no_object_are_refused(settings: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "adapter_model.safetensors", PAIR)
    (tmp_path / "adapter_config.json").write_bytes(settings)
    # The message begins with the adapter, so that an answer can leave out where that is.
    with pytest.raises(
        CheckpointRefused, match=r"^.*adapter_model\.safetensors: adapter_config\.json beside it must be a JSON"
    ):
        read_lora(path)


def ups_of(path: Path, header: dict[str, str]) -> float:
    """Return the factor of the product in a LoRA of rank 2 with ``header``."""
    save_file({name: tensor + 1 for name, tensor in PAIR.items()}, path, header)
    (change,) = read_lora(path).changes.values()
    return float(change["up"].flatten()[0])


@pytest.mark.parametrize("value", ["", "None", "null"])
def test_an_alpha_that_is_none_in_a_flat_header_is_none(value: str, tmp_path: Path) -> None:
    assert ups_of(tmp_path / "lora.safetensors", {"lora_alpha": value}) == 1.0


@pytest.mark.parametrize("value", ["", "None", None])
def test_an_alpha_that_is_none_in_an_object_is_none(value: str | None, tmp_path: Path) -> None:
    settings = json.dumps({"r": 2, "lora_alpha": value, "alpha_pattern": {"q": value}})
    assert ups_of(tmp_path / "lora.safetensors", {"lora_config": settings}) == 1.0


@pytest.mark.parametrize("value", ["sixteen", "[16]", "True", '{"q": 16}', "16,0"])
@pytest.mark.parametrize("key", ["lora_alpha", "transformer.lora_alpha"])
def test_an_alpha_that_is_no_number_in_a_flat_header_is_refused(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"lora\.safetensors: an alpha in its adapter settings is not a number"):
        ups_of(tmp_path / "lora.safetensors", {key: value})


def test_an_alpha_beside_the_matrices_goes_before_those_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({name: t + 1 for name, t in PAIR.items()} | {f"{LAYER}.alpha": torch.tensor(6.0)}, path, {"lora_alpha": "16"})
    (change,) = read_lora(path).changes.values()
    assert float(change["up"].flatten()[0]) == 3.0


def test_a_network_alpha_that_a_converter_has_multiplied_in_is_not_applied_again(tmp_path: Path) -> None:
    """musubi-tuner's `convert_lora.py` scales both matrices, drops `alpha` and keeps the header."""
    alpha, rank = 0.5, 2
    share = (alpha / rank) ** 0.5
    path = tmp_path / "converted.safetensors"
    matrices = {"lora_A": torch.full((rank, 256), share), "lora_B": torch.full((256, rank), share)}
    header = {"ss_network_module": "networks.lora_wan", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    save_file({f"{LAYER}.{part}.weight": t for part, t in matrices.items()}, path, header)
    (change,) = read_lora(path).changes.values()
    torch.testing.assert_close(change["up"] @ change["down"], torch.full((256, 256), rank * alpha / rank))
