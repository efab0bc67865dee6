"""Finds the video models below a folder, and says what each file is for and what is wrong with it.

Headers are read and compared with the models that they are for. Weights are read of LoRAs alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deployments.errors import CheckpointRefused
from deployments.expert_names import EXPERTS
from deployments.lora_names import is_of_block
from deployments.video.checkpoints.config_values import UNBUILT
from deployments.video.checkpoints.experts import expert_of
from deployments.video.checkpoints.folder import (
    IMAGE_ENCODER,
    TEXT_ENCODER,
    empty_image_encoder,
    empty_text_encoder,
    empty_transformer,
    empty_vae,
    load_image_processor,
    load_scheduler,
    load_tokenizer,
    read_index,
    transformer_layout,
    vae_layout,
)
from deployments.video.checkpoints.folder_tree import read_tree
from deployments.video.checkpoints.gguf import OtherModel, match_gguf, open_gguf
from deployments.video.checkpoints.gguf import stored_shapes as gguf_shapes
from deployments.video.checkpoints.joins import Parts, joins
from deployments.video.checkpoints.lora import is_lora, read_lora
from deployments.video.checkpoints.lora_file import Change
from deployments.video.checkpoints.names import (
    IMAGE_ENCODER_PREFIXES,
    TEXT_ENCODER_PREFIXES,
    TRANSFORMER_PREFIXES,
    VAE_PREFIXES,
    Shapes,
    image_encoder_name,
    renamed_shapes,
    text_encoder_name,
)
from deployments.video.checkpoints.relatives import (
    PART,
    relative_of_image_encoder,
    relative_of_text_encoder,
    relative_of_transformer,
    relative_of_vae,
)
from deployments.video.checkpoints.shape import (
    empty_image_encoder_of,
    empty_text_encoder_of,
    empty_transformer_of,
    empty_vae_of,
    foreign_layers,
    res_blocks_of,
)
from deployments.video.checkpoints.source import HIGH, LOW, open_source
from deployments.video.checkpoints.tensor_files import PICKLED, find_files, read_shapes
from deployments.video.checkpoints.weights import match_weights

WIDE = 5120
"""The width of Wan 14B; that of 1.3B is 1536."""
_OF_5B = 3072
"""The width of Wan 2.2 5B."""
_OF_DISTILLED = (
    r"(?<![a-z0-9])[1-8][-_ ]?steps?(?![a-z])|lightx2v|cfg[-_ ]?step[-_ ]?distill|causvid|self[-_ ]?forcing|fastwan|accvid"
    r"|fusioni?x|(?<![a-z])(dmd|rcm|lcm)(?![a-z])"
)
_DISTILLED = re.compile(_OF_DISTILLED, re.IGNORECASE)
"""What the names of models and LoRAs have that need few steps, and those of no style."""
_FEW_STEPS = re.compile(
    rf"{_OF_DISTILLED}|(?<![a-z0-9])[1-9]\d?[-_ ]?steps?(?![a-z])|lightning|distill|(?<![a-z])(turbo|rapid)(?![a-z])",
    re.IGNORECASE,
)
"""What they may have. Trainers, too, write steps into the names of their LoRAs, but hundreds."""
_PICKLED_NAMES = ("wan", "umt5", "t5", "vae", "clip", "lora")
"""Parts of names by which pickled files are known, since they are not opened."""


@dataclass(frozen=True)
class Finding:
    """A file or a folder that was found."""

    path: Path
    model: str
    """What it is."""
    setting: str
    """The setting that it is for; empty if there is none."""
    faults: tuple[str, ...] = ()
    """What is wrong; empty if it can be used."""


def check_video_models(root: Path) -> Iterator[Finding]:
    """Yield what each checkpoint, file and LoRA of a video model below ``root`` is.

    Files of other models are passed over. Raises CheckpointRefused if there is no such folder.
    """
    if not root.is_dir():
        raise CheckpointRefused(f"{root}: no such folder")
    tree = read_tree(root)
    for place, reason in tree.unreadable.items():
        yield Finding(place, "a folder", setting="", faults=(f"cannot be looked into: {reason}",))
    folders = [path.parent for path in tree.files if path.name == "model_index.json"]
    for folder in folders:
        yield from _check_folder(folder)
    seen: set[Path] = set()
    said: set[tuple[Path, tuple[str, ...]]] = set()
    for path in tree.files:
        if path in seen or any(folder in path.parents for folder in folders):
            continue
        finding = _check_one(path, seen)
        if finding is not None and (path.parent, finding.faults) not in said:
            yield finding
            if _is_of_all(finding):
                said.add((path.parent, finding.faults))


def _is_of_all(finding: Finding) -> bool:
    """Return whether a fault is that of all files of a model, so that one of them can say it."""
    folder = str(finding.path.parent)
    return finding.model == PART.model or any(fault.startswith(folder) for fault in finding.faults)


def _check_one(path: Path, seen: set[Path]) -> Finding | None:
    """Return what a file is for, or None; add the files of its model to ``seen``."""
    known = any(part in path.name.lower() for part in _PICKLED_NAMES)
    if path.name.startswith("._"):
        return None  # a Mac leaves these beside files that it copies to a foreign disk
    if path.suffix != path.suffix.lower() in (".gguf", ".safetensors"):
        fault = f"its name must end in {path.suffix.lower()}, in small letters: rename it"
        return Finding(path, "a file of weights", setting="", faults=(fault,))
    if path.suffix in (".gguf", ".safetensors") and not path.exists():
        return Finding(path, "a link", setting="", faults=(f"leads to {path.readlink()}, which does not exist",))
    if path.suffix in PICKLED and known:
        return Finding(path, "a pickled file", setting="", faults=_faults(partial(find_files, path)))
    if path.suffix == ".sft" and known:
        return Finding(path, "a safetensors file", setting="", faults=_short(path, _faults(partial(find_files, path))))
    if path.suffix == ".gguf":
        return _check_gguf(path)
    if path.suffix != ".safetensors":
        return None
    try:
        seen.update(find_files(path))
        return _check_file(path)
    except (CheckpointRefused, *UNBUILT) as e:
        return Finding(path, "a safetensors file", setting="", faults=(_reason(path, e),))


def _faults(*checks: Callable[[], object]) -> tuple[str, ...]:
    found = []
    for check in checks:
        try:
            check()
        except CheckpointRefused as e:
            found.append(str(e))
        except UNBUILT as e:  # a configuration that no library can use
            found.append(_of_library(e))
    return tuple(found)


def _reason(path: Path, error: Exception) -> str:
    said = str(error) if isinstance(error, CheckpointRefused) else _of_library(error)
    return said.removeprefix(f"{path}: ")


def _of_library(error: Exception) -> str:
    """Return what an error says that is not ours; a key is that of a tensor or of a setting."""
    return f"is incomplete: it has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def _check_folder(folder: Path) -> Iterator[Finding]:
    """Yield what a folder in diffusers' layout is for."""
    try:
        index = read_index(folder)
        if not index.get("_class_name", "Wan").startswith("Wan"):
            return
        source = open_source(folder, high=None, low=None, setting="")
        transformers: dict[str, Any] = {part: empty_transformer(folder / part) for part in source.weights}
    except (CheckpointRefused, *UNBUILT) as e:
        yield Finding(folder, "a folder in diffusers' layout", setting="", faults=(_reason(folder, e),))
        return
    first = transformers[HIGH]
    model, setting = _kind_of(first, LOW in source.weights)
    checks: list[Callable[[], object]] = []
    if "wan22_gguf" in setting and not any((folder / HIGH).glob("*.safetensors")):
        # Wan22GGUF reads all but the experts from its folder.
        setting = "models.wan22_gguf.folder; for models.wan26.image it lacks the experts' weights"
    else:
        checks += [partial(_match_transformer, folder / part) for part in source.weights]
    checks += [
        lambda: match_weights(empty_text_encoder(folder / "text_encoder"), folder / "text_encoder", TEXT_ENCODER),
        lambda: load_tokenizer(folder),
        lambda: _match_vae(folder / "vae"),
        lambda: load_scheduler(folder, None),
    ]
    config: Any = first.config
    if getattr(config, "image_dim", None) is not None:
        encoder = folder / "image_encoder"
        checks += [
            lambda: match_weights(empty_image_encoder(encoder), encoder, IMAGE_ENCODER),
            lambda: load_image_processor(folder),
        ]
    parts = Parts(folder=folder, transformers=transformers, shared=folder, remedy="the parts are of different checkpoints")
    checks += joins(parts)
    channels: int = config.in_channels
    if channels not in (16, 36):
        checks = [lambda: _refuse_channels(folder, channels)]
    faults = dict.fromkeys(_faults(*checks))  # two checks may stumble over the same file
    yield Finding(folder, model, setting=setting, faults=tuple(fault.removeprefix(f"{folder}/") for fault in faults))


