"""`python -m demo.train FOLDER`: trains the demo's models on a GPU, stage by stage; run again, it goes on where it was.

Each stage keeps its state in FOLDER. `--minutes` ends a call early; `--stage` runs one stage, so that a second GPU can run another;
`torchrun --nproc-per-node N -m demo.train` shares the stages `vae` and `latents` among N GPUs.
"""

import argparse
import math
import time
from functools import cache
from pathlib import Path

import torch

from demo.checkpoints import DemoCheckpoints
from demo.training.causal import unroll
from demo.training.distil import distil_wan22, distil_wan26
from demo.training.latents import BUCKETS, encode_bucket, save
from demo.training.pack import pack, write_statistics
from demo.training.ranks import Ranks
from demo.training.run import load_average
from demo.training.transformers import BOUNDARY, Data, train_image_model, train_vace
from demo.training.vae import make_vae, train_vae

STEPS = {"vae": 8_000, "wan26": 24_000, "trunk": 10_000, "low": 12_000, "high": 6_000, "distil26": 3_000, "distil22": 3_000}
STAGES = ("vae", "latents", "wan26", "trunk", "low", "high", "pack", "distil26", "distil22")


def run_stage(stage: str, folder: Path, ranks: Ranks, steps: int, deadline: float, target: Path) -> bool:
    """One stage; True when it is finished."""
    state = folder / f"{stage}.pt"
    if stage == "vae":
        return train_vae(state, steps, ranks, deadline)
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
        return distil(state, DemoCheckpoints(target), ranks.device, steps, deadline)
    data = _data(folder / "latents", ranks.device)
    write_statistics(folder, data.mean, data.std, data.tokenizer)
    if stage == "wan26":
        return train_vace(state, data, steps, deadline)
    start = None if stage == "trunk" else folder / "trunk.pt"
    low, high = {"trunk": (0.0, 1.0), "low": (0.0, BOUNDARY), "high": (BOUNDARY, 1.0)}[stage]
    return train_image_model(state, data, steps, deadline, start=start, low=low, high=high)


@cache
def _data(folder: Path, device: torch.device) -> Data:
    return Data(folder, device)


def _encode(folder: Path, ranks: Ranks) -> None:
    vae = make_vae().to(ranks.device)
    load_average(folder / "vae.pt", {"vae": vae})
    unroll(vae)
    for number, bucket in enumerate(BUCKETS):
        if not (folder / "latents" / f"{number}-{ranks.rank}.pt").exists():
            save(
                folder / "latents",
                number,
                ranks.rank,
                encode_bucket(vae, bucket, number, ranks.rank, ranks.count, ranks.device),
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the states of the stages are kept")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this stage; may be given several times")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time, to go on in another call")
    parser.add_argument("--steps-share", type=float, default=1.0, help="train this share of the usual steps, for a trial")
    parser.add_argument(
        "--target", type=Path, default=Path("demo/models"), help="where `pack` writes the models, and the others theirs"
    )
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    ranks = Ranks()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    options.folder.mkdir(parents=True, exist_ok=True)
    for stage in options.stage or STAGES:
        steps = math.ceil(STEPS.get(stage, 0) * options.steps_share)
        begun = time.monotonic()
        finished = run_stage(stage, options.folder, ranks, steps, deadline, options.target)
        if ranks.rank == 0:
            print(f"{stage}: {'finished' if finished else 'stopped'} after {time.monotonic() - begun:.0f} s", flush=True)
        if not finished:
            break
    ranks.close()


if __name__ == "__main__":
    main()
