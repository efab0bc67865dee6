"""Train the demo's models on a GPU: `python -m training FOLDER`.

Each stage keeps its state in FOLDER; running the command again resumes where it stopped.
`--minutes` ends a run early. `--stage` runs a single stage, so that a second GPU can run another
one. `torchrun --nproc-per-node N -m training` shares the stages `vae` and `latents` among N GPUs.
"""

import argparse
import math
import time
from pathlib import Path

import torch

from training.ranks import Ranks
from training.stages import STAGES, STEPS, run_stage


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the states of the stages")
    parser.add_argument("--stage", choices=STAGES, action="append", help="run only this stage; may be given several times")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time; a later run resumes")
    parser.add_argument("--steps-share", type=float, default=1.0, help="share of the usual steps to train, for a trial run")
    parser.add_argument(
        "--target", type=Path, default=Path("demo/models"), help="folder that the models and the LoRAs are written to"
    )
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    ranks = Ranks()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    options.folder.mkdir(parents=True, exist_ok=True)
    for stage in options.stage or STAGES:
        steps = math.ceil(STEPS.get(stage, 0) * options.steps_share)
        start = time.monotonic()
        finished = run_stage(stage, options.folder, ranks, steps=steps, deadline=deadline, target=options.target)
        if ranks.rank == 0:
            print(f"{stage}: {'finished' if finished else 'stopped'} after {time.monotonic() - start:.0f} s", flush=True)
        if not finished:
            break
    ranks.close()


if __name__ == "__main__":
    main()
