"""Shares training steps among the processes of `torchrun`, one for each GPU.

In a single process this module has no effect.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist


class Ranks:
    """The processes that train together; each works on its own part of a batch."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.count > 1:
            dist.init_process_group("nccl" if cuda else "gloo")

    def average(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients]) / self.count
        dist.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def close(self) -> None:
        """Leave the process group."""
        if self.count > 1:
            dist.destroy_process_group()
