"""Values of a wrong type in the configurations of a checkpoint: each is refused by file and key."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints import config_values
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.config_values import types_of
from deployments.video.checkpoints.folder import (
    empty_image_encoder,
    empty_text_encoder,
    empty_transformer,
    empty_vae,
    load_image_processor,
    load_scheduler,
    read_index,
)
from deployments.video.checkpoints.gguf import open_gguf, stored_name, stored_shapes
from deployments.video.checkpoints.lora_file import read_lora
from deployments.video.checkpoints.source import open_source
from deployments.video.checkpoints.tensor_files import find_files
from deployments.video.checkpoints.tokenizer import read_tokenizer
from tests.engines.random_models import RandomCheckpoints, make_lora
from tests.engines.video.checkpoints.folders import copy_of
from tests.engines.video.checkpoints.gguf_files import finish
from tests.engines.video.checkpoints.published import make, write

LAYERS = {"attention_head_dim": 12, "num_attention_heads": 2, "num_layers": 2, "ffn_dim": 8, "text_dim": 8, "freq_dim": 8}
TRANSFORMER = {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], **LAYERS}
VACE = {**TRANSFORMER, "_class_name": "WanVACETransformer3DModel", "vace_layers": [0]}
VAE = {"_class_name": "AutoencoderKLWan", "base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
UMT5 = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_heads": 2}
CLIP = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
PROCESSOR = {"do_resize": True, "size": {"shortest_edge": 28}, "image_mean": [0.5, 0.5, 0.5]}
SCHEDULER = {"use_flow_sigmas": True, "flow_shift": 3}

Reader = Callable[[Path], object]
READERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Reader]] = {
    "transformer": ("config.json", TRANSFORMER, types_of(WanTransformer3DModel), empty_transformer),
    "VACE": ("config.json", VACE, types_of(WanVACETransformer3DModel), empty_transformer),
    "VAE": ("config.json", VAE, types_of(AutoencoderKLWan), empty_vae),
    "text encoder": ("config.json", UMT5, dict(config_values.TEXT_ENCODER), empty_text_encoder),
    "image encoder": ("config.json", CLIP, dict(config_values.IMAGE_ENCODER), empty_image_encoder),
    "processor": (
        "image_processor/preprocessor_config.json",
        PROCESSOR,
        dict(config_values.IMAGE_PROCESSOR),
        load_image_processor,
    ),
    "scheduler": (
        "scheduler/scheduler_config.json",
        SCHEDULER,
        types_of(UniPCMultistepScheduler),
        lambda folder: load_scheduler(folder, None),
    ),
    "index": ("model_index.json", {"_class_name": "WanPipeline"}, dict(config_values.INDEX), read_index),
}
"""The file of each configuration, a good one, the types of its values, and what reads it."""
WRONG: tuple[Any, ...] = ("256", 1.5, None, True, [], [1, "a"], [None], {"a": 1}, -1, 0, [10**9], float("nan"))


def config_in(folder: Path, file: str, config: dict[str, Any]) -> Path:
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def refusal(read: Reader, folder: Path) -> str | None:
    """Return why a configuration is refused, or None if something can be built of it."""
    try:
        read(folder)
    except CheckpointRefused as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("reader", READERS)
def test_no_value_fails_without_the_name_of_its_file(tmp_path: Path, reader: str) -> None:
    """Of some values a model can be built; a refusal names the file, and mostly the key."""
    file, good, types, read = READERS[reader]
    config_in(tmp_path, file, good)
    assert refusal(read, tmp_path) is None
    refusals: list[tuple[str, str]] = []
    for key in types:
        for value in WRONG:
            path = config_in(tmp_path, file, {**good, key: value})
            if (said := refusal(read, tmp_path)) is not None:
                assert said.startswith((f"{path}: ", f"{path.parent}: "))
                refusals.append((key, said))
    assert len(refusals) >= 4 * len(types)
    assert sum(f"`{key}`" in said for key, said in refusals) >= 0.8 * len(refusals)


@pytest.mark.parametrize(
    ("reader", "key", "value", "says"),
    [
        ("transformer", "num_layers", "2", '`num_layers` is "2", but must be a whole number'),
        ("transformer", "num_layers", None, "`num_layers` is null, but must be a whole number"),
        ("transformer", "patch_size", [1, "2", 2], "`patch_size` is [1, '2', 2], but must be a list of whole numbers"),
        ("transformer", "eps", "small", '`eps` is "small", but must be a number'),
        ("transformer", "image_dim", [8], "`image_dim` is [8], but must be a whole number or null"),
        ("transformer", "_class_name", ["WanTransformer3DModel"], "unknown architecture"),
        ("VACE", "vace_layers", 2, "`vace_layers` is 2, but must be a list of whole numbers"),
        ("VAE", "dim_mult", "1244", '`dim_mult` is "1244", but must be a list of whole numbers'),
        ("VAE", "latents_mean", [None] * 16, "but must be a list of numbers"),
        ("VAE", "temperal_downsample", [0, 1, 1], "but must be a list of values that are true or false"),
        ("text encoder", "vocab_size", None, "`vocab_size` is null, but must be a whole number"),
        ("text encoder", "d_model", "8", '`d_model` is "8", but must be a whole number'),
        ("text encoder", "feed_forward_proj", "none-such", "nothing can be built of these values"),
        ("image encoder", "image_size", "224", '`image_size` is "224", but must be a whole number'),
        ("processor", "size", "224", '`size` is "224", but must be a whole number or an object'),
        ("processor", "image_mean", 0.5, "`image_mean` is 0.5, but must be a list of numbers"),
        ("scheduler", "use_flow_sigmas", "true", '`use_flow_sigmas` is "true", but must be true or false'),
        ("scheduler", "flow_shift", "3.0", '`flow_shift` is "3.0", but must be a number'),
        ("scheduler", "solver_type", "heun", '`solver_type` is "heun", but must be `bh1` or `bh2`'),
        ("index", "_class_name", 5, "`_class_name` is 5, but must be text"),
        ("index", "transformer_2", "WanTransformer3DModel", "but must be a list of texts or nulls or null"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_what_it_must_be(
    tmp_path: Path, reader: str, key: str, value: Any, says: str
) -> None:
    file, good, _, read = READERS[reader]
    path = config_in(tmp_path, file, {**good, key: value})
    with pytest.raises(CheckpointRefused, match=re.escape(says)) as refused:
        read(tmp_path)
    assert str(refused.value).startswith((f"{path}: ", f"{path.parent}: "))


def test_what_the_libraries_write_themselves_has_the_right_types(tmp_path: Path) -> None:
    """So that a release that declares other types is noticed."""
    AutoencoderKLWan(base_dim=4, num_res_blocks=1).save_config(tmp_path)
    empty_vae(tmp_path)
    WanTransformer3DModel(**LAYERS).save_config(tmp_path)
    empty_transformer(tmp_path)
    WanVACETransformer3DModel(**LAYERS, vace_layers=[0]).save_config(tmp_path)
    empty_transformer(tmp_path)
    UniPCMultistepScheduler(use_flow_sigmas=True, sigma_max=1.0, shift_terminal=0.1).save_config(tmp_path / "scheduler")
    load_scheduler(tmp_path, None)


@pytest.mark.parametrize("entry", ["WanTransformer3DModel", {"a": 1}, [1, 2], True])
def test_a_second_expert_of_a_wrong_type_is_not_taken_for_none(
    random_models: RandomCheckpoints, tmp_path: Path, entry: object
) -> None:
    folder = copy_of(random_models.text, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "transformer_2": entry, "boundary_ratio": 0.9}))
    with pytest.raises(CheckpointRefused, match=r"model_index\.json: `transformer_2` is"):
        open_source(folder, None, None, "models.wan26.text")


@pytest.mark.parametrize("names", [[5], [["a"]], [None, "a"], [{}]])
def test_an_index_of_shards_names_files_by_text(tmp_path: Path, names: list[object]) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {str(n): name for n, name in enumerate(names)}}))
    with pytest.raises(CheckpointRefused, match="not an index of shards"):
        find_files(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"pad_token": 5}, "`pad_token` is 5, but must be text or an object or null"),
        ({"eos_token": ["</s>"]}, "`eos_token` is ['</s>'], but must be text"),
        ({"unk_token": {"content": 1}}, "`content` is 1, but must be text"),
    ],
)
def test_a_special_token_of_a_wrong_type_is_refused(
    random_models: RandomCheckpoints, tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    folder = copy_of(random_models.text / "tokenizer", tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointRefused, match=re.escape(f"tokenizer_config.json: {says}")):
        read_tokenizer(folder)


@pytest.mark.parametrize("key", ["use_dora", "use_rslora"])
def test_a_lora_whose_settings_have_a_wrong_type_is_refused(tmp_path: Path, key: str) -> None:
    """As text, `false` would count as true: another strength, or a refusal for another reason."""
    lora = make_lora(make("text", tmp_path / "config"))
    path = tmp_path / "a.safetensors"
    save_file(lora, path, {"lora_adapter_metadata": json.dumps({f"transformer.{key}": "false"})})
    with pytest.raises(CheckpointRefused, match=rf'a\.safetensors: `{key}` is "false", but must be true or false or null'):
        read_lora(path)


def wan_gguf(path: Path, change: Callable[[gguf.GGUFWriter], object]) -> Path:
    writer = gguf.GGUFWriter(path, arch="wan")
    change(writer)
    writer.add_tensor("blocks.0.self_attn.q.weight", np.zeros((4, 8), np.float32))
    finish(writer)
    return path


SHAPE = "comfy.gguf.orig_shape.blocks.0.self_attn.q.weight"


@pytest.mark.parametrize("shape", [[4, 9], [4.0, 8.0], ["4", "8"], [True, True]])
def test_a_noted_shape_that_a_gguf_tensor_cannot_have_is_refused(tmp_path: Path, shape: list[Any]) -> None:
    path = wan_gguf(tmp_path / "a.gguf", lambda writer: writer.add_array(SHAPE, shape))
    with pytest.raises(CheckpointRefused, match=rf"a\.gguf: `{SHAPE}` is .*a list of whole numbers whose product is 32"):
        open_gguf(path)


@pytest.mark.parametrize("value", ["4x8", 32, 1.5])
def test_a_noted_shape_that_is_no_list_is_refused(tmp_path: Path, value: object) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(SHAPE, value)

    with pytest.raises(CheckpointRefused, match="a list of whole numbers whose product is 32"):
        open_gguf(wan_gguf(tmp_path / "a.gguf", change))


def test_a_noted_shape_is_the_shape(tmp_path: Path) -> None:
    path = wan_gguf(tmp_path / "a.gguf", lambda writer: writer.add_array(SHAPE, [4, 2, 4]))
    assert list(stored_shapes(open_gguf(path)).values()) == [(4, 2, 4)]


def test_gguf_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = wan_gguf(tmp_path / "a.gguf", lambda writer: writer.add_name("Wan of somebody"))
    data = path.read_bytes()
    text = struct.pack("<Q", 15) + b"Wan of somebody"
    assert data.count(text) == 1
    path.write_bytes(data.replace(text, struct.pack("<Q", 15) + b"\xff\xfe" + bytes(13)))
    with pytest.raises(CheckpointRefused, match=r"a\.gguf: `general\.name` is not UTF-8 text"):
        stored_name(path)


def test_one_broken_file_hides_no_other_from_the_check(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": "2"}))
    write(tmp_path / "ink.safetensors", make_lora(make("text", tmp_path / "config")))
    (tmp_path / "page.safetensors").write_bytes(b"<html>")
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    found = {finding.path.name: finding for finding in check_video_models(tmp_path)}
    assert found["ink.safetensors"].faults == ()
    assert "`num_layers` is" in found[folder.name].faults[0]
    assert "a web page" in found["page.safetensors"].faults[0]
    assert "a web page" in found["page.gguf"].faults[0]
