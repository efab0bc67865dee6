"""`python -m benchmarks.side_by_side [SPINS ...]`: two engines of the demo at a time on two cores.

For each `GOMP_SPINCOUNT`, the number of turns for which waiting threads of PyTorch spin before they
sleep, it prints the seconds of a video by one process alone, and by two processes at a time. The
word `default` leaves the variable out. `ryla serve` and the chart set 1000.
"""

import os
import subprocess
import sys
import time
from statistics import mean

from benchmarks.questions import make
from demo.checkpoints import wan26_models
from deployments.settings import Wan26Settings
from deployments.video.build import build_wan26

VIDEOS = 3
"""Videos of each process that count. The one before them warms up."""


def main() -> None:
    """Measure with each number of turns."""
    words = sys.argv[1:]
    if words == ["--engine"]:
        print(*_make_videos())
        return
    for spins in words or ["default", "1000"]:
        alone, both = (mean(_run(spins, processes=count)) for count in (1, 2))
        print(f"GOMP_SPINCOUNT {spins}: alone {alone:.2f} s, two at a time {both:.2f} s", flush=True)


def _run(spins: str, *, processes: int) -> list[float]:
    """Return the seconds of each video of ``processes`` that run at a time."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    if spins != "default":
        environment["GOMP_SPINCOUNT"] = spins
    command = [sys.executable, "-m", "benchmarks.side_by_side", "--engine"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("an engine failed")
    return [float(seconds) for text in printed for seconds in text.split()]


def _make_videos() -> list[float]:
    engine = build_wan26(Wan26Settings(device="cpu"), wan26_models())
    seconds = []
    for _ in range(VIDEOS + 1):
        begun = time.monotonic()
        make(engine, "a red circle moves right", seed=3)
        seconds.append(time.monotonic() - begun)
    return seconds[1:]


if __name__ == "__main__":
    main()
