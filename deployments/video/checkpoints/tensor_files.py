"""Reads the tensors of safetensors files, and says of other files what to use instead."""

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from deployments.errors import CheckpointRefused

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
"""Endings of files that may run code when they are opened."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""The names under which the libraries save a model that is one file. Others beside it are variants.
"""


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of one file or of several shards, mapped into memory."""

    where: Path
    """The file or the folder, for errors."""
    tensors: dict[str, torch.Tensor]
    metadata: Mapping[str, str]
    """The text in the headers of the files."""


def find_files(path: Path) -> list[Path]:
    """Return the safetensors files that make up the model at ``path``, a file or a folder.

    A shard stands for all shards of its model, and a file that an index beside it names for all
    files of that index. Raises ``CheckpointRefused`` for files that are
    missing, of another type or of more than one model.
    """
    if path.is_dir():
        return _files_in(path)
    if path.suffix in PICKLED:
        raise CheckpointRefused(
            f"{path}: a {path.suffix} file is pickled and could run code when it is opened; use the model's safetensors file, "
            "which the publisher or ComfyUI's repackaged models have"
        )
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    if path.suffix != ".safetensors":
        raise CheckpointRefused(f"{path}: {found_instead(path) or 'must be a .safetensors file'}")
    if _SHARD.fullmatch(path.name):
        return _shards(path)
    index = next((index for index in sorted(path.parent.glob("*.safetensors.index.json")) if _names(index, path.name)), None)
    return [path] if index is None else _indexed(index)


def read_tensors(path: Path) -> StoredTensors:
    """Read the model at ``path``; see ``find_files``. Refuses files that cannot be read."""
    return read_files(path, find_files(path))


def read_files(where: Path, files: Iterable[Path]) -> StoredTensors:
    """Read the tensors of all ``files``, which are the model at ``where``.

    Raises ``CheckpointRefused`` for a file that cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        metadata |= read_metadata(file)
        try:
            tensors |= load_file(file)
        except (SafetensorError, ValueError, OSError) as e:
            raise _unreadable(file, e) from e
    return StoredTensors(where, tensors, metadata)


def read_metadata(file: Path) -> dict[str, str]:
    """Return the text in the header of a safetensors file.

    Raises ``CheckpointRefused`` for a file that cannot be read.
    """
    with _opened(file) as tensors:
        return dict(tensors.metadata() or {})


def read_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in ``files``, of which only headers are read.

    Raises ``CheckpointRefused`` for a file that cannot be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _opened(file) as tensors:
            shapes.update({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118
    return shapes


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, ValueError, OSError) as e:
        raise _unreadable(file, e) from e


def _unreadable(file: Path, error: Exception) -> CheckpointRefused:
    return unreadable(file, "safetensors", error)


def unreadable(file: Path, kind: str, error: Exception) -> CheckpointRefused:
    """Return the error for a file that is not of its ``kind``, with what it is instead."""
    instead = found_instead(file)
    if instead is None:
        return CheckpointRefused(f"{file}: not a readable {kind} file, perhaps truncated ({error})")
    return CheckpointRefused(f"{file}: {instead}")


def found_instead(file: Path, *, may_be_text: bool = False) -> str | None:
    """Return what ``file`` is in place of a model, and what to do; None if that cannot be told.

    Downloads leave pointers, pages and messages under the name of a file, and people rename files.
    """
    start = b""
    if file.is_file():
        try:
            with file.open("rb") as opened:
                start = opened.read(64)
        except OSError as e:
            return f"cannot be read: {e.strerror}"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file; fetch the file with `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "a web page instead of the file; download it again"
    if start.startswith(b"GGUF"):
        return None if file.suffix == ".gguf" else "a GGUF file by another ending; rename it so that it ends in .gguf"
    if start[8:9] == b"{" and start[6:8] == b"\0\0" and file.suffix != ".safetensors":
        return "a safetensors file by another ending; rename it so that it ends in .safetensors"
    # The length of a safetensors header may begin with the same bytes.
    if start[8:9] != b"{" and start.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\x80\x02", b"\x80\x04")):
        return "an archive or a pickled file instead; use the model's safetensors file"
    if not may_be_text and (text := _text(start)):
        return f"text instead of the file, which begins with `{text}`; download it again"
    return None


def _text(start: bytes) -> str:
    """Return the text that a file begins with, in one line, or an empty string for other bytes.

    The first bytes of a model's file may all be printable, so that a few of them say nothing.
    """
    if len(start) < 16:
        return ""
    try:
        text = getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    line = " ".join(text.split())
    return line if line.isprintable() else ""


def _files_in(folder: Path) -> list[Path]:
    # A Mac leaves `._NAME` beside each file that it copies to a foreign disk.
    files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("._"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) > 1:  # such as `model.fp16.safetensors.index.json` beside that of the whole model
        indexes = [index for index in indexes if index.name.removesuffix(".index.json") in _WHOLE] or indexes[:1]
    if indexes:
        return _indexed(indexes[0])
    if not files:
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED) if folder.is_dir() else []
        instead = f", only {pickled[0]}, which is pickled and could run code when it is opened" if pickled else ""
        raise CheckpointRefused(f"{folder}: no *.safetensors file{instead}")
    whole = [file for file in files if file.name in _WHOLE]
    if whole:
        return whole[:1]
    shards = {match[1] for file in files if (match := _SHARD.fullmatch(file.name))}
    if len(files) == 1 or (len(shards) == 1 and all(_SHARD.fullmatch(file.name) for file in files)):
        return _shards(files[0]) if shards else files
    names = ", ".join(file.name for file in files[:3])
    raise CheckpointRefused(f"{folder}: has {len(files)} files, {names}, which are not one model; keep one of them")


def _names(index: Path, file: str) -> bool:
    """Return whether ``index``, which may be broken, has the name of ``file``.

    Programs write what is not ASCII as it is or escaped.
    """
    if not index.is_file():
        return False
    text = index.read_bytes()
    return any(json.dumps(file, ensure_ascii=escaped).encode(errors="surrogateescape") in text for escaped in (True, False))


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted({Path(name).as_posix() for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        raise CheckpointRefused(f"{index}: not an index of shards, which has a `weight_map`") from None
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointRefused(f"{index.parent / name}: {index.name} names this file, but it is missing")
    return [index.parent / name for name in names]


def _shards(file: Path) -> list[Path]:
    """Return all shards of the model that ``file`` is one of."""
    match = _SHARD.fullmatch(file.name)
    assert match is not None
    stem, _, count = match.groups()
    shards = [file.parent / f"{stem}-{number:05d}-of-{count}.safetensors" for number in range(1, int(count) + 1)]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointRefused(f"{shard}: missing, but {file.name} is one of {int(count)} files of a model")
    return shards


def parse_object(text: str | bytes, refusal: str) -> dict[str, Any]:
    """Return a JSON object that a file has in its header or beside it.

    Raises ``CheckpointRefused`` with ``refusal`` if ``text`` is none.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointRefused(refusal)
    return content
