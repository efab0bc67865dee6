"""The memory of one GPU."""

import torch

from deployments.video.memory.plan import GIB


class GpuMemory:
    """The memory of one GPU that this process may use; ``limit_gib`` caps it."""

    def __init__(self, device: torch.device, limit_gib: float | None) -> None:
        self.device = device
        self.name = torch.cuda.get_device_name(device)
        self._total = torch.cuda.mem_get_info(device)[1]
        self._limit = self._total
        if limit_gib is not None:
            self._limit = min(self._total, int(limit_gib * GIB))
            # set_per_process_memory_fraction refuses a device without an index.
            index = torch.cuda.current_device() if device.index is None else device.index
            torch.cuda.set_per_process_memory_fraction(self._limit / self._total, index)

    def free_bytes(self) -> int:
        """Return the bytes that this process can still allocate."""
        allocated, reserved = torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device)
        return min(torch.cuda.mem_get_info(self.device)[0] + reserved - allocated, self._limit - allocated)

    def reserved_bytes(self) -> int:
        """Return the bytes that this process has reserved."""
        return int(torch.cuda.memory_reserved(self.device))

    def __str__(self) -> str:
        used = torch.cuda.memory_allocated(self.device)
        return f"{self.name}, {used / GIB:.1f} of {self._limit / GIB:.1f} GiB"
