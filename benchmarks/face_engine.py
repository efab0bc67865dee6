"""`python -m benchmarks.face_engine [--device cuda] [--frames 33] [--concurrency 2]`: the production face engine on graphs of full size.

The graphs have the published architectures and signatures and random weights (benchmarks/face_graphs.py), so the detector's finds mean
nothing: it runs, and then one face a frame is put in its place. All else is the service's own: recognition, swap, restoration, paste.

frames: 832x480, from frames in memory to frames in memory, chunks of four, ``--concurrency`` of them at a time.
film: 1080p, from MP4 to MP4: decoding and encoding in threads of their own, as in the service.
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
from deployments.faces.analysis import InsightFaceAnalyser
from deployments.faces.engine import FaceEngine
from deployments.faces.paste import ARCFACE
from deployments.faces.restore import OnnxRestorer
from deployments.faces.swap import InSwapper
from deployments.settings import FaceSettings
from deployments.wire import Frames, Reference, SwapOptions
from serve.media.decode import CHUNK, SourceLimits, open_source
from serve.media.encode import Mp4Encoder
from serve.samples import group, portrait

FACE_SIDE = 200
"""Pixels of the face in a frame."""


class Injected:
    """A detector that looks, and then says that there is one face in the middle."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def detect(self, image: Any, **options: Any) -> tuple[Any, Any]:
        """Boxes and landmarks, as insightface's detectors give them."""
        self._model.detect(image, **options)
        height, width = image.shape[:2]
        corner = np.array([(width - FACE_SIDE) / 2, (height - FACE_SIDE) / 2])
        box = np.array([[*corner, *(corner + FACE_SIDE), 0.9]], np.float32)
        return box, (ARCFACE / 112 * FACE_SIDE + corner)[None].astype(np.float32)


def unwatched() -> None:
    """No one stops these."""


def build(folder: Path, device: str) -> FaceEngine:
    """The production engine over the written graphs."""
    files = {name: path for name, (path, _, _) in face_graphs.write(folder).items()}
    settings, cuda = FaceSettings(device=device, detection_threshold=0.99), device == "cuda"
    analyser = InsightFaceAnalyser(folder / "buffalo_l", settings, cuda)
    analysis: Any = analyser._analysis
    analysis.det_model = Injected(analysis.det_model)
    swapper = InSwapper(files["inswapper_128"], settings, cuda)
    return FaceEngine(analyser, swapper, OnnxRestorer("gfpgan", files["GFPGANv1.4"], settings, cuda))


class Swap:
    """One chunk after another through the engine."""

    def __init__(self, engine: FaceEngine, reference: Reference) -> None:
        self._engine = engine
        self._reference = reference
        self.seconds = {"analyse": 0.0, "swap": 0.0}

    def __call__(self, frames: Frames) -> Frames:
        """The frames with the faces replaced."""
        begun = time.perf_counter()
        faces = self._engine.analyse(frames, unwatched)
        looked = time.perf_counter()
        result = self._engine.swap(frames, faces, self._reference, SwapOptions(), unwatched)
        self.seconds["analyse"] += looked - begun
        self.seconds["swap"] += time.perf_counter() - looked
        return result


def picture(width: int, height: int) -> Frames:
    """One frame."""
    return np.asarray(cv2.resize(group(), (width, height), interpolation=cv2.INTER_CUBIC))


def measure_frames(swap: Swap, count: int, concurrency: int) -> None:
    """Prints frames a second at 832x480."""
    chunks = [np.stack([picture(832, 480)] * min(CHUNK, count - i)) for i in range(0, count, CHUNK)]
    swap(chunks[0])
    swap.seconds = dict.fromkeys(swap.seconds, 0.0)
    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as threads:
        done = [*threads.map(swap, chunks)]
    seconds = time.perf_counter() - begun
    assert sum(len(frames) for frames in done) == count
    assert all((frames != chunk).any() for frames, chunk in zip(done, chunks, strict=True))
    parts = ", ".join(f"{name} {spent / count * 1000:.1f} ms" for name, spent in swap.seconds.items())
    print(f"832x480, {count} frames: {count / seconds:.1f} frames/s; of a thread's time a frame: {parts}")


def film(count: int) -> bytes:
    """1080p, H.264."""
    frame = picture(2000, 1160)
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
    """Prints frames a second at 1080p, from MP4 to MP4."""
    data = film(count)
    begun = time.perf_counter()
    source = open_source(data, SourceLimits(frames=count, seconds=count, pixels=1920 * 1080))
    encoder = Mp4Encoder(source.fps, "veryfast", 18)
    chunks = source.chunks()
    with ThreadPoolExecutor(1) as decoder, ThreadPoolExecutor(concurrency) as threads, ThreadPoolExecutor(1) as writer:

        def ahead() -> Iterator[Any]:
            """Each chunk and its swap, which is under way; a few more than there are threads."""
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
    print(f"1920x1080, {count} frames, MP4 to MP4 ({size / 1e6:.1f} MB): {count / seconds:.1f} frames/s")


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--concurrency", type=int, default=2)
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {options.device}, {options.concurrency} chunks at a time")
    with tempfile.TemporaryDirectory() as folder:
        engine = build(Path(folder), options.device)
        reference = engine.identify([portrait()], "face", unwatched)
        swap = Swap(engine, reference)
        measure_frames(swap, options.frames, options.concurrency)
        measure_film(swap, 8 * options.frames if options.device == "cuda" else options.frames, options.concurrency)


if __name__ == "__main__":
    main()
