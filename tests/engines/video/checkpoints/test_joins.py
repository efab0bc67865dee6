"""Parts of other sizes are refused before any weight is read, by the loader and by the check.

None of these folders has a transformer's weights, so a message about them would come too late.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.folder import empty_transformer
from deployments.video.checkpoints.joins import Parts, require_fit
from tests.engines.random_models import RandomCheckpoints, wan22_models
from tests.engines.video.checkpoints.published import write

Edits = dict[str, dict[str, Any]]
CLIP: Edits = {
    "transformer": {"in_channels": 36, "image_dim": 64, "added_kv_proj_dim": 256},
    "image_encoder": {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "image_size": 224, "patch_size": 14},
    "image_processor": {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 224},
    },
}
BOTH_FRAMES: Edits = {**CLIP, "transformer": {**CLIP["transformer"], "pos_embed_seq_len": 514}}
SIXTEEN, TWELVE, THIRTY_TWO = ({"z_dim": n, "latents_mean": [0.0] * n, "latents_std": [1.0] * n} for n in (16, 12, 32))


def edit(folder: Path, edits: Edits) -> None:
    for part, changes in edits.items():
        path = folder / part / ("preprocessor_config.json" if part == "image_processor" else "config.json")
        path.parent.mkdir(exist_ok=True)
        config = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(config | changes))


def configured(folder: Path, to: Path, *edits: Edits) -> Path:
    """Return a copy of ``folder`` without the weights of its models, after ``edits``."""
    copied = shutil.copytree(folder, to / folder.name, ignore=shutil.ignore_patterns("*.safetensors"))
    for changes in edits:
        edit(copied, changes)
    return copied


def configs(folder: Path) -> Parts:
    names = [name for name in ("transformer", "transformer_2") if (folder / name).is_dir()]
    transformers: dict[str, Any] = {name: empty_transformer(folder / name) for name in names}
    return Parts(folder=folder, transformers=transformers, shared=folder, remedy="")


AS_MANY: Edits = {"transformer": {"out_channels": None}}
"""A text model has as many channels for its result as for its input."""
FITTING: dict[str, Edits] = {
    "text": {},
    "CLIP": CLIP,
    "both frames": BOTH_FRAMES,
    "VAE": {"vae": SIXTEEN},
    "no output": AS_MANY,
}


@pytest.mark.parametrize("edits", FITTING.values(), ids=FITTING)
def test_parts_that_fit_are_taken(random_models: RandomCheckpoints, tmp_path: Path, edits: Edits) -> None:
    require_fit(configs(configured(random_models.text, tmp_path, edits)))
    for other in (random_models.vace, random_models.a14b):
        require_fit(configs(other))


def build(folder: Path, of: str, random_models: RandomCheckpoints) -> None:
    if of == "a14b":
        build_wan22(Wan22Settings(), wan22_models(random_models).model_copy(update={"folder": str(folder)}))
    else:
        build_wan26(Wan26Settings(), Wan26Models(text=str(folder)))


MISFITS: dict[str, tuple[str, tuple[Edits, ...], str]] = {
    "text encoder": (
        "text",
        ({"text_encoder": {"d_model": 128}},),
        r"transformer: `text_dim` is 256, but `d_model` in .*text_encoder is 128",
    ),
    "latents": ("text", ({"vae": TWELVE},), r"transformer: `out_channels` is 16, but `z_dim` in .*vae is 12"),
    "input": (
        "text",
        ({"vae": THIRTY_TWO, "transformer": {"out_channels": 32, "in_channels": 36}},),
        r"transformer: `in_channels` is 36, but `z_dim` in .*vae is 32, .* 32 and one of images 68",
    ),
    "means": ("text", ({"vae": {"latents_mean": [0.0]}},), r"vae: `latents_mean` has 1 numbers, but `z_dim` is 16"),
    "pixels of a latent": (
        "text",
        ({"vae": {"dim_mult": [1, 2, 4], "temperal_downsample": [True, True]}},),
        r"vae: a latent is 4 pixels wide and 4 frames long",
    ),
    "what the VAE says": ("text", ({"vae": {"scale_factor_temporal": 8}},), r"the configuration says 8 and 8"),
    "patches": ("text", ({"transformer": {"patch_size": [1, 1, 1]}},), r"`patch_size` is \[1, 1, 1\]; only \[1, 2, 2\]"),
    "control video": (
        "vace",
        ({"transformer": {"vace_in_channels": 64}},),
        r"`vace_in_channels` is 64, but `z_dim` in .*vae is 16, for which 96 is needed",
    ),
    "image encoder": (
        "text",
        (CLIP, {"image_encoder": {"hidden_size": 32}}),
        r"transformer: `image_dim` is 64, but `hidden_size` in .*image_encoder is 32",
    ),
    "half of an image model": (
        "text",
        (CLIP, {"transformer": {"added_kv_proj_dim": None}}),
        r"`added_kv_proj_dim` is None, but `image_dim` and the width need 256",
    ),
    "the other half": (
        "text",
        (CLIP, {"transformer": {"image_dim": None}}),
        r"`added_kv_proj_dim` is 256, but it must be absent without `image_dim`",
    ),
    "positions": (
        "text",
        (BOTH_FRAMES, {"image_encoder": {"patch_size": 28}}),
        r"`pos_embed_seq_len` is 514, but `image_size` in .*image_encoder is 224, for which 130 is needed",
    ),
    "preprocessor": (
        "text",
        (CLIP, {"image_processor": {"crop_size": {"height": 112, "width": 112}}}),
        r"image_processor: makes images of .*112.*, but `image_size` in .*image_encoder is 224",
    ),
    "experts": ("a14b", ({"transformer_2": {"num_layers": 3}},), r"transformer_2: `num_layers` is 3, but .*transformer is 4"),
    "input of the experts": (
        "a14b",
        ({"transformer_2": {"in_channels": 16}},),
        r"transformer_2: `in_channels` is 16, but .*transformer is 36",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_are_refused(random_models: RandomCheckpoints, tmp_path: Path, name: str) -> None:
    of, edits, message = MISFITS[name]
    folder = configured(getattr(random_models, of), tmp_path, *edits)
    with pytest.raises(CheckpointRefused, match=message) as refused:
        build(folder, of, random_models)
    assert f"`models.{'wan22_gguf.folder' if of == 'a14b' else 'wan26.text'}`" in str(refused.value)
    (finding,) = check_video_models(folder)
    assert re.search(message, "; ".join(finding.faults)), finding.faults


def test_an_image_checkpoint_has_to_fit_the_text_encoder_of_the_other(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    image = configured(random_models.vace, tmp_path, {"transformer": {"text_dim": 128}, "text_encoder": {"d_model": 128}})
    message = rf"{image}.transformer: `text_dim` is 128, but `d_model` in {random_models.text}.text_encoder is 256"
    with pytest.raises(CheckpointRefused, match=rf"{message}.*name two checkpoints.*`models\.wan26\.image`"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(image)))


def test_experts_for_an_image_encoder_are_named_elsewhere(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    both = dict.fromkeys(("transformer", "transformer_2"), CLIP["transformer"])
    folder = configured(random_models.a14b, tmp_path, {**CLIP, **both})
    models = wan22_models(random_models).model_copy(update={"folder": str(folder)})
    with pytest.raises(CheckpointRefused, match=r"has `image_dim`.*name such a folder as `models\.wan26\.image`"):
        build_wan22(Wan22Settings(), models)
    (finding,) = check_video_models(folder)
    assert finding.setting == "models.wan26.image"


WIDE_LORA = {
    f"diffusion_model.blocks.0.self_attn.q.lora_{part}.weight": torch.zeros(shape)
    for part, shape in (("down", (2, 512)), ("up", (512, 2)))
}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("text_distilled", r"changes `blocks\.0\.attn1\.to_q` by \[512, 512\], which is \[256, 256\] in this model"),
        ("text_weights", r"missing tensor"),
        ("text_encoder_weights", r"missing tensor"),
        ("vae_weights", r"missing tensor"),
    ],
)
def test_a_file_of_another_size_is_refused_with_its_setting_and_its_checkpoint(
    random_models: RandomCheckpoints, tmp_path: Path, setting: str, message: str
) -> None:
    tensors = WIDE_LORA if setting == "text_distilled" else {"blocks.0.self_attn.q.weight": torch.zeros(512, 512)}
    path = write(tmp_path / "wide.safetensors", tensors)
    with pytest.raises(CheckpointRefused, match=message) as refused:
        build_wan26(Wan26Settings(), Wan26Models.model_validate({"text": str(random_models.text), setting: path}))
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).endswith(f"(configured as `models.wan26.{setting}`, for the model in {random_models.text})")
