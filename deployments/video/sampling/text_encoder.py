"""UMT5 where the memory plan puts it: on the GPU, in host memory, or loaded per prompt."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from deployments.video.memory.offload import WeightOffloader


class TextEncoder:
    """Runs UMT5 on ``device``.

    ``load`` returns the model. With ``offloader``, which must know the model, its weights are on
    the device only while a prompt is encoded. With ``freed`` the model is loaded for each prompt
    and dropped afterwards.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        device: torch.device,
        *,
        freed: bool = False,
        offloader: WeightOffloader | None = None,
    ) -> None:
        self.device = device
        self._load = load
        self._model = None if freed else load()
        self._offloader = offloader

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return hidden states ``[1, n, width]`` for token ids and mask ``[1, n]``."""
        if self._model is None:
            return self._run_and_free(ids, mask)
        if self._offloader is None:
            return _hidden_states(self._model, ids, mask)
        with self._offloader.lock:
            self._offloader.load(self._model)
            try:
                return _hidden_states(self._model, ids, mask)
            finally:
                self._offloader.unload()

    def _run_and_free(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = _hidden_states(self._load(), ids, mask)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return states


def _hidden_states(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = model(ids, mask).last_hidden_state
    return states
