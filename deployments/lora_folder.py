"""The folder of LoRAs that callers may choose from, by name.

It is a path, or a URL of a bucket that fsspec opens. A name is that of a file without its ending;
two files that differ only in the expert that they name are one LoRA for two experts. A caller never
names a path.
"""

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from deployments.expert_names import around_expert, experts_named, half_named, without_expert
from deployments.safetensors_header import Header, read_header

ENDING = ".safetensors"
MAX_FILES = 2_000
"""Files of a folder that are listed."""
MAX_NAME_CHARS = 100
MAX_WORDS, MAX_WORD_CHARS = 20, 200
"""Trigger words of a LoRA that are listed, and how much of each."""
LISTED_S = 10.0
"""Seconds for which a listing is good; a file that is added is found after that."""
_WORDS = ("modelspec.trigger_phrase", "trigger_words", "trigger_word", "trigger", "activation text", "instance_prompt")
"""Where trainers write the words that a LoRA was trained with, the likeliest first."""
_TAGS = "ss_tag_frequency"


@dataclass(frozen=True)
class StoredFile:
    """A file of the folder."""

    name: str
    nbytes: int
    version: str
    """Changes when the file does."""


@dataclass(frozen=True)
class LoraEntry:
    """A LoRA in the folder."""

    name: str
    files: Mapping[str, StoredFile]
    """The file for `all` transformers, or those for the experts `high` and `low`, or for one."""


class LoraFolderUnavailable(Exception):
    """The folder cannot be read now; the message says why."""


class LoraFileBroken(Exception):
    """A file cannot be read, or is no whole safetensors file; the message says why."""


class LoraFolder:
    """The LoRAs at ``url``. It may be used by several threads.

    Files of a bucket are copied to this machine before they are read, and the copies take at most
    ``max_copied_bytes``, apart from those in use.
    """

    def __init__(self, url: str, *, max_copied_bytes: int = 16 * 2**30) -> None:
        self.url = url
        self._max_copied_bytes = max_copied_bytes
        self._system: Any = None
        self._root = ""
        self._lock = threading.Lock()
        self._listed: dict[str, LoraEntry] = {}
        self._listed_at = float("-inf")
        self._words: dict[tuple[str, str], tuple[str, ...]] = {}
        self._copies: Path | None = None

    def entries(self) -> Mapping[str, LoraEntry]:
        """Return all LoRAs by their names; raises ``LoraFolderUnavailable``."""
        with self._lock:
            if time.monotonic() - self._listed_at > LISTED_S:
                self._listed = {entry.name: entry for entry in _entries(self._files())}
                self._listed_at = time.monotonic()
            return self._listed

    def trigger_words(self, entry: LoraEntry) -> tuple[str, ...]:
        """Return the words with which a prompt calls the LoRA, from the headers of its files.

        Raises ``LoraFileBroken`` for a LoRA that no request can use, and ``LoraFolderUnavailable``.
        """
        words: dict[str, None] = {}
        for file in entry.files.values():
            key = (file.name, file.version)
            if key not in self._words:
                self._words[key] = _trigger_words(self._header(file).metadata)
            words |= dict.fromkeys(self._words[key])
        return tuple(words)[:MAX_WORDS]

    def path_of(self, file: StoredFile) -> Path:
        """Return where ``file`` is on this machine, after copying it if it is in a bucket."""
        system = self._open()
        if "file" in _protocols(system):
            return Path(self._root) / file.name
        with self._lock:
            if self._copies is None:
                self._copies = Path(tempfile.mkdtemp(prefix="ryla-loras-"))
                weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
            folder = self._copies
            key = hashlib.sha256(f"{file.name}\0{file.version}".encode()).hexdigest()
            copy = folder / f"{key}{ENDING}"
            if copy.is_file():
                os.utime(copy)
            else:
                self._make_room(folder, file.nbytes)
                draft = copy.with_suffix(".part")
                try:
                    system.get_file(f"{self._root}/{file.name}", str(draft))
                except Exception as error:  # each package of fsspec has exceptions of its own
                    draft.unlink(missing_ok=True)
                    raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be fetched: {error}") from error
                draft.rename(copy)
            return copy

    def _make_room(self, folder: Path, nbytes: int) -> None:
        copies = sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime)
        total = nbytes + sum(path.stat().st_size for path in copies)
        for path in copies:
            if total <= self._max_copied_bytes:
                return
            total -= path.stat().st_size
            path.unlink()  # a file that is mapped stays readable

    def _header(self, file: StoredFile) -> Header:
        try:
            with self._open().open(f"{self._root}/{file.name}", "rb") as stream:
                header = read_header(stream)
            if header.nbytes != file.nbytes:
                raise ValueError(f"it has {file.nbytes} bytes, and its header speaks of {header.nbytes}")
        except (ConnectionError, TimeoutError) as error:
            raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be read: {error}") from error
        except (ValueError, OSError) as error:
            raise LoraFileBroken(f"{self.url}: {file.name} cannot be used: {error}") from error
        except Exception as error:  # each package of fsspec has exceptions of its own
            raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be read: {error}") from error
        return header

    def _files(self) -> Iterator[StoredFile]:
        try:
            system = self._open()
            found = system.ls(self._root, detail=True)
        except LoraFolderUnavailable:
            raise
        except Exception as error:  # each package of fsspec has exceptions of its own
            raise LoraFolderUnavailable(f"{self.url}: the folder of LoRAs cannot be read: {error}") from error
        files = sorted(filter(_is_file, found), key=lambda entry: str(entry["name"]))
        for entry in files[:MAX_FILES]:
            name = str(entry["name"]).rpartition("/")[2]
            if any("\ud800" <= character <= "\udfff" for character in name):
                continue  # its bytes are not text, so that no request can name it
            if name.endswith(ENDING) and not name.startswith(".") and len(name) <= MAX_NAME_CHARS + len(ENDING):
                version = next(
                    (str(entry[key]) for key in ("ETag", "etag", "mtime", "created", "LastModified") if key in entry), ""
                )
                if entry.get("islink"):
                    version += f" {_changed_at(str(entry['name']))}"
                size = int(entry["size"] or 0)
                yield StoredFile(name, size, f"{size} {version}")

    def _open(self) -> Any:
        if self._system is None:
            try:
                self._system, self._root = url_to_fs(self.url, use_listings_cache=False)
            except (ImportError, ValueError) as error:  # unknown protocols, and those whose package is missing
                raise LoraFolderUnavailable(f"{self.url}: no folder of LoRAs can be read there: {error}") from error
        return self._system


