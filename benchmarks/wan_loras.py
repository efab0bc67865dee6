"""`python -m benchmarks.wan_loras`: what LoRAs by request cost at full size on a GPU.

Weights and LoRAs are random, since times do not depend on their values. A LoRA of rank 64 changes
every linear layer in the blocks of Wan 1.3B, or a pair of them those of both experts of A14B
(`--model a14b`). It is loaded once, and then a request only makes its copy of the layers.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.wan_checkpoints import Checkpoints, write_lora
from benchmarks.wan_measurement import IMAGE, STEPS, Row, full_request, run_request
from benchmarks.wan_sinks import Timer
from deployments.replica.collector import spare_loaded
from deployments.settings import Size, Wan22Settings, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import LoraChoice, VideoRequest

NAMES = ("one", "two", "three", "four")
RANK = 64
LARGE_STEPS = 8
"""Steps of A14B: each takes long, and all are alike."""
ALTERNATIONS = 100


def asking(request: VideoRequest, *names: str) -> VideoRequest:
    """Return ``request`` with these LoRAs."""
    return replace(request, loras=tuple(LoraChoice(name, 0.8) for name in names))


def denoise_seconds(engine: WanEngine, request: VideoRequest) -> float:
    """Return the shortest time of the denoise stage in three runs, per step."""
    times = []
    for _ in range(3):
        run = engine.start(request, Timer())
        engine.sample(run)
        torch.cuda.synchronize()
        times.append(run.clock.seconds["denoise"])
    return min(times) / request.steps


def small_engine(checkpoints: Checkpoints, loras: Path) -> WanEngine:
    """Return Wan 1.3B, with a LoRA in ``loras`` for each of the names."""
    models = checkpoints.wan26
    for name in NAMES:
        write_lora(loras / f"{name}.safetensors", Path(models.text) / "transformer", RANK)
    return build_wan26(Wan26Settings(device="cuda", warm_up=(Size(),)), models.model_copy(update={"loras": str(loras)}))


def large_engine(checkpoints: Checkpoints, loras: Path) -> WanEngine:
    """Return Wan 2.2 A14B, with a pair of LoRAs in ``loras`` for each of the names."""
    models = checkpoints.wan22
    for name in NAMES:
        for expert in ("high", "low"):
            write_lora(loras / f"{name}_{expert}_noise.safetensors", Path(models.folder) / "transformer", RANK)
    return build_wan22(Wan22Settings(device="cuda", warm_up=(Size(),)), models.model_copy(update={"loras": str(loras)}))


def measure(folder: Path, *, is_large: bool) -> Iterator[Row]:
    """Measure loading, switching, steps, and that the model without LoRAs stays the same."""
    loras = folder / "loras"
    loras.mkdir(exist_ok=True)
    engine = (large_engine if is_large else small_engine)(Checkpoints(folder), loras)
    request = full_request(steps=LARGE_STEPS, image=IMAGE) if is_large else full_request()
    mode = engine.image_mode if is_large else engine.text_mode
    assert mode is not None
    yield "placement", "", engine.plan
    plain = denoise_seconds(engine, request)
    yield "a step without LoRAs", "", f"{plain * 1000:.1f} ms"
    for names, bar in ((NAMES[:1], 10), (NAMES, 25)):
        more = denoise_seconds(engine, asking(request, *names)) / plain - 1
        yield f"a step with {len(names)} of rank {RANK}", f"<= {bar} % longer", f"{100 * more:.1f} % longer"
    spare_loaded()  # as a replica does
    seconds = []
    for number in range(20):
        stack = engine.loras.choose([LoraChoice(NAMES[number % 3])], experts=len(mode.transformers))
        assert stack is not None
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for part, transformer in mode.transformers.items():
            stack.view(part, transformer)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    yield "another LoRA that is loaded", "<= 50 ms", f"{1000 * min(seconds):.1f} to {1000 * max(seconds):.1f} ms"
    short = replace(request, width=320, height=192, num_frames=5, steps=2)
    before = engine.sample(engine.start(short, Timer()))
    for number in range(ALTERNATIONS):
        run_request(engine, asking(short, NAMES[number % 3]))
    after = engine.sample(engine.start(short, Timer()))
    yield f"latents without LoRAs after {ALTERNATIONS} requests with three", "equal", str(torch.equal(before, after))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["1.3b", "a14b"], default="1.3b")
    is_large = parser.parse_args().model == "a14b"
    print(f"{torch.cuda.get_device_name()}, 832x480, 33 frames, {LARGE_STEPS if is_large else STEPS} steps")
    with tempfile.TemporaryDirectory() as folder:
        for what, bar, value in measure(Path(folder), is_large=is_large):
            print(f"| {what} | {bar} | {value} |", flush=True)


if __name__ == "__main__":
    main()
