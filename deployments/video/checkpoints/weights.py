"""Puts the tensors of published files into a model that was built without weights."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.finite import require_finite
from deployments.video.checkpoints.names import Rename, Shapes, select_part
from deployments.video.checkpoints.quantisation import Quantisation, take_quantisation
from deployments.video.checkpoints.read_ahead import read_ahead
from deployments.video.checkpoints.tensor_files import StoredTensors, find_files, read_tensors


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the names in a file become those of a model.

    ``rename`` maps the names in the file, and ``canonical`` those of the model, to names that are
    the same for both. All names in the file may have one of ``prefixes``. Of two ``tied`` names one
    is enough, and tensors whose name begins with one of ``ignored`` are left out.
    """

    rename: Rename
    canonical: Rename = str
    prefixes: tuple[str, ...] = ()
    tied: tuple[str, str] | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matched:
    """The tensors of a file that fits a model, still as they are stored."""

    stored: StoredTensors
    quantisation: Quantisation
    names: Mapping[str, str]
    """The names in the file, by those of the model."""


def match_weights(model: Any, path: Path, layout: Layout) -> Matched:
    """Return the tensors in ``path``, a file or a folder, for ``model``; no weight is read.

    Raises ``CheckpointRefused`` for a file that does not fit.
    """
    stored = read_tensors(path)
    selected = select_part(stored.tensors, layout.prefixes)
    renamed_all = {name: layout.rename(name) for name in selected if not name.startswith(layout.ignored)}
    skipped = skipped_names(model, renamed_all.values())
    kept = {selected[name] for name, renamed in renamed_all.items() if renamed not in skipped}
    others = stored.tensors.keys() - kept
    for in_file in others:
        del stored.tensors[in_file]
    quantisation = take_quantisation(stored, others)
    names: dict[str, str] = {}
    for name, renamed in renamed_all.items():
        in_file = selected[name]
        if in_file in stored.tensors:
            if renamed in names:
                raise CheckpointRefused(
                    f"{path}: `{names[renamed]}` and `{in_file}` both map to the weight `{renamed}`; remove one"
                )
            names[renamed] = in_file
    for absent, present in () if layout.tied is None else (layout.tied, layout.tied[::-1]):
        if absent not in names and present in names:
            names[absent] = names[present]
    shapes = {layout.canonical(name): shape for name, shape in expected_shapes(model).items()}
    compare_shapes(path, shapes, {name: tuple(stored.tensors[in_file].shape) for name, in_file in names.items()})
    ours = {layout.canonical(name): name for name in model.state_dict()}
    return Matched(stored, quantisation, {ours[name]: in_file for name, in_file in names.items()})


def load_weights(
    model: Any,
    path: Path,
    layout: Layout,
    *,
    kept_in_float32: Iterable[str] = (),
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Return ``model``, built on the meta device, with the weights in ``path``, a file or a folder.

    Each tensor is converted to ``dtype`` on ``device``, apart from those of layers in
    ``kept_in_float32``. Raises ``CheckpointRefused`` for a file that does not fit, or that holds
    numbers that are not finite.
    """
    read_ahead(find_files(path))
    matched = match_weights(model, path, layout)
    exact = set(kept_in_float32) if dtype != torch.float32 else set()
    state: dict[str, torch.Tensor] = {}
    by_file: dict[str, torch.Tensor] = {}
    for name, in_file in matched.names.items():
        if in_file not in by_file:
            tensor = matched.quantisation.restore(in_file, matched.stored.tensors.pop(in_file).to(device))
            by_file[in_file] = tensor.to(torch.float32 if exact.intersection(name.split(".")) else dtype)
        state[name] = by_file[in_file]
    require_finite(path, state)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False).to(device)


def compare_shapes(where: Path, expected: Shapes, found: Shapes, *, tied: Iterable[str] = ()) -> None:
    """Raise ``CheckpointRefused`` unless ``found`` holds exactly the tensors of ``expected``.

    Tensors in ``tied`` may be absent or extra. ``where`` is the file or folder to name in the
    error.
    """
    optional = set(tied)
    wrong = [f"missing tensor `{name}`" for name in expected if name not in found and name not in optional]
    wrong += [f"unknown tensor `{name}`" for name in found if name not in expected and name not in optional]
    wrong += [
        f"tensor `{name}` has shape {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointRefused(f"{where}: {'; '.join(wrong[:3])}{more}")


def skipped_names(model: Any, names: Iterable[str]) -> set[str]:
    """Return those of ``names`` that the class of ``model`` skips when a file is loaded.

    Published files may hold tensors that no layer uses: those of Wan 2.1 I2V have a norm of the
    queries to an image. The library lists such names with the class, as regular expressions.
    """
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    if not patterns:
        return set()
    own = model.state_dict().keys()
    return {name for name in names if name not in own and any(re.search(pattern, name) for pattern in patterns)}


def expected_shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of ``model``, which may be on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
