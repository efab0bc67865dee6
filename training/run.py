"""What all training stages share: schedule, averaged weights, saved state and time limit."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Averaged:
    """An exponential moving average of the weights of ``modules``, in float32."""

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self._modules = modules
        self._decay = decay
        self.weights = {name: [p.detach().clone().float() for p in m.parameters()] for name, m in modules.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after an optimizer step.

        The decay grows with ``step``, so that the first weights are forgotten.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, module in self._modules.items():
            torch._foreach_lerp_(self.weights[name], [p.detach() for p in module.parameters()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights."""
        for name, module in self._modules.items():
            for average, parameter in zip(self.weights[name], module.parameters(), strict=True):
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)


class Run:
    """One stage of training, which can be resumed.

    ``steps()`` continues from the state in the file ``path``, until the last step or the deadline.
    """

    def __init__(
        self,
        path: Path,
        modules: dict[str, nn.Module],
        *,
        optimizers: list[torch.optim.Optimizer],
        total: int,
        decay: float = 0.999,
        warm_up: int = 200,
        deadline: float = math.inf,
        writes: bool = True,
    ) -> None:
        self.path, self.modules, self.optimizers, self.total = path, modules, optimizers, total
        self.average = Averaged(modules, decay)
        self._rates = [[float(group["lr"]) for group in o.param_groups] for o in optimizers]
        self._warm_up, self._deadline, self._writes = warm_up, deadline, writes
        self.step = 0
        self.loss = math.nan
        """The mean of the last losses, for the model card."""
        if path.exists():
            self._load(torch.load(path, map_location="cpu", weights_only=True))

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.total

    def steps(self) -> Iterator[int]:
        """Yield the numbers of the steps.

        The learning rate rises for ``warm_up`` steps, then falls linearly to zero.
        """
        start = self.step
        begin = time.monotonic()
        while not self.finished and time.monotonic() < self._deadline:
            share = min(1.0, (self.step + 1) / self._warm_up) * (1 - self.step / self.total)
            for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    if isinstance(group["lr"], Tensor):
                        group["lr"].fill_(rate * share)
                    else:
                        group["lr"] = rate * share
            yield self.step
            self.average.update(self.step)
            self.step += 1
            if self._writes and (self.step % 1000 == 0 or self.finished):
                speed = (self.step - start) / (time.monotonic() - begin)
                print(f"{self.path.stem} {self.step}/{self.total} {speed:.1f} steps/s", flush=True)
        self.save()

    def save(self) -> None:
        """Write the state atomically."""
        if not self._writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "loss": self.loss,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "average": self.average.weights,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        draft = self.path.with_suffix(".draft")
        torch.save(state, draft)
        os.replace(draft, self.path)

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.loss = state["step"], state["loss"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            for own, saved in zip(self.average.weights[name], state["average"][name], strict=True):
                own.copy_(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            # On a GPU these are tensors that a graph reads.
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate


def load_average(path: Path, modules: dict[str, nn.Module]) -> None:
    """Load the averaged weights of a stage's state into ``modules``."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in modules.items():
        with torch.no_grad():
            for parameter, average in zip(module.parameters(), state["average"][name], strict=True):
                parameter.copy_(average)


def psnr(one: Tensor, other: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of two clips in [-1, 1]."""
    return -10 * math.log10(max(1e-10, ((one.float() - other.float()) / 2).square().mean().item()))
