"""A checkpoint in diffusers' layout: which transformers it has, and when each of them runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.experts import require_pair, require_two, require_whole
from deployments.video.checkpoints.folder import CONFIG, INDEX, read_index
from deployments.video.checkpoints.tensor_files import PICKLED

HIGH, LOW = "transformer", "transformer_2"
"""The names of two experts in a pipeline; a checkpoint with one transformer has the first."""


@dataclass(frozen=True)
class Source:
    """The transformers of a checkpoint."""

    folder: Path
    """The folder in diffusers' layout."""
    weights: Mapping[str, Path | None]
    """The file that is read instead of the weights in the folder, by the transformers' names."""
    boundary: float | None = None
    """The share of the noise schedule above which the first of two experts runs."""

    def parts_of(self, high: Path | None, low: Path | None, setting: str) -> dict[str, Path | None]:
        """Return the files for the transformers of this checkpoint, by their names.

        ``setting`` is the name of the setting that names ``high``. Raises ``CheckpointRefused`` if
        only some transformers have a file, for a file that is one of two experts where there is one
        transformer, and for two files that cannot be a pair.
        """
        if LOW not in self.weights:
            if high is not None:
                require_whole(high, setting, self.folder)
                _require_no_half(high, setting, self.folder)
            if low is not None:
                raise CheckpointRefused(
                    f"{low}: configured as `{setting}_low_noise`, but {self.folder} has one transformer; leave it out"
                )
            return {HIGH: high}
        if (high is None) != (low is None):
            raise CheckpointRefused(
                f"{self.folder}: has two experts; set `{setting}` for the high-noise one and `{setting}_low_noise` for the "
                "other one, or neither"
            )
        if high is not None and low is not None:
            require_pair(high, low, (setting, f"{setting}_low_noise"))
        else:
            require_two(self.folder, (HIGH, LOW))
        return {HIGH: high, LOW: low}


def open_source(folder: Path, high: Path | None, low: Path | None, setting: str) -> Source:
    """Return the checkpoint in ``folder``, with files that are read instead of its weights.

    ``setting`` is the name of the setting that names ``high``. Raises ``CheckpointRefused`` for two
    experts without a boundary, for an index that contradicts itself or the folder in how many there
    are, and for a file without its transformer.
    """
    source = Source(folder, {HIGH: None})
    if _has_two_experts(folder):
        source = Source(folder, {HIGH: None, LOW: None}, read_boundary(folder))
    return Source(folder, source.parts_of(high, low, setting), source.boundary)


def read_boundary(folder: Path) -> float:
    """Return the boundary of the two experts in ``folder``.

    Raises ``CheckpointRefused`` if its index has none.
    """
    boundary = read_index(folder).get("boundary_ratio")
    if not isinstance(boundary, int | float) or isinstance(boundary, bool) or not 0 < boundary < 1:
        raise CheckpointRefused(
            f"{folder / INDEX}: has two experts, but no `boundary_ratio` over 0 and under 1 at which one follows the other"
        )
    return float(boundary)


_EXPERTS = {HIGH: "high", LOW: "low"}


def _require_no_half(path: Path, setting: str, folder: Path) -> None:
    """Raise ``CheckpointRefused`` if ``path`` is in one of two experts of another folder.

    Neither its name nor that of its files says so, and ``folder`` has one transformer.
    """
    if (place := _place_of(path)) is not None:
        raise CheckpointRefused(
            f"{path}: configured as `{setting}`, but it is the {_EXPERTS[place.name]}-noise one of two experts, and {folder} has "
            f"one transformer, so that it would run for all steps; name the folder with both experts, {place.parent}, in place "
            f"of {folder}"
        )


def _place_of(path: Path) -> Path | None:
    """Return the folder of ``path`` if it is one of two experts in diffusers' layout.

    ``path`` is that folder or a file in it. A file may be a link, as in a cache of downloads, so
    that only its folder is resolved.
    """
    place = (path if path.is_dir() else path.parent).resolve()
    beside = all((place.parent / name / CONFIG).is_file() for name in _EXPERTS)
    return place if place.name in _EXPERTS and beside else None


def _holds_model(place: Path) -> bool:
    """Return whether a folder has a file of a model, beside such as a file manager leaves."""
    return place.is_dir() and any(path.suffix in (".json", ".safetensors", ".gguf", *PICKLED) for path in place.iterdir())


def _has_two_experts(folder: Path) -> bool:
    """Return whether the folder's index, or without one its contents, name a second transformer.

    Raises ``CheckpointRefused`` for an index without one where the folder has it or the index says
    when it takes over. Either could be a mistake, and one expert that runs for all steps makes
    worse videos without an error.
    """
    if not (folder / INDEX).is_file():
        return (folder / LOW / CONFIG).is_file()
    index = read_index(folder)
    entry = index.get(LOW)
    if entry is not None and any(part is not None for part in entry):
        return True
    contrary = f"{folder / LOW} holds one" if _holds_model(folder / LOW) else None
    boundary = index.get("boundary_ratio")
    if boundary not in (None, 0):  # at 0, the first transformer runs for all steps
        contrary = f"its `boundary_ratio` is {boundary}, at which one expert follows the other"
    if contrary is not None:
        raise CheckpointRefused(
            f"{folder / INDEX}: names no `{LOW}`, but {contrary}; a checkpoint with two experts names both in its index, one "
            f"with one transformer has neither a folder `{LOW}` nor a `boundary_ratio`"
        )
    return False
