"""The stages of training, in order; each keeps its state in a file so that it can be resumed."""

from functools import cache, partial
from pathlib import Path

import torch

from demo.checkpoints import DemoCheckpoints
from training.causal import unroll
from training.distil import distil_wan22, distil_wan26
from training.latents import ENCODED, encode_bucket, save
from training.pack import pack, write_statistics
from training.ranks import Ranks
from training.run import load_average
from training.transformers import BOUNDARY, RATE, Data, train_image_model, train_vace
from training.vae import make_vae, train_vae

STEPS = {
    "vae": 8_000,
    "wan26": 24_000,
    "people": 30_000,
    "trunk": 10_000,
    "low": 12_000,
    "high": 6_000,
    "large": 10_000,
    "large-low": 6_000,
    "large-high": 3_000,
    "distil26": 3_000,
    "distil22": 3_000,
}
"""The number of training steps of each stage that has any."""
SHARE_OF_PHOTOGRAPHS = {"wan26": 0.0, "people": 0.4, "large": 0.3}
"""The share of the captions in these stages whose clips of the usual size are ``PHOTOGRAPHS``."""
RATE_OF_LARGE = 0.7e-3
"""The learning rate of the stage `large`, which is to keep what the stages before it have learned.
"""
STAGES = (
    "vae",
    "latents",
    "wan26",
    "people",
    "large",
    "trunk",
    "low",
    "high",
    "large-low",
    "large-high",
    "pack",
    "distil26",
    "distil22",
)
RANGES = {"trunk": (0.0, 1.0), "low": (0.0, BOUNDARY), "high": (BOUNDARY, 1.0)}
"""The times on which each image-to-video model is trained."""


def run_stage(stage: str, folder: Path, ranks: Ranks, *, steps: int, deadline: float, target: Path) -> bool:
    """Run or resume one stage; return True when it is finished.

    ``folder`` holds the states of all stages, ``target`` the packed models. ``deadline`` is a time
    of ``time.monotonic``.
    """
    state = folder / f"{stage}.pt"
    if stage == "vae":
        return train_vae(state, steps, ranks=ranks, deadline=deadline)
    if stage == "latents":
        _encode(folder, ranks)
        return True
    if ranks.rank > 0:
        return True
    if stage == "pack":
        pack(folder, target)
        return True
    if stage.startswith("distil"):
        distil = distil_wan26 if stage == "distil26" else distil_wan22
        return distil(state, DemoCheckpoints(target), device=ranks.device, total=steps, deadline=deadline)
    data = _data(folder / "latents", ranks.device)
    write_statistics(folder, mean=data.mean, std=data.std, tokenizer=data.tokenizer)
    large = stage.startswith("large")
    if stage in ("wan26", "people", "large"):
        before = {"wan26": None, "people": folder / "wan26.pt", "large": folder / "people.pt"}[stage]
        photographs, rate = SHARE_OF_PHOTOGRAPHS[stage], RATE_OF_LARGE if large else RATE
        run = partial(train_vace, state, data, total=steps, deadline=deadline)
        return run(start=before, photographs=photographs, large=large, rate=rate)
    part = stage.removeprefix("large-")
    start = None if part == "trunk" else folder / (f"{part}.pt" if large else "trunk.pt")
    low, high = RANGES[part]
    return train_image_model(state, data, total=steps, deadline=deadline, start=start, low=low, high=high, large=large)


@cache
def _data(folder: Path, device: torch.device) -> Data:
    return Data(folder, device)


def _encode(folder: Path, ranks: Ranks) -> None:
    vae = make_vae().to(ranks.device)
    load_average(folder / "vae.pt", {"vae": vae})
    unroll(vae)
    for number, bucket in enumerate(ENCODED):
        if not (folder / "latents" / f"{number}-{ranks.rank}.pt").exists():
            latents = encode_bucket(vae, bucket, number=number, rank=ranks.rank, ranks=ranks.count, device=ranks.device)
            save(folder / "latents", latents, number=number, rank=ranks.rank)
