"""UMT5 where the memory policy has it: on the card, in the host's memory, or only in its files until a prompt comes."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from deployments.video.memory.offload import Residence


class TextEncoder:
    """Runs UMT5 on ``device``. ``load`` gives the model on the device that it is asked for.

    With ``residence`` the model lives there; with ``freed`` it is loaded anew for each prompt that is not known, and dropped.
    """

    def __init__(
        self, load: Callable[[], Any], device: torch.device, *, freed: bool = False, residence: Residence | None = None
    ) -> None:
        self.device = device
        self._load = load
        self._model = None if freed else load()
        self._residence = residence

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[1, n]`` -> hidden states ``[1, n, width]``."""
        if self._model is None:
            return self._run_and_drop(ids, mask)
        if self._residence is None:
            return _states(self._model, ids, mask)
        with self._residence.lock:
            self._residence.bring(self._model)
            try:
                return _states(self._model, ids, mask)
            finally:
                self._residence.clear()

    def _run_and_drop(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = _states(self._load(), ids, mask)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return states


def _states(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = model(ids, mask).last_hidden_state
    return states
