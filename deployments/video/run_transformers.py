"""Selects the transformers of one request, for each forward pass and each of its devices."""

from collections.abc import Sequence
from typing import Any

import torch

from deployments.video.acceleration.choice import Accelerator
from deployments.video.loras import LoraStack
from deployments.video.memory.offload import WeightOffloader
from deployments.video.mode import Mode
from deployments.video.parallel.sequence import sequence_view
from deployments.video.parallel.team import Member, Team
from deployments.video.sampling.denoise import Seat
from deployments.video.sampling.guidance import Branch


class RunTransformers:
    """The transformers of one request; see ``Transformers``.

    Passes that several devices run together are split by their tokens, over ``most`` of them.
    """

    def __init__(
        self,
        mode: Mode,
        accelerator: Accelerator | None = None,
        offloader: WeightOffloader | None = None,
        *,
        most: int,
        loras: LoraStack | None = None,
    ) -> None:
        self._mode = mode
        self._most = most
        self._accelerator = accelerator
        self._offloader = offloader
        self._loras = loras
        self._teams: dict[range, Team] = {}
        self._views: dict[tuple[Any, Member], Any] = {}

    @property
    def devices(self) -> Sequence[torch.device]:
        """See ``Transformers``."""
        return self._mode.devices

    def phase(self, timestep: float) -> str:
        """See ``Transformers``."""
        return self._mode.part_at(timestep)

    def select(self, timestep: float, branch: Branch, *, alone: bool) -> Sequence[Seat]:
        """See ``Transformers``."""
        numbers = self._mode.team(branch, alone=alone, most=self._most)
        if len(numbers) == 1:
            return [Seat(numbers[0], self._accelerate(self._load(timestep, numbers[0]), branch))]
        if numbers not in self._teams:
            self._teams[numbers] = Team([self.devices[number] for number in numbers])
        seats = []
        for number, member in zip(numbers, self._teams[numbers].members, strict=True):
            view = self._view(self._load(timestep, number), member)
            seats.append(Seat(number, _TeamTransformer(self._accelerate(view, branch), member)))
        return seats

    def _load(self, timestep: float, number: int) -> Any:
        """Return a transformer with its weights on its device, and with the request's LoRAs."""
        transformer = self._mode.transformer_at(timestep, number)
        if self._offloader is not None and transformer in self._offloader:
            self._offloader.load(transformer)
        return transformer if self._loras is None else self._loras.view(self._mode.part_at(timestep), transformer)

    def _accelerate(self, transformer: Any, branch: Branch) -> Any:
        return transformer if self._accelerator is None else self._accelerator.view(transformer, branch)

    def _view(self, transformer: Any, member: Member) -> Any:
        """Return the view of ``member``, always the same one: accelerators tell them apart."""
        key = (transformer, member)
        if key not in self._views:
            self._views[key] = sequence_view(transformer, member)
        return self._views[key]


class _TeamTransformer:
    """A transformer whose failure ends the pass of the whole team."""

    def __init__(self, transformer: Any, member: Member) -> None:
        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        self._transformer = transformer
        self._member = member

    def __call__(self, **inputs: Any) -> Any:
        return self._member.run(lambda: self._transformer(**inputs))
