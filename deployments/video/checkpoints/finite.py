"""Finds weights that are not finite numbers, by one pass over them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from deployments.errors import CheckpointRefused


def require_finite(where: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ``CheckpointRefused`` if one of ``tensors`` holds NaN or infinity.

    A model with such a weight makes black videos.
    """
    name = next(iter(not_finite(tensors)), None)
    if name is not None:
        raise CheckpointRefused(f"{where}: `{name}` holds NaN or infinity; the file is damaged, download it again")


def not_finite(tensors: Mapping[str, torch.Tensor]) -> Iterable[str]:
    """Yield the names of those of ``tensors`` that hold NaN or infinity.

    Their sums decide, which are computed on the tensors' devices and waited for together.
    """
    named = [(name, tensor) for name, tensor in tensors.items() if tensor.dtype.is_floating_point and not tensor.is_meta]
    sums = [tensor.sum(dtype=torch.float32) for _, tensor in named]
    by_device: dict[torch.device, list[int]] = {}
    for number, total in enumerate(sums):
        by_device.setdefault(total.device, []).append(number)
    for numbers in by_device.values():
        doubtful = torch.stack([sums[number] for number in numbers]).isfinite().logical_not().tolist()
        for number, is_doubtful in zip(numbers, doubtful, strict=True):
            # The sum of huge numbers may be infinite where each of them is not.
            if is_doubtful and not bool(named[number][1].isfinite().all()):
                yield named[number][0]
