"""The folder of LoRAs that callers may choose from, by name.

It is a path, or a URL of a bucket that fsspec opens. A name is that of a file without its ending;
two files that differ only in the expert that they name are one LoRA for two experts. A subfolder
with one LoRA, as trainers write them, gives it its name. A caller never names a path.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from deployments.expert_names import Split, half_named, splits, without_expert
from deployments.lora_names import check_names
from deployments.safetensors_header import Header, read_header

log = logging.getLogger(__name__)

ENDING = ".safetensors"
PEFT_WEIGHTS, PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter as PEFT saves it. The scale is in the second one."""
MAX_FILES = 2_000
"""Files of a folder that are listed."""
MAX_FOLDERS = 100
"""Subfolders that are listed. In a bucket, each of them takes a request."""
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
    """Its path in the folder."""
    nbytes: int
    version: str
    """Changes when the file does, or its settings."""
    settings: str | None = None
    """The path of the settings beside it, if it is a PEFT adapter that has some."""


@dataclass(frozen=True)
class LoraEntry:
    """A LoRA in the folder."""

    name: str
    files: Mapping[str, StoredFile]
    """The file for `all` transformers, or those for the experts `high` and `low`, or for one."""


class LoraFolderUnavailable(Exception):
    """The folder cannot be read now; the message says why."""


class LoraFileBroken(Exception):
    """A file cannot be read, or is not a whole safetensors file; the message says why."""


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
        self._passed_over: set[str] = set()
        self._copies: Path | None = None

    def entries(self) -> Mapping[str, LoraEntry]:
        """Return all LoRAs by their names; raises ``LoraFolderUnavailable``."""
        with self._lock:
            if time.monotonic() - self._listed_at > LISTED_S:
                self._listed = {entry.name: entry for entry in self._all_entries()}
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
            key = hashlib.sha256(f"{file.name}\0{file.version}".encode()).hexdigest()
            copy = self._copies / key / file.name.rpartition("/")[2]
            if copy.is_file():
                os.utime(copy.parent)
            else:
                self._make_room(self._copies, file.nbytes)
                self._copy(file, copy.parent)
            return copy

    def _copy(self, file: StoredFile, folder: Path) -> None:
        """Copy ``file`` and the settings beside it to ``folder``, which is whole once it exists."""
        draft = folder.with_suffix(".part")
        draft.mkdir(exist_ok=True)
        try:
            for path in filter(None, (file.name, file.settings)):
                self._open().get_file(f"{self._root}/{path}", str(draft / path.rpartition("/")[2]))
        except Exception as error:  # each package of fsspec has exceptions of its own
            shutil.rmtree(draft)
            raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be fetched: {error}") from error
        draft.rename(folder)

    def _make_room(self, folder: Path, nbytes: int) -> None:
        copies = sorted(folder.iterdir(), key=lambda copy: copy.stat().st_mtime)
        sizes = [sum(path.stat().st_size for path in copy.iterdir()) for copy in copies]
        total = nbytes + sum(sizes)
        for copy, size in zip(copies, sizes, strict=True):
            if total <= self._max_copied_bytes:
                return
            total -= size
            shutil.rmtree(copy)  # a file that is mapped stays readable

    def _header(self, file: StoredFile) -> Header:
        try:
            with self._open().open(f"{self._root}/{file.name}", "rb") as stream:
                header = read_header(stream)
            if header.nbytes != file.nbytes:
                raise ValueError(f"it has {file.nbytes} bytes, but its header describes {header.nbytes}")
            check_names(header.shapes)
        except (ConnectionError, TimeoutError) as error:
            raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be read: {error}") from error
        except (ValueError, OSError) as error:
            raise LoraFileBroken(f"{self.url}: {file.name} cannot be used: {error}") from error
        except Exception as error:  # each package of fsspec has exceptions of its own
            raise LoraFolderUnavailable(f"{self.url}: {file.name} cannot be read: {error}") from error
        return header

    def _all_entries(self) -> list[LoraEntry]:
        """Return the LoRAs of the folder and of its subfolders.

        A LoRA of the folder goes before one of a subfolder with the same name.
        """
        try:
            files, folders = self._list("")
            inside = {folder: lora for folder in folders if (lora := self._lora_in(folder)) is not None}
        except LoraFolderUnavailable:
            raise
        except Exception as error:  # each package of fsspec has exceptions of its own
            raise LoraFolderUnavailable(f"{self.url}: the folder of LoRAs cannot be read: {error}") from error
        named = {folder: lora.files["all"] for folder, lora in inside.items() if "all" in lora.files}
        entries = list(_entries(named | {_stem(file): file for file in files}))
        taken = {entry.name for entry in entries}
        return entries + [lora for folder, lora in inside.items() if folder not in named and folder not in taken]

    def _lora_in(self, folder: str) -> LoraEntry | None:
        """Return the LoRA of a subfolder, under its name, or None if it has none or several."""
        try:
            files, _ = self._list(folder)
        except (FileNotFoundError, PermissionError) as error:
            log.warning("%s: the subfolder %s is left out: %s", self.url, folder, error)
            return None
        loras = list(_entries({_stem(file): file for file in files}, nameless=folder))
        if len(loras) > 1 and folder not in self._passed_over:
            self._passed_over.add(folder)  # a listing is made again every few seconds
            log.warning(
                "%s: the subfolder %s is passed over, because it has %d LoRAs; a subfolder is one LoRA, so move these up, or "
                "name the subfolder itself in the setting",
                *(self.url, folder, len(loras)),
            )
        return LoraEntry(folder, loras[0].files) if len(loras) == 1 else None

    def _list(self, folder: str) -> tuple[list[StoredFile], list[str]]:
        """Return the files of a ``folder`` that may be LoRAs, and the names of its subfolders.

        The ``folder`` is a path in the root, empty for the root itself.
        """
        system = self._open()
        path = f"{self._root}/{folder}" if folder else self._root
        found = [entry for entry in system.ls(path, detail=True) if str(entry["name"]).rstrip("/") != path]
        by_name = {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in found}
        entries = {name: by_name[name] for name in sorted(by_name) if _is_usable(name)}
        prefix = f"{folder}/" if folder else ""
        listed = []
        for name, entry in entries.items():
            if name.endswith(ENDING) and _is_file(entry):
                beside = entries.get(PEFT_SETTINGS) if name == PEFT_WEIGHTS else None
                listed.append(
                    StoredFile(
                        f"{prefix}{name}",
                        int(entry["size"] or 0),
                        version=" ".join(_version(part) for part in (entry, beside) if part is not None),
                        settings=None if beside is None else f"{prefix}{PEFT_SETTINGS}",
                    )
                )
        return listed[:MAX_FILES], [name for name, entry in entries.items() if _is_folder(entry)][:MAX_FOLDERS]

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


