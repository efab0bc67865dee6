"""`python -m benchmarks.faces [paste] [steady] [people] [long]`: speed and quality of face swaps.

paste: insightface's ``paste_back`` and ours, with the same new face in the same image, up to 4K.
steady: how much landmarks jitter, frame by frame and tracked, for a face at rest, in a pan, and for
one that starts and stops.
people: three people in every frame, replaced by one new face and by three, in turns; CPU time of
one thread, so that it can be told on a busy machine.
long: the memory of each process of a running demo over a 1080p video of ``--minutes``, which is
uploaded from disk and whose result is written to disk. Faces are detected in every 8th frame, so
that a CPU can keep up.
"""

import argparse
import contextlib
import functools
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import httpx
import numpy as np
import psutil
import yaml
from av.video.frame import VideoFrame
from insightface.model_zoo.inswapper import INSwapper

from demo.face_models import face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.faces.compositing.alignment import ARCFACE, align
from deployments.faces.compositing.paste import paste, sharp_box_mask
from deployments.faces.engine import build_face_engine
from deployments.faces.tracking.choice import Chooser
from deployments.faces.tracking.tracks import Tracker
from deployments.settings import FaceSettings, Tracking
from deployments.wire import Choice, Face, Image, References, SwapOptions
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.media.samples import PORTRAIT, group, portrait, stranger

ROUNDS = 7
NOISE = 12
"""The standard deviation of the sensor noise, of 255."""


def unwatched() -> None:
    """A check that never stops the engine."""