def _match_transformer(folder: Path) -> None:
    match_weights(empty_transformer(folder), folder, transformer_layout(read_shapes(find_files(folder))))


def _match_vae(folder: Path) -> None:
    vae = empty_vae(folder)
    match_weights(vae, folder, vae_layout(vae.config.num_res_blocks))


def _refuse_channels(where: Path, channels: int) -> None:
    raise CheckpointRefused(
        f"{where}: a transformer with {channels} input channels is not supported; those with 16 and 36 are (Wan 2.2 5B has 48)"
    )


def _kind_of(transformer: Any, has_two: bool) -> tuple[str, str]:
    """Return what a transformer is, and the setting that takes a folder with it."""
    size = "14B" if transformer.config.num_attention_heads * transformer.config.attention_head_dim >= WIDE else "1.3B"
    experts = ", two experts" if has_two else ""
    if getattr(transformer.config, "vace_layers", None) is not None:
        return f"Wan VACE {size}{experts}, text and image to video", "models.wan26.image, or models.wan26.text for both"
    if transformer.config.in_channels == 36:
        for_experts = has_two and transformer.config.image_dim is None
        setting = "models.wan22_gguf.folder, or models.wan26.image" if for_experts else "models.wan26.image"
        return f"Wan {size}{experts}, image to video", setting
    return f"Wan {size}{experts}, text to video", "models.wan26.text"