def _is_folder(entry: Mapping[str, Any]) -> bool:
    return entry["type"] == "directory" or (bool(entry.get("islink")) and os.path.isdir(entry["name"]))


def _is_usable(name: str) -> bool:
    """Return whether a request can name a file or folder; its bytes might not be text."""
    is_text = not any("\ud800" <= character <= "\udfff" for character in name)
    return is_text and name != "" and not name.startswith(".") and len(name) <= MAX_NAME_CHARS + len(ENDING)


def same_spelling(name: str) -> str:
    """Return a name with its accents as callers send them, since a Mac stores them apart."""
    return unicodedata.normalize("NFC", name)


def _stem(file: StoredFile) -> str:
    return same_spelling(file.name.rpartition("/")[2].removesuffix(ENDING))


def _version(entry: Mapping[str, Any]) -> str:
    """Return a text that changes when a listed file does."""
    keys = ("ETag", "etag", "mtime", "created", "LastModified")
    version = f"{entry['size']} {next((entry[key] for key in keys if key in entry), '')}"
    return f"{version} {_changed_at(str(entry['name']))}" if entry.get("islink") else version


def _changed_at(link: str) -> float:
    """Return when the file that a link leads to was changed; 0 if there is none."""
    try:
        return os.stat(link).st_mtime
    except OSError:
        return 0.0


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _entries(by_stem: Mapping[str, StoredFile], nameless: str = "") -> Iterator[LoraEntry]:
    """Yield the LoRAs that files are, with pairs of experts as one.

    ``by_stem`` has the files by their names without ending. A pair whose names have no other word
    is called ``nameless``; if that is empty, its files are two LoRAs.
    """
    pairs: dict[str, dict[str, str]] = {}
    halves: dict[str, str] = {}
    for experts, name in _counterparts(by_stem):
        if halves.keys().isdisjoint(experts.values()):
            halves |= {stem: expert for expert, stem in experts.items()}
            # A LoRA for all transformers has the name of the pair, so each half keeps its own.
            if (name := name or nameless) and name not in by_stem and name not in pairs:
                pairs[name] = dict(experts)
    for stem in by_stem:
        if stem not in halves and (half := half_named(stem)) is not None:
            halves[stem] = half
            name = without_expert(stem, half) or nameless
            if name and name not in by_stem and half not in pairs.get(name, {}):
                pairs.setdefault(name, {})[half] = stem
    paired = {stem for experts in pairs.values() for stem in experts.values()}
    for name, experts in pairs.items():
        yield LoraEntry(name, {expert: by_stem[stem] for expert, stem in experts.items()})
    for stem, file in by_stem.items():
        if stem not in paired:
            yield LoraEntry(stem, {halves.get(stem, "all"): file})


def _counterparts(stems: Iterable[str]) -> list[tuple[Mapping[str, str], str]]:
    """Return the pairs of names that differ in the expert alone, the likeliest first.

    Each pair comes by its experts and with what its names share.
    """
    found: dict[tuple[str, ...], dict[str, tuple[str, Split]]] = {}
    for stem in stems:
        for split in splits(stem):
            around = tuple(part.casefold() for part in split.around)
            found.setdefault(around, {})[split.expert] = (stem, split)
    pairs = [experts for experts in found.values() if len(experts) == 2]
    pairs.sort(key=lambda experts: max(split.likelihood for _, split in experts.values()), reverse=True)
    return [({expert: stem for expert, (stem, _) in experts.items()}, experts["high"][1].name) for experts in pairs]


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
