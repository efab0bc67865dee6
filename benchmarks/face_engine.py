"""`python -m benchmarks.face_engine [--device cuda]`: the production face engine at full size.

The ONNX graphs have the published architectures and signatures and random weights
(benchmarks/face_graphs.py). The detector finds one face per frame, a quarter of the frame's width.
Detection, recognition, swap, restoration and paste are the service's own.

frames: 832x480, from frames in memory to frames in memory, in chunks of four, of which
``--concurrency`` run at a time.
film: 1080p, from MP4 to MP4, with threads for decoding and encoding as in the service.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime
from av.video.frame import VideoFrame

from benchmarks import face_graphs
from deployments.faces.engine import FaceEngine, build_face_engine
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Frames, Reference, SwapOptions
from serve.media.decode.opening import open_source
from serve.media.decode.source import CHUNK, SourceLimits
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import group, portrait


def unwatched() -> None:
    """A check that never stops the engine."""


def build(folder: Path, device: str, *, graphs: bool) -> FaceEngine:
    """Write the graphs and build the production engine on them."""
    files = {name: path for name, (path, _, _) in face_graphs.write(folder).items()}
    settings = FaceSettings(device=device, cuda_graphs=graphs)
    models = FaceModels(analysis=folder / "buffalo_l", swapper=files["inswapper_128"], gfpgan=files["GFPGANv1.4"])
    return build_face_engine(settings, models, use_cuda=device == "cuda")


class Swap:
    """Runs chunks through the engine, and adds up the time of each stage."""

    def __init__(self, engine: FaceEngine, reference: Reference) -> None:
        self._engine = engine
        self._reference = reference
        self.seconds = {"analyse": 0.0, "swap": 0.0}

    def __call__(self, frames: Frames) -> Frames:
        """Return the frames with their faces replaced."""
        start = time.perf_counter()
        faces = self._engine.analyse(frames, unwatched)
        analysed = time.perf_counter()
        result = self._engine.swap(frames, faces, reference=self._reference, options=SwapOptions(), check=unwatched)
        self.seconds["analyse"] += analysed - start
        self.seconds["swap"] += time.perf_counter() - analysed
        return result


def photograph(width: int, height: int) -> Frames:
    """Return a frame of this size."""
    return np.asarray(cv2.resize(group(), (width, height), interpolation=cv2.INTER_CUBIC))


def measure_frames(swap: Swap, count: int, concurrency: int) -> None:
    """Print the frames per second at 832x480."""
    chunks = [np.stack([photograph(832, 480)] * min(CHUNK, count - i)) for i in range(0, count, CHUNK)]
    swap(chunks[0])
    swap.seconds = dict.fromkeys(swap.seconds, 0.0)
    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as threads:
        swapped = [*threads.map(swap, chunks)]
    seconds = time.perf_counter() - begun
    assert sum(len(frames) for frames in swapped) == count
    assert all((frames != chunk).any() for frames, chunk in zip(swapped, chunks, strict=True))
    parts = ", ".join(f"{name} {spent / count * 1000:.1f} ms" for name, spent in swap.seconds.items())
    print(
        f"832x480, {count} frames, {concurrency} chunks at a time: {count / seconds:.1f} frames/s; a thread's time per frame: {parts}"
    )


def film(count: int) -> bytes:
    """Return a 1080p MP4 in H.264."""
    frame = photograph(2000, 1160)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for i in range(count):
            moved = np.ascontiguousarray(frame[i % 80 : i % 80 + 1080, i % 80 : i % 80 + 1920])
            container.mux(stream.encode(VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def measure_film(swap: Swap, count: int, concurrency: int) -> None:
    """Print the frames per second at 1080p, from MP4 to MP4."""
    data = film(count)
    begun = time.perf_counter()
    source = open_source(data, SourceLimits(frames=count, seconds=count, pixels=1920 * 1080))
    encoder = Mp4Encoder(source.fps, "veryfast", 18)
    chunks = source.chunks()
    with ThreadPoolExecutor(1) as decoder, ThreadPoolExecutor(concurrency) as threads, ThreadPoolExecutor(1) as writer:

        def ahead() -> Iterator[Any]:
            """Yield each chunk with its swap, with a few more swaps started than threads."""
            waiting = []
            while (chunk := decoder.submit(next, chunks, None).result()) is not None:
                waiting.append((chunk, threads.submit(swap, chunk.frames)))
                if len(waiting) > 2 * concurrency:
                    yield waiting.pop(0)
            yield from waiting

        writes = [writer.submit(encoder.add, swapped.result(), chunk.times) for chunk, swapped in ahead()]
        for write in writes:
            write.result()
    size = encoder.close().size
    seconds = time.perf_counter() - begun
    print(
        f"1920x1080, {count} frames, {concurrency} at a time, MP4 to MP4 ({size / 1e6:.1f} MB): {count / seconds:.1f} frames/s"
    )


def main() -> None:
    """Measure frames and film; on CUDA with and without CUDA graphs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for graphs in (True, False) if options.device == "cuda" else (False,):
            begun = time.perf_counter()
            engine = build(Path(folder), options.device, graphs=graphs)
            kind = "CUDA graphs" if graphs else "node by node"
            seconds = time.perf_counter() - begun
            print(f"onnxruntime {onnxruntime.__version__}, {options.device}, {kind}: written and loaded in {seconds:.1f} s")
            swap = Swap(engine, engine.identify([portrait()], "face", unwatched))
            for concurrency in options.concurrency:
                measure_frames(swap, options.frames, concurrency)
                measure_film(swap, 8 * options.frames if options.device == "cuda" else options.frames, concurrency)


if __name__ == "__main__":
    main()