def _check_gguf(path: Path) -> Finding | None:
    """Return what a GGUF file is for; None if it is of another model."""
    try:
        shapes = gguf_shapes(open_gguf(path))
    except OtherModel:
        return None
    except (CheckpointRefused, OSError) as e:
        return Finding(path, "a GGUF file", setting="", faults=(_reason(path, e),))
    return _transformer_finding(path, shapes, match=lambda model: match_gguf(model, path, shapes), form="GGUF")


def _check_file(path: Path) -> Finding | None:
    """Return what a safetensors file, or the shards that it is one of, is for; None if unknown."""
    if is_lora(path):
        return _check_lora(path)
    names = read_shapes(find_files(path))
    layout = transformer_layout(names)
    transformer = renamed_shapes(names, TRANSFORMER_PREFIXES, layout.rename)
    if "patch_embedding.weight" in transformer and any(name.startswith("blocks.0.attn1.") for name in transformer):
        return _transformer_finding(
            path, transformer, match=lambda model: match_weights(model, path, layout), form="safetensors"
        )
    if (relative := relative_of_transformer(transformer)) is not None:
        return Finding(path, relative.model, setting="", faults=(relative.fault,))
    encoder = renamed_shapes(names, TEXT_ENCODER_PREFIXES, text_encoder_name)
    if (relative := relative_of_text_encoder(encoder)) is not None:
        return Finding(path, relative.model, setting="", faults=(relative.fault,))
    if any(name.startswith("encoder.block.0.layer.0.SelfAttention.") for name in encoder):
        faults = _faults(lambda: match_weights(empty_text_encoder_of(encoder), path, TEXT_ENCODER))
        return Finding(
            path,
            "UMT5, text encoder",
            setting="models.wan26.text_encoder_weights or models.wan22_gguf.text_encoder_weights",
            faults=_short(path, faults),
        )
    blocks = res_blocks_of(renamed_shapes(names, VAE_PREFIXES, str))
    vae = renamed_shapes(names, VAE_PREFIXES, vae_layout(blocks).rename)
    if "encoder.conv_in.weight" in vae and len(vae["encoder.conv_in.weight"]) == 5:
        if "qwen" in path.name.lower():
            return Finding(path, "VAE of Qwen-Image", setting="", faults=("is not supported; use the VAE of Wan 2.1",))
        if vae["encoder.conv_in.weight"][1] != 3:
            return Finding(path, "VAE of Wan 2.2 5B", setting="", faults=("is not supported; use the VAE of Wan 2.1",))
        faults = _faults(lambda: match_weights(empty_vae_of(vae, blocks), path, vae_layout(blocks)))
        return Finding(
            path,
            "VAE of Wan 2.1",
            setting="models.wan26.vae_weights or models.wan22_gguf.vae_weights",
            faults=_short(path, faults),
        )
    clip = renamed_shapes(names, IMAGE_ENCODER_PREFIXES, image_encoder_name)
    if "embeddings.class_embedding" in clip:
        faults = _faults(lambda: match_weights(empty_image_encoder_of(clip), path, IMAGE_ENCODER))
        where = "the folder `image_encoder` of models.wan26.image"
        return Finding(path, "CLIP, image encoder of Wan 2.1", setting=where, faults=_short(path, faults))
    if (relative := relative_of_image_encoder(names) or relative_of_vae(names)) is not None:
        return Finding(path, relative.model, setting="", faults=(relative.fault,))
    return None


def _short(path: Path, faults: Iterable[str]) -> tuple[str, ...]:
    return tuple(fault.removeprefix(f"{path}: ") for fault in faults)


