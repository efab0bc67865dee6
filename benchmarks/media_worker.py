"""`python -m benchmarks.media_worker`: what decoding in worker processes costs.

It decodes a portrait of 512x512 (JPEG) in a thread of this process and in a worker process, in
turn, and prints the difference: the hop. Then it decodes a large picture of each kind in a process
of its own and prints the most memory that this takes for each pixel, which
``serve/media/decode/claims.py`` states.
"""

import asyncio
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageCms

from serve.config import Limits, RunnerSettings
from serve.media.images import open_image, to_pixels
from serve.media.samples import PORTRAIT
from serve.pipelines.decoder import Decoder, Picture

ROUNDS, SIDE, LARGE_SIDE = 300, 512, 3000
# The profile of sRGB with red and green exchanged, so that every pixel is converted.
EXCHANGED = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"rXYZ", b"tXYZ")
EXCHANGED = EXCHANGED.replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", {}),
    "progressive JPEG": ("JPEG", "RGB", {"progressive": True}),
    "CMYK JPEG": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {"compress_level": 1}),
    "PNG with transparency": ("PNG", "RGBA", {"compress_level": 1}),
    "palette PNG with transparency": ("PNG", "P", {"transparency": 3}),
    "WebP": ("WEBP", "RGB", {"method": 0}),
    "lossless WebP with transparency": ("WEBP", "RGBA", {"lossless": True, "method": 0, "quality": 0}),
    "GIF": ("GIF", "P", {}),
    "AVIF with transparency": ("AVIF", "RGBA", {"speed": 10}),
    "HEIC with transparency": ("HEIF", "RGBA", {"quality": 50}),
    "PNG with transparency and a profile": ("PNG", "RGBA", {"compress_level": 1, "icc_profile": EXCHANGED}),
}


def main() -> None:
    """Print both measurements."""
    asyncio.run(measure_hop())
    with TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / "picture"
            path.write_bytes(large_picture(kind))
            print(f"{kind}: {memory_per_pixel(path):.1f} bytes for each pixel")


async def measure_hop() -> None:
    """Print how long a portrait takes in a thread and in a worker process."""
    buffer = io.BytesIO()
    PIL.Image.open(PORTRAIT).convert("RGB").resize((SIDE, SIDE)).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    decoder = Decoder(RunnerSettings(), Limits())
    start = time.perf_counter()
    await decoder.pool.warm_up()
    print(f"{len(decoder.pool.processes)} processes started in {time.perf_counter() - start:.2f} s")

    async def in_worker() -> None:
        async with decoder.pictures([Picture("source", data)], "caller"):
            pass

    async def in_thread() -> None:
        await asyncio.to_thread(lambda: to_pixels(open_image(data, 10**8)))

    times: dict[Callable[[], object], list[float]] = {in_thread: [], in_worker: []}
    for _ in range(ROUNDS):
        for way in (in_thread, in_worker):
            start = time.perf_counter()
            await way()
            times[way].append((time.perf_counter() - start) * 1000)
    for name, way in (("thread", in_thread), ("worker process", in_worker)):
        ordered = sorted(times[way])
        print(f"{name}: median {statistics.median(ordered):.2f} ms, fastest tenth {ordered[ROUNDS // 10]:.2f} ms")
    hop = statistics.median(times[in_worker]) - statistics.median(times[in_thread])
    print(f"hop: {hop:.2f} ms for a JPEG of {SIDE}x{SIDE}")
    decoder.pool.close()


def large_picture(kind: str) -> bytes:
    """Return a file of ``LARGE_SIDE`` x ``LARGE_SIDE`` pixels."""
    file_format, mode, options = KINDS[kind]
    noise = np.random.default_rng(0).integers(0, 255, (LARGE_SIDE // 8, LARGE_SIDE // 8, 4), np.uint8)
    image = PIL.Image.fromarray(noise).resize((LARGE_SIDE, LARGE_SIDE))
    if mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def memory_per_pixel(path: Path) -> float:
    """Return the peak memory of decoding ``path``, in bytes for each pixel."""
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1024 / LARGE_SIDE**2


_PEAK = """
import sys
import PIL.Image
from serve.media.images import open_image, to_pixels

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

PIL.Image.init()
data = open(sys.argv[1], "rb").read()
before = peak()
to_pixels(open_image(data, 10**9))
print(peak() - before)
"""

if __name__ == "__main__":
    main()
