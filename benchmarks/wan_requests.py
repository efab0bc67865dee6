"""`python -m benchmarks.wan_requests`: whole requests of 4 steps, on one GPU and on all of them.

The models have full size and random weights. A request ends with the bytes of an MP4, which another
thread encodes as the ingress does; what HTTP and Ray add is not in the figures. Requests with
guidance have a negative prompt, and those without are what a distilled model runs.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.wan_checkpoints import Checkpoints
from benchmarks.wan_measurement import full_request, image_request, settle
from benchmarks.wan_sinks import Cancelling, Encoding
from deployments.errors import Cancelled
from deployments.settings import Wan22Settings, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import VideoRequest

ROUNDS = 2


def measure(name: str, engine: WanEngine, request: VideoRequest) -> float:
    """Print the times of ``request`` and return the seconds of the whole."""
    best = float("inf")
    for number in range(ROUNDS + 1):
        sink = Encoding()
        begun = time.perf_counter()
        # Another prompt each time, so that the text encoder runs.
        finished = engine.generate(replace(request, prompt=f"a cat {number}"), sink)
        sink.finish()
        end = time.perf_counter()
        if not number or end - begun >= best:  # the first one compiles
            continue
        best, last, chunks = end - begun, sink.times["denoise"][-1], sink.times["chunk"]
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in finished.seconds.items())
        line = (
            f"{name}: {best:.2f} s to MP4 ({stages}); after the last step: first chunk {1000 * (chunks[0] - last):.0f} ms, "
            f"last chunk {1000 * (chunks[-1] - last):.0f} ms, MP4 {1000 * (end - last):.0f} ms"
        )
    print(line, flush=True)
    return best


def measure_cancel(name: str, engine: WanEngine, request: VideoRequest, step: float) -> None:
    """Print how long all GPUs work on after a request is cancelled, in steps."""
    waits = []
    for delay in (0.5 * step, 1.25 * step, 2.5 * step):
        sink = Cancelling("denoise", delay)
        try:
            engine.generate(request, sink)
        except Cancelled:
            for number in range(torch.cuda.device_count()):
                torch.cuda.synchronize(number)
            waits.append(time.perf_counter() - sink.left)
    print(f"{name}: cancelled, until all GPUs are idle: {max(waits) / step:.2f} steps at most", flush=True)


def main() -> None:
    """Print a line for each request and number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder for the checkpoints, which is kept; default: a temporary one")
    options = parser.parse_args()
    count = torch.cuda.device_count()
    print(f"{count} x {torch.cuda.get_device_name()}, torch {torch.__version__}, 832x480, 4 steps", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints = Checkpoints(options.folder or Path(temporary))
        small, large = checkpoints.wan26, checkpoints.wan22
        whole: dict[str, float] = {}
        for spread, gpus in (("none", "1 GPU"), ("guidance", f"{count} GPUs"))[: 1 + (count > 1)]:
            for model in ("1.3B", "A14B"):
                settle()
                is_small = model == "1.3B"
                engine = (
                    build_wan26(Wan26Settings(device="cuda", spread=spread), small)
                    if is_small
                    else build_wan22(Wan22Settings(device="cuda", spread=spread), large)
                )
                print(f"{model}: {engine.hardware}", flush=True)
                for frames in (33, 81):
                    request = full_request(frames=frames, steps=4) if is_small else image_request(frames, 4)
                    for kind, asked in (
                        ("guided", replace(request, negative_prompt="blurred")),
                        ("unguided", replace(request, cfg=1.0)),
                    ):
                        name = f"{model}, {frames} frames, {kind}"
                        seconds = measure(f"{name}, {gpus}", engine, asked)
                        if name in whole:
                            print(f"{name}: {whole[name] / seconds:.2f} times as fast on {gpus}", flush=True)
                        whole.setdefault(name, seconds)
                if spread != "none":
                    sink = Encoding()
                    engine.generate(replace(asked, steps=6), sink)
                    sink.finish()
                    measure_cancel(name, engine, replace(asked, steps=6), sink.step)
                del engine


if __name__ == "__main__":
    main()
