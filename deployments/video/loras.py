"""The LoRAs that requests ask for by name: loaded once, kept up to a limit, never merged."""

import difflib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import torch

from deployments.errors import CheckpointRefused, LoraNotUsable
from deployments.lora_folder import LoraEntry, LoraFolder, LoraFolderUnavailable, StoredFile, same_spelling
from deployments.video.checkpoints.lora import Lora, fit_lora, signature, with_loras
from deployments.video.checkpoints.lora_file import read_lora
from deployments.wire import LoraChoice

log = logging.getLogger(__name__)

EXPERTS: Mapping[str, str] = {"transformer": "high", "transformer_2": "low"}
"""The expert that each transformer is, where there are two."""
FIELD = "loras"
_PLAIN = " !#$&'()*+@[]^`{|}"
"""Characters of a name that the header has as they are, beside letters, digits and `-._~`."""


@dataclass(frozen=True)
class _Key:
    """A file as one transformer of one device uses it."""

    file: StoredFile
    model: str
    """The model's signature: two models of one class may differ in size and in layers."""
    device: str


class LoraShelf:
    """The LoRAs of ``folder``, of which those used last stay loaded, in at most ``max_bytes``.

    Linear layers that are stored quantised compute changes in ``dtype``. It may be used by several
    threads. ``folder`` is None if no LoRA may be chosen.
    """

    def __init__(self, folder: LoraFolder | None, *, max_loras: int, max_bytes: int, dtype: torch.dtype) -> None:
        self._folder = folder
        self._max_loras = max_loras
        self._max_bytes = max_bytes
        self._dtype = dtype
        self._loaded: OrderedDict[_Key, Lora] = OrderedDict()
        self._signatures: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self.hits = 0
        """How many files were loaded already when a request used them."""
        self.loads = 0
        """How many files were loaded."""

    @property
    def loaded_bytes(self) -> int:
        """The bytes of all LoRAs that are kept."""
        return sum(lora.nbytes for lora in self._loaded.values())

    def choose(self, choices: Sequence[LoraChoice], *, experts: int) -> "LoraStack | None":
        """Return the LoRAs of a request to a model of one transformer or of two ``experts``.

        Those with scale 0 are left out, and without any the result is None. Nothing is loaded yet.
        Raises ``LoraNotUsable`` for an unknown name, too many, and a file that is too large.
        """
        if len(choices) > self._max_loras:
            raise LoraNotUsable(FIELD, f"{len(choices)} LoRAs were sent; send at most {self._max_loras}")
        chosen: list[tuple[LoraEntry, float]] = []
        for choice in choices:
            entry = self._entry(choice.name)
            if any(entry is other for other, _ in chosen):
                raise LoraNotUsable(FIELD, f"`{choice.name}` was sent twice; send it once")
            if experts == 1 and "all" not in entry.files:
                raise LoraNotUsable(FIELD, f"`{choice.name}` is for a model of two experts, and this model has one transformer")
            chosen.append((entry, choice.scale))
        total = sum(file.nbytes for entry, _ in chosen for file in entry.files.values())
        if total > self._max_bytes:
            raise LoraNotUsable(
                FIELD, f"the files have {total} bytes, but this model keeps {self._max_bytes}; send fewer LoRAs"
            )
        used = [(entry, scale) for entry, scale in chosen if scale != 0]
        return LoraStack(self, used, experts=experts) if used else None

    def _entry(self, name: str) -> LoraEntry:
        if self._folder is None:
            raise LoraNotUsable(FIELD, "this model has no LoRAs to choose from; leave the field out")
        try:
            entries = self._folder.entries()
        except LoraFolderUnavailable as error:
            log.warning("%s", error)
            raise LoraNotUsable(
                FIELD, "the folder of LoRAs cannot be read now; leave the field out, or try again later"
            ) from None
        name = same_spelling(name)
        if name not in entries:
            nearest = difflib.get_close_matches(name[:100].lower(), [known.lower() for known in entries], n=1)
            meant = next((f" (did you mean `{known}`?)" for known in entries if known.lower() in nearest), "")
            raise LoraNotUsable(FIELD, f"there is no LoRA `{name[:100]}`{meant}; GET /loras lists those that there are")
        return entries[name]

    def load(self, file: StoredFile, transformer: Any) -> Lora:
        """Return the changes in ``file`` for ``transformer``, on its device.

        Raises ``LoraNotUsable`` for a file that does not fit, and for one that cannot be read.
        """
        assert self._folder is not None
        device = transformer.scale_shift_table.device
        with self._lock:
            if transformer not in self._signatures:
                self._signatures[transformer] = signature(transformer)
            key = _Key(file, self._signatures[transformer], str(device))
            if key not in self._loaded:
                try:
                    path = self._folder.path_of(file)
                    self._loaded[key] = fit_lora(read_lora(path), transformer, dtype=self._dtype, device=device)
                except CheckpointRefused as error:
                    log.warning("%s", error)
                    reason = str(error).removeprefix(f"{path}: ")
                    raise LoraNotUsable(FIELD, f"`{file.name}` does not fit this model: {reason}") from None
                except (LoraFolderUnavailable, OSError) as error:
                    log.warning("%s", error)
                    raise LoraNotUsable(FIELD, f"`{file.name}` cannot be read now; leave it out, or try again later") from None
                self._drop(keep=key)
                self.loads += 1
            else:
                self.hits += 1
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _drop(self, keep: _Key) -> None:
        """Drop the LoRAs that were used longest ago until the others are within the limit."""
        while self.loaded_bytes > self._max_bytes and (oldest := next(iter(self._loaded))) != keep:
            del self._loaded[oldest]


class LoraStack:
    """The LoRAs of one request, and its copies of the transformers with them."""

    def __init__(self, shelf: LoraShelf, chosen: Sequence[tuple[LoraEntry, float]], *, experts: int) -> None:
        self._shelf = shelf
        self._chosen = chosen
        self._experts = experts
        self._views: dict[int, tuple[Any, Any]] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of the files, about what the LoRAs need on a device."""
        return sum(file.nbytes for entry, _ in self._chosen for file in entry.files.values())

    def describe(self) -> str:
        """Return the names and scales, as the header `X-Loras` states them.

        Names are percent-encoded, apart from what cannot be taken for another part of the header.
        """
        return "; ".join(f"{quote(entry.name, safe=_PLAIN)}={scale:g}" for entry, scale in self._chosen)

    def view(self, part: str, transformer: Any) -> Any:
        """Return ``transformer`` with the LoRAs, always the same copy of it.

        ``part`` is its name in the pipeline. Its weights must be on their device. Raises
        ``LoraNotUsable`` for a file that does not fit.
        """
        if id(transformer) not in self._views:
            loras = []
            for entry, scale in self._chosen:
                file = entry.files.get("all") or entry.files.get(EXPERTS[part])
                if file is not None:
                    loras.append((self._shelf.load(file, transformer), scale))
            # The original is kept beside its copy, so that its id stays its own.
            self._views[id(transformer)] = (transformer, with_loras(transformer, loras) if loras else transformer)
        return self._views[id(transformer)][1]
