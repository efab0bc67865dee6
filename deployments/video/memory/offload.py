"""Models that share a GPU: one has its weights there, the others wait in host memory."""

import threading
from collections.abc import Iterable

import torch


class WeightOffloader:
    """Moves the weights of ``models`` to ``device``, one model at a time.

    Hold ``lock`` while a model is in use, because loading another takes its weights away. The
    copies in host memory are kept (page-locked if ``device`` is a GPU), so weights are only ever
    copied to the GPU and never back.
    """

    def __init__(self, models: Iterable[torch.nn.Module], device: torch.device) -> None:
        self.lock = threading.RLock()
        self._device = device
        self._copies = [(model, _copy_to_host(model, device)) for model in models]
        self._loaded: torch.nn.Module | None = None

    def __contains__(self, model: object) -> bool:
        return any(known is model for known, _ in self._copies)

    def load(self, model: torch.nn.Module) -> None:
        """Move the weights of ``model`` to the device, after unloading the model before it."""
        if self._loaded is model:
            return
        self.unload()
        for tensor, host in self._copies_of(model):
            tensor.data = host.to(self._device, non_blocking=True, copy=True)
        self._loaded = model

    def unload(self) -> None:
        """Release the device memory of the loaded model, if there is one."""
        if self._loaded is not None:
            for tensor, host in self._copies_of(self._loaded):
                tensor.data = host
            self._loaded = None

    def missing_bytes(self, models: Iterable[object]) -> int:
        """Return the device memory that the largest of ``models`` needs beyond the loaded model's.

        Models that are not offloaded count as 0 bytes. The result is negative if loading one of
        ``models`` frees memory.
        """
        sizes = {id(model): sum(host.nbytes for _, host in copies) for model, copies in self._copies}
        largest = max((sizes.get(id(model), 0) for model in models), default=0)
        return largest - sizes.get(id(self._loaded), 0)

    def _copies_of(self, model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return next(copies for known, copies in self._copies if known is model)


def _copy_to_host(model: torch.nn.Module, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    copies = []
    for tensor in [*model.parameters(), *model.buffers()]:
        host = tensor.data.cpu()
        if device.type == "cuda":
            host = host.pin_memory()
        tensor.data = host
        copies.append((tensor, host))
    return copies