def analyser() -> OpenCVAnalyser:
    """Return the analyser of the demo."""
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median time of ``work`` over several rounds, after a warm-up."""
    work()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


class FixedSession:
    """An onnxruntime session with a fixed output.

    With it, ``INSwapper.get`` only crops and pastes.
    """

    def __init__(self, output: Any) -> None:
        self._output = output

    def run(self, *_: object) -> list[Any]:
        """Return the output."""
        return [self._output]


def insightface_swapper(pixels: Image) -> Any:
    """Return insightface's swapper with the new face ``pixels`` (RGB, 128x128) as its output."""
    model = INSwapper.__new__(INSwapper)
    model.session = FixedSession(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    model.emap = np.eye(512, dtype=np.float32)
    model.input_size, model.input_std, model.input_mean = (128, 128), 255.0, 0.0
    model.input_names, model.output_names = ["target", "source"], ["output"]
    return model


def measure_paste() -> None:
    """Print a table that compares both pastes."""
    print(
        f"{'image':12}{'insightface':>14}{'ours':>10}{'times':>8}{'PSNR in the face':>20}   (milliseconds, median of {ROUNDS})"
    )
    for width, height in ((832, 480), (1920, 1080), (3840, 2160)):
        frame = cv2.resize(group(), (width, height), interpolation=cv2.INTER_CUBIC)
        face = analyser().faces([frame])[0][0]
        matrix = align(face.landmarks, ARCFACE + np.array([8, 0]))
        crop = cv2.warpAffine(frame, matrix, (128, 128))
        pixels = np.asarray(
            np.clip(crop[:, ::-1] * 0.8 + 20, 0, 255), np.uint8
        )  # the new face: the old one, mirrored and greyer
        model, bgr, mask = insightface_swapper(pixels), np.ascontiguousarray(frame[:, :, ::-1]), sharp_box_mask(128)
        target, source = SimpleNamespace(kps=face.landmarks), SimpleNamespace(normed_embedding=np.ones(512, np.float32))

        insightface_get = functools.partial(model.get, bgr, target, source)

        result = frame.copy()
        paste(result, pixels, matrix=matrix, mask=mask)
        expected = insightface_get(paste_back=True)[:, :, ::-1]
        left, top, right, bottom = (max(0, int(v)) for v in face.box)
        error = float(np.mean((result[top:bottom, left:right].astype(float) - expected[top:bottom, left:right]) ** 2))
        scratch = frame.copy()

        with_paste, without = (milliseconds(functools.partial(insightface_get, paste_back=back)) for back in (True, False))
        theirs = with_paste - without
        ours = milliseconds(functools.partial(paste, scratch, pixels, matrix=matrix, mask=mask))
        psnr = 10 * math.log10(255**2 / max(error, 1e-9))
        print(f"{f'{width}x{height}':12}{theirs:14.1f}{ours:10.2f}{theirs / ours:8.0f}{psnr:17.1f} dB")


def measure_people() -> None:
    """Print the CPU time per frame with three faces that one reference replaces, and three."""
    cv2.setNumThreads(1)
    frames = np.stack([cv2.resize(group(), (832, 480), interpolation=cv2.INTER_CUBIC)] * 4)
    engine = build_face_engine(FaceSettings(), face_models(), use_cuda=False)
    references = tuple(engine.identify([picture], "face", unwatched) for picture in (portrait(), stranger(), portrait()))
    people = tuple(face.embedding for face in engine.analyse(frames[:1], unwatched)[0][:3])
    one: tuple[Choice, References] = (Choice("all"), references[0])
    several: tuple[Choice, References] = (Choice("map", people=people), references)

    def work(choice: Choice, reference: References) -> None:
        settings = Tracking(max_gap=0, smooth_frames=0)
        tracker = Tracker(settings, Chooser(choice, settings.match_threshold))
        found = [faces[:3] for faces in engine.analyse(frames, unwatched)]
        chosen = [faces for i, detected in enumerate(found) for faces in tracker.add(detected, i / 25)]
        assert [len(faces) for faces in chosen] == [3] * len(frames)
        engine.swap(frames, chosen, reference=reference, options=SwapOptions(), check=unwatched)

    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for times, kind in zip(taken, (one, several), strict=True):
            begun = time.process_time()
            work(*kind)
            times.append((time.process_time() - begun) * 1000 / len(frames))
    # The first round of each is a warm-up.
    medians = [statistics.median(times[1:]) for times in taken]
    print(f"three faces in 832x480, by one new face {medians[0]:.1f} ms a frame, by three {medians[1]:.1f} ms", end="")
    print(f" ({medians[1] / medians[0]:.2f} times)")


MOTIONS = {
    "at rest": np.zeros(61),
    "pan": np.linspace(-70, 70, 61),
    "starts and stops": np.clip(np.linspace(-200, 280, 61), 0, 80),
}


def follow(found: list[list[Face]]) -> list[tuple[Face, ...]]:
    """Return the faces that would be replaced, at 25 frames per second."""
    settings = Tracking()
    tracker = Tracker(settings, Chooser(Choice(), settings.match_threshold))
    chosen = [faces for i, detected in enumerate(found) for faces in tracker.add(detected, i / 25)]
    return chosen + tracker.end()


def measure_steadiness() -> None:
    """Print how much landmarks jitter."""
    image = cv2.resize(stranger(), None, fx=1.2, fy=1.2)
    rng = np.random.default_rng(0)
    print(f"{'face':20}{'by frames':>12}{'tracked':>12}{'share':>8}{'lag':>14}   (pixels from frame to frame)")
    for name, offsets in MOTIONS.items():
        size = image.shape[1::-1]
        shifts = [np.array([[1, 0, x], [0, 1, 0]], np.float32) for x in offsets]
        frames = [cv2.warpAffine(image, shift, size, borderMode=cv2.BORDER_REFLECT) for shift in shifts]
        noisy = [np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
        found = analyser().faces(noisy)
        paths = [np.stack([faces[0].landmarks for faces in frames_faces]) for frames_faces in (found, follow(found))]
        moved = np.stack([offsets, np.zeros_like(offsets)], axis=-1)[:, None]
        jitter = [float(np.abs(np.diff(path - moved, axis=0)).mean()) for path in paths]
        print(f"{name:20}{jitter[0]:12.2f}{jitter[1]:12.2f}{jitter[1] / jitter[0]:8.2f}{_lag(*paths):7.2f} frames")


def _lag(detected: Any, tracked: Any) -> float:
    """Return by how many frames the second path trails the first; 0 for a face at rest.

    It is the shift at which the two paths are nearest to each other.
    """
    first, second = (path.mean(axis=1)[:, 0] for path in (detected, tracked))
    if np.ptp(first) < 20:
        return 0.0
    shifts, frames = np.linspace(-3, 3, 121), np.arange(len(first), dtype=float)
    distances = [np.abs(np.interp(frames - shift, frames, first) - second)[4:-4].mean() for shift in shifts]
    return float(shifts[int(np.argmin(distances))])


def write_film(path: Path, minutes: float) -> int:
    """Write a slow pan over a photograph of six people, 1080p at 25 frames per second.

    Returns the number of frames.
    """
    image = cv2.resize(group(), None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    image = cv2.resize(image, (max(2200, image.shape[1]), max(1300, image.shape[0])))
    count = round(minutes * 60 * 25)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "26"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        for i in range(count):
            x = round((image.shape[1] - 1920) * (0.5 + 0.5 * math.sin(i / 200)))
            y = round((image.shape[0] - 1080) * (0.5 + 0.5 * math.cos(i / 300)))
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image[y : y + 1080, x : x + 1920]), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return count


@contextlib.contextmanager
def watched(every_s: float) -> Iterator[dict[str, list[int]]]:
    """Yield the resident bytes of each of the service's processes, sampled in the background."""
    samples: dict[str, list[int]] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            for process in psutil.process_iter(["cmdline"]):
                title = " ".join(process.info["cmdline"] or ())
                if title.startswith("ray::"):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it may end in between
                        memory = process.memory_info()
                        # The object store is shared by all processes, so it is not counted.
                        samples.setdefault(title.split(".")[0].strip(), []).append(memory.rss - memory.shared)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def measure_long(minutes: float) -> None:
    """Print the memory of each process in the second and in the last quarter of a long video."""
    with tempfile.TemporaryDirectory() as folder:
        film, result = Path(folder) / "film.mp4", Path(folder) / "result.mp4"
        count = write_film(film, minutes)
        config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
        args = config["applications"][0]["args"]
        args.setdefault("limits", {}).update(
            max_source_frames=count, max_source_seconds=minutes * 60 + 1, max_body_bytes=2**31, request_timeout_s=14_000
        )
        args.setdefault("runner", {})["tracking"] = {"detect_every": 8}
        config["http_options"]["request_timeout_s"] = 14_400
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        with running(path, Path(folder) / "serve.log") as client, watched(2.0) as samples:
            begun = time.perf_counter()
            with (
                film.open("rb") as video,
                PORTRAIT.open("rb") as face,
                httpx.stream(
                    "POST",
                    f"{client.url}/batch-video-faceswap",
                    files={"source_video": video, "reference_image": face},
                    timeout=15_000,
                ) as response,
                result.open("wb") as out,
            ):
                response.raise_for_status()
                for piece in response.iter_bytes():
                    out.write(piece)
            seconds = time.perf_counter() - begun
        print(
            f"{count} frames of 1080p, {film.stat().st_size / 1e6:.0f} MB, in {seconds:.0f} s ({count / seconds:.1f} frames/s); "
            f"{response.headers['x-frames-swapped']} swapped; result {result.stat().st_size / 1e6:.0f} MB"
        )
        print(f"{'process':44}{'second quarter':>16}{'last quarter':>16}{'change':>10}")
        for name, values in sorted(samples.items()):
            quarter = len(values) // 4
            if quarter:
                early, late = (statistics.mean(part) / 2**20 for part in (values[quarter : 2 * quarter], values[-quarter:]))
                print(f"{name:44}{early:12.0f} MiB{late:12.0f} MiB{(late / early - 1) * 100:9.1f} %")


def main() -> None:
    """Measure the parts in the command line; by default all but the long video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["paste", "steady", "people", "long", []], default=["paste", "steady"])
    parser.add_argument("--minutes", type=float, default=20, help="length of the long video")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "paste": measure_paste,
        "steady": measure_steadiness,
        "people": measure_people,
        "long": lambda: measure_long(options.minutes),
    }
    for part in options.parts:
        parts[part]()


if __name__ == "__main__":
    main()
