"""`python -m benchmarks.full_size`: Wan 1.3B at full size through our loader and engine, on a GPU.

Writes a text-to-video folder of the published architecture (Wan2.1-T2V-1.3B, random bf16 weights; the text encoder is cut to two
layers) into a temporary folder, loads it as production would, and generates 832x480x33. Times do not depend on the weights' values.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from demo.checkpoints import demo_checkpoints
from demo.training.pack import make_scheduler
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video.wan import build_wan26
from deployments.wire import FrameChunk, Progress, VideoRequest

STEPS = 10
TRANSFORMER: dict[str, Any] = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}


class Timer:
    """A sink that notes when events come."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"denoise": [], "chunk": []}

    def progress(self, progress: Progress) -> None:
        """See Sink."""
        if progress.stage == "denoise":
            self.times["denoise"].append(time.perf_counter())

    def ready(self) -> None:
        """See Sink."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""
        assert chunk.frames.shape[1:] == (480, 832, 3)
        self.times["chunk"].append(time.perf_counter())


def write(folder: Path) -> None:
    """The checkpoint, in diffusers' layout."""
    config = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=2, num_heads=64)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        parts = {"transformer": WanTransformer3DModel(**TRANSFORMER), "text_encoder": UMT5EncoderModel(config)}
        torch.set_default_dtype(torch.float32)
        parts["vae"] = AutoencoderKLWan()
    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoints().vace / "tokenizer")
    WanPipeline(tokenizer=tokenizer, scheduler=make_scheduler(8.0), **parts).save_pretrained(folder)


def main() -> None:
    """Prints the table."""
    request = VideoRequest("a cat", "", 832, 480, 33, STEPS, 6.0, 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder)
        torch.cuda.empty_cache()
        start = time.perf_counter()
        engine = build_wan26(Wan26Settings(device="cuda"), Wan26Models(text=str(folder)))
        loaded = time.perf_counter() - start
    engine.generate(request, Timer())
    timer = Timer()
    finished = engine.generate(request, timer)
    steps, chunks = timer.times["denoise"], timer.times["chunk"]
    seconds = [b - a for a, b in itertools.pairwise(steps)]
    gaps = [b - a for a, b in itertools.pairwise(chunks)]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: Wan 1.3B, 832x480x33, cfg on, {STEPS} steps")
    print(f"load (page cache warm)                 {loaded:8.2f} s")
    print(f"one denoise step (two forwards)        {statistics.median(seconds) * 1000:8.0f} ms")
    print(f"first frame after the last step        {(chunks[0] - steps[-1]) * 1000:8.0f} ms")
    print(f"then 4 frames every                    {statistics.median(gaps) * 1000:8.0f} ms (VAE in float32)")
    print(f"stages (s)                             { ({k: round(v, 2) for k, v in finished.seconds.items()}) }")
    print(f"memory at its peak                     {torch.cuda.max_memory_allocated() / 2**30:8.1f} GiB")
    again = engine.latents(request, Timer())
    print(f"same seed, same latents                {bool(torch.equal(again, engine.latents(request, Timer())))}")


if __name__ == "__main__":
    main()
