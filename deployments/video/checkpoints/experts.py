"""The two experts of Wan 2.2 A14B: one file each, GGUF or safetensors."""

import filecmp
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.expert_names import experts_named, experts_named_surely, half_named, splits
from deployments.settings import Wan22Models
from deployments.video.checkpoints.gguf import load_gguf, stored_name
from deployments.video.checkpoints.lora import is_lora
from deployments.video.checkpoints.single_file import load_single_file
from deployments.video.checkpoints.tensor_files import PICKLED, find_files, found_instead


def load_expert(path: Path, *, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the expert in ``path`` with the configuration in ``folder/part``.

    ``part`` is the expert's name in a pipeline. Raises ``CheckpointRefused`` for a file that does
    not fit.
    """
    if path.suffix == ".gguf":
        expert = load_gguf(path, folder=folder, part=part, dtype=dtype, device=device)
    elif path.is_dir() or path.suffix in (".safetensors", *PICKLED):  # the latter are refused with what to use instead
        expert = load_single_file(path, folder / part, dtype=dtype, device=device)
    else:
        raise CheckpointRefused(f"{path}: {found_instead(path) or 'an expert must be a .gguf or a .safetensors file'}")
    return expert


def require_image_input(expert: Any, where: Path) -> None:
    """Raise ``CheckpointRefused`` if ``expert``, configured in ``where``, takes no image."""
    if expert.config.in_channels != 36:
        raise CheckpointRefused(f"{where}: the model has {expert.config.in_channels} input channels; image-to-video needs 36")


def require_pair(high: Path, low: Path, names: tuple[str, str] = ("high_noise", "low_noise")) -> None:
    """Raise ``CheckpointRefused`` if the two files cannot be the two experts.

    Both experts have the same keys and shapes, so only names and contents distinguish them. One
    LoRA may change both, as those of Wan 2.1 do, if both settings name the same file and its name
    does not say that it is for one expert. ``names`` are those of both settings, for the error.
    """
    both = " and ".join(f"`{name}`" for name in names)
    for path in (high, low):
        if not path.exists():
            raise CheckpointRefused(f"{path}: no such file")
    is_shared = high.resolve() == low.resolve()
    if is_shared and not is_lora(high):
        raise CheckpointRefused(f"{high}: configured as both experts; {both} must name two different files")
    for path, setting, other in ((high, names[0], "low"), (low, names[1], "high")):
        for name in _names_of(path):
            if experts_named(name) == {other}:
                raise CheckpointRefused(
                    f"{path}: configured as `{setting}`, but its name `{name}` says that it is the other expert"
                )
    if _are_swapped(high, low):
        raise CheckpointRefused(
            f"{high}: configured as `{names[0]}`, but its name beside that of {low} says that it is the other expert"
        )
    if not is_shared and _are_equal(high, low):
        raise CheckpointRefused(
            f"{high} and {low} have the same content; {both} must name two different experts, or the same LoRA"
        )


def require_two(folder: Path, parts: tuple[str, str]) -> None:
    """Raise ``CheckpointRefused`` if two experts in one folder have the same weights."""
    high, low = (folder / part for part in parts)
    if _are_equal(high, low):
        raise CheckpointRefused(f"{high} and {low} have the same content; a checkpoint with two experts has two different ones")


def _are_equal(one: Path, other: Path) -> bool:
    """Return whether two files, or the models in two folders, have the same content."""
    if one.is_dir() != other.is_dir():
        return False
    files = ([one], [other])
    if one.is_dir():
        if not all(any(folder.glob("*.safetensors")) for folder in (one, other)):
            return False  # what is missing is said where it is read
        files = (find_files(one), find_files(other))
    if len(files[0]) != len(files[1]):
        return False
    return all(filecmp.cmp(first, second, shallow=False) for first, second in zip(*files, strict=True))


def require_whole(path: Path, setting: str, folder: Path) -> None:
    """Raise ``CheckpointRefused`` if the name of ``path`` says that it is one of two experts.

    ``folder`` has one transformer, so that the expert would run for all steps. ``setting`` is the
    one that names the file. A folder that is called just `high` may be anything, so that folders
    count only if they name the noise.
    """
    own = _own_names(path)
    for name in _names_of(path):
        counts = name in own or "noise" in name.lower()
        if counts and (expert := half_named(name, letters=True)) is not None:
            raise CheckpointRefused(
                f"{path}: configured as `{setting}`, but its name `{name}` says that it is the {expert}-noise one of two "
                f"experts, and {folder} has one transformer; name a folder with two experts, such as Wan 2.2 A14B's, and set "
                f"`{setting}` to the high-noise file and `{setting}_low_noise` to the low-noise file"
            )


def expert_of(path: Path, *, is_half: bool = False, is_model: bool = False) -> str | None:
    """Return the expert that the names of a file say it is, `high` or `low`, or None.

    If ``is_half``, it is known to be one of two experts, so that a plain `high` or `low` counts. If
    ``is_model``, it is a whole model and no LoRA, so that abbreviations count.
    """
    names = _names_of(path)
    halves = {half_named(name, letters=is_model) for name in names} - {None}
    named = (set().union(*map(experts_named, names)) if is_half else set()) or halves
    return next(iter(named)) if len(named) == 1 else None


def _names_of(path: Path) -> tuple[str, ...]:
    """Return the names that may say which expert ``path`` is: the file's, and the one inside it.

    Wan-AI's own shards are called alike for both experts, and so are lightx2v's, a folder deeper,
    so that the nearest of these folders that names an expert counts.
    """
    names = _own_names(path)
    if any(experts_named(name) for name in names):
        return names
    folders = [folder.name for folder in path.absolute().parents][:2]
    return (*names, *[name for name in folders if experts_named_surely(name)][:1])


def _own_names(path: Path) -> tuple[str, ...]:
    return (path.name, stored_name(path) if path.suffix == ".gguf" else "")


def _are_swapped(high: Path, low: Path) -> bool:
    """Return whether two names that differ in the expert alone say that ``high`` is the other one.

    Only beside each other do `HN` and `LN`, or the folders of a pipeline, say so.
    """
    names = (high.name, low.name) if high.name != low.name else (high.parent.name, low.parent.name)
    if names == ("transformer_2", "transformer"):
        return True
    of_high = {split.around: split.expert for split in splits(names[0])}
    return any(of_high.get(split.around) == "low" for split in splits(names[1]) if split.expert == "high")


def is_quantised(models: Wan22Models) -> bool:
    """Return whether an expert's file may hold quantised weights."""
    return any(path.suffix == ".gguf" for path in (models.high_noise, models.low_noise))


def dequantise(expert: Any) -> None:
    """Replace the quantised linear layers of ``expert`` by plain ones, in place."""
    if getattr(expert, "is_quantized", False):  # a file may also hold plain weights
        expert.dequantize()
