"""Models that take turns on a card: one has its weights there, the others wait in the host's memory."""

import threading
from collections.abc import Iterable

import torch


class Residence:
    """Models on ``device``, one at a time. Hold ``lock`` while one is used: bringing another takes its weights away.

    The host's copies stay, page-locked for a GPU, so that only the way to the card costs time; nothing is ever copied back.
    """

    def __init__(self, models: Iterable[torch.nn.Module], device: torch.device) -> None:
        self.lock = threading.RLock()
        self._device = device
        self._waiting = [(model, _copy(model, device)) for model in models]
        self._present: torch.nn.Module | None = None

    def __contains__(self, model: object) -> bool:
        return any(known is model for known, _ in self._waiting)

    def bring(self, model: torch.nn.Module) -> None:
        """Puts ``model``'s weights on the card and those of the one before it away."""
        if self._present is model:
            return
        self.clear()
        for tensor, host in self._hosted(model):
            tensor.data = host.to(self._device, non_blocking=True, copy=True)
        self._present = model

    def clear(self) -> None:
        """Puts all away."""
        if self._present is not None:
            for tensor, host in self._hosted(self._present):
                tensor.data = host
            self._present = None

    def missing(self, models: Iterable[object]) -> int:
        """Bytes that the largest of ``models``, as far as they live here, wants beyond those that the present one has."""
        sizes = {id(model): sum(host.nbytes for _, host in copies) for model, copies in self._waiting}
        largest = max((sizes.get(id(model), 0) for model in models), default=0)
        return largest - sizes.get(id(self._present), 0)

    def _hosted(self, model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return next(copies for known, copies in self._waiting if known is model)


def _copy(model: torch.nn.Module, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    copies = []
    for tensor in [*model.parameters(), *model.buffers()]:
        host = tensor.data.cpu()
        if device.type == "cuda":
            host = host.pin_memory()
        tensor.data = host
        copies.append((tensor, host))
    return copies