def _is_file(entry: Mapping[str, Any]) -> bool:
    """Return whether a listed entry is a file, or a link of this machine that may lead to one."""
    return entry["type"] == "file" or (bool(entry.get("islink")) and not os.path.isdir(entry["name"]))


def _changed_at(link: str) -> float:
    """Return when the file that a link leads to was changed; 0 if there is none."""
    try:
        return os.stat(link).st_mtime
    except OSError:
        return 0.0


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _entries(files: Iterator[StoredFile]) -> Iterator[LoraEntry]:
    """Yield the LoRAs that ``files`` are, with pairs of experts as one."""
    by_stem = {file.name.removesuffix(ENDING): file for file in files}
    pairs: dict[str, dict[str, str]] = {}
    doubtful: dict[tuple[str, ...], dict[str, str]] = {}
    alone: dict[str, str] = {}
    for stem in by_stem:
        named = experts_named(stem)
        if len(named) == 1:
            (expert,) = named
            name = without_expert(stem, expert)
            if not name or name in by_stem:
                # A LoRA for all transformers has the name of the pair, so each half keeps its own.
                if half_named(stem):
                    alone[stem] = expert
                continue
            if half_named(stem):
                pairs.setdefault(name, {}).setdefault(expert, stem)
            # A plain `high` or `low` may belong to another word; only a counterpart makes it half
            # of a pair.
            doubtful.setdefault(around_expert(stem, expert), {})[expert] = stem
    for experts in doubtful.values():
        pair = pairs.setdefault(without_expert(experts["high"], "high"), {}) if len(experts) == 2 else {}
        if pair.items() <= experts.items():
            pair.update(experts)
    paired = {stem for experts in pairs.values() for stem in experts.values()}
    for name, experts in pairs.items():
        yield LoraEntry(name, {expert: by_stem[stem] for expert, stem in experts.items()})
    for stem, file in by_stem.items():
        if stem not in paired:
            yield LoraEntry(stem, {alone.get(stem, "all"): file})


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    for key in _WORDS:
        if metadata.get(key, "").strip():
            return _short(_parts(metadata[key]))
    try:
        counted = json.loads(metadata.get(_TAGS, "{}"))
        counts: dict[str, int] = {}
        for tags in counted.values():
            for tag, count in tags.items():
                counts[str(tag)] = counts.get(str(tag), 0) + int(count)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return ()
    return _short(sorted(counts, key=lambda tag: -counts[tag])[:5])


def _parts(text: str) -> list[str]:
    """Return the words in a text, which may be a JSON array or a list with commas."""
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = None
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else text.split(",")


def _short(words: list[str]) -> tuple[str, ...]:
    # Half of a surrogate pair is possible in JSON, but not in an answer.
    whole = (word.encode(errors="replace").decode() for word in words)
    return tuple(" ".join(word.split())[:MAX_WORD_CHARS] for word in whole if word.strip())[:MAX_WORDS]