def _transformer_finding(path: Path, shapes: Shapes, match: Callable[[Any], object], form: str) -> Finding:
    try:
        model = empty_transformer_of(shapes)
    except UNBUILT as e:  # tensors of shapes that no Wan transformer has
        return Finding(path, f"a Wan transformer, {form}", setting="", faults=(_reason(path, e),))
    what, _ = _kind_of(model, has_two=False)
    channels = model.config.in_channels
    if channels not in (16, 36):
        return Finding(
            path, f"{what}, {form}", setting="", faults=_short(path, _faults(lambda: _refuse_channels(path, channels)))
        )
    is_half = channels == 36 and model.config.image_dim is None and not hasattr(model, "vace_blocks")
    expert = expert_of(path, is_half=is_half, is_model=True)
    is_distilled = _FEW_STEPS.search(_said_of(path)) is not None
    if is_half:
        high, low = (f"{name}_noise{'_distilled' if is_distilled else ''}" for name in EXPERTS)
        setting = "models.wan22_gguf." + (
            {"high": high, "low": low}[expert] if expert else f"{high} or {low}; its name does not say"
        )
    else:
        end = ("distilled" if is_distilled else "weights") + ("_low_noise" if expert == "low" else "")
        kind = "text" if channels == 16 and not hasattr(model, "vace_blocks") else "image"
        setting = f"models.wan26.{kind}_{end}"
        if is_distilled and hasattr(model, "vace_blocks"):
            setting = f"models.wan26.text_{end} or image_{end}"
    if is_distilled:
        what = f"{what}, few steps"
    if expert:
        what = f"{what}, {expert}-noise expert"
    return Finding(path, f"{what}, {form}", setting=setting, faults=_short(path, _faults(lambda: match(model))))


def _check_lora(path: Path) -> Finding | None:
    """Return what a LoRA is for; None if it changes no layer that Wan has."""
    try:
        changes = read_lora(path).changes
    except (CheckpointRefused, *UNBUILT) as e:
        return Finding(path, "LoRA", setting="", faults=(_reason(path, e),))
    foreign = foreign_layers(changes)
    if len(foreign) == len(changes) and not any(is_of_block(name) for name in foreign):
        return None
    if foreign:
        return Finding(path, "LoRA", setting="", faults=(f"changes `{foreign[0]}`, which none of the supported models has",))
    ranks = {len(change["down"]) for change in changes.values() if "down" in change}
    width = _width_of(changes)
    if width == _OF_5B:
        return Finding(path, "LoRA for Wan 2.2 5B", setting="", faults=("is not supported, because the 5B model is not",))
    is_wide = width is not None and width >= WIDE
    size = "" if width is None else " for Wan 14B" if is_wide else " for Wan 1.3B"
    rank = f" of rank {max(ranks)}" if ranks else ""
    folders = "models.wan22_gguf.loras, or of models.wan26.loras if that is 14B" if is_wide else "models.wan26.loras"
    folder = f"the folder of {folders}"
    if not _FEW_STEPS.search(_said_of(path)):
        return Finding(path, f"LoRA{rank}{size}", folder)
    setting = _distilled_setting(path, is_wide=is_wide)
    if _DISTILLED.search(_said_of(path)):
        return Finding(path, f"LoRA{rank}{size}, few steps", setting)
    return Finding(path, f"LoRA{rank}{size}", f"{folder}; or, if it is for few steps, {setting}")


def _width_of(changes: Mapping[str, Change]) -> int | None:
    """Return the width of the transformer that ``changes`` fit, or None if no layer shows it."""
    for name, change in changes.items():
        if "down" in change and (".attn" in name or name.endswith("ffn.net.0.proj")):
            return change["down"].shape[1]
        if "up" in change and name.endswith("ffn.net.2"):
            return change["up"].shape[0]
    return None


def _said_of(path: Path) -> str:
    """Return what the names of a file and of its folder say: publishers use either."""
    return f"{path.absolute().parent.name} {path.name}"


def _distilled_setting(path: Path, *, is_wide: bool) -> str:
    """Return the setting that takes the LoRA in ``path``, which makes a model need few steps."""
    expert = expert_of(path)
    said = _said_of(path).lower()
    if "t2v" in said:
        return "models.wan26.text_distilled" + ("_low_noise" if expert == "low" else "")
    if expert is not None:
        return f"models.wan22_gguf.{expert}_noise_distilled"
    both = ", or both models.wan22_gguf.high_noise_distilled and low_noise_distilled" if is_wide else ""
    if "i2v" in said:
        return f"models.wan26.image_distilled{both}"
    return f"models.wan26.text_distilled or image_distilled{both}"
