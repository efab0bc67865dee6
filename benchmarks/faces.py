"""`python -m benchmarks.faces [paste] [steady] [long]`: face swap against insightface's own paste, its steadiness, and a long video.

paste: insightface's ``paste_back`` and ours, the same new face on the same picture, at 1080p and 4K.
steady: how much landmarks tremble, frame by frame and followed, for a face at rest, in a pan, and one that starts and stops.
long: a video of 1080p of ``--minutes`` through the endpoint of a running demo, its upload from disk and its answer to disk; the memory
of each of the service's processes over time. Detection is set to every 8th frame there, so that a CPU gets through it.
"""

import argparse
import contextlib
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

from demo.face_models import ensure_face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.faces.choice import Chooser
from deployments.faces.paste import ARCFACE, align, paste, sharp_box_mask
from deployments.faces.tracks import Tracker
from deployments.settings import FaceSettings, Tracking
from deployments.wire import Choice, Face, Image
from serve.cli import PRESETS, running
from serve.samples import PORTRAIT, group, stranger

ROUNDS = 7
NOISE = 12
"""Standard deviation of the sensor's noise, of 255."""


def analyser() -> OpenCVAnalyser:
    """The demo's."""
    models = ensure_face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some rounds, after one that is not counted."""
    work()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


class Answered:
    """An onnxruntime session that has its answer already: what is left of ``INSwapper.get`` is insightface's crop and paste."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def run(self, *_: object) -> list[Any]:
        """The answer."""
        return [self._answer]


def insightface_swapper(pixels: Image) -> Any:
    """insightface's class, which will give the new face ``pixels`` (RGB, 128 x 128)."""
    model = INSwapper.__new__(INSwapper)
    model.session = Answered(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    model.emap = np.eye(512, dtype=np.float32)
    model.input_size, model.input_std, model.input_mean = (128, 128), 255.0, 0.0
    model.input_names, model.output_names = ["target", "source"], ["output"]
    return model


def measure_paste() -> None:
    """Prints the table of both pastes."""
    print(
        f"{'picture':12}{'insightface':>14}{'ours':>10}{'times':>8}{'PSNR in the face':>20}   (milliseconds, median of {ROUNDS})"
    )
    for width, height in ((832, 480), (1920, 1080), (3840, 2160)):
        frame = cv2.resize(group(), (width, height), interpolation=cv2.INTER_CUBIC)
        face = analyser().faces([frame])[0][0]
        matrix = align(face.landmarks, ARCFACE + np.array([8, 0]))
        crop = cv2.warpAffine(frame, matrix, (128, 128))
        pixels = np.asarray(np.clip(crop[:, ::-1] * 0.8 + 20, 0, 255), np.uint8)  # another face: the same, mirrored and greyer
        model, bgr, mask = insightface_swapper(pixels), np.ascontiguousarray(frame[:, :, ::-1]), sharp_box_mask(128)
        target, source = SimpleNamespace(kps=face.landmarks), SimpleNamespace(normed_embedding=np.ones(512, np.float32))

        def theirs(back: bool, model: Any = model, bgr: Any = bgr, target: Any = target, source: Any = source) -> Any:
            return model.get(bgr, target, source, paste_back=back)

        result = frame.copy()
        paste(result, pixels, matrix, mask)
        whole = theirs(True)[:, :, ::-1]
        left, top, right, bottom = (max(0, int(v)) for v in face.box)
        error = float(np.mean((result[top:bottom, left:right].astype(float) - whole[top:bottom, left:right]) ** 2))
        scratch = frame.copy()

        def ours(scratch: Any = scratch, pixels: Any = pixels, matrix: Any = matrix, mask: Any = mask) -> None:
            paste(scratch, pixels, matrix, mask)

        one = milliseconds(lambda: theirs(True)) - milliseconds(lambda: theirs(False))
        other = milliseconds(ours)
        psnr = 10 * math.log10(255**2 / max(error, 1e-9))
        print(f"{f'{width}x{height}':12}{one:14.1f}{other:10.2f}{one / other:8.0f}{psnr:17.1f} dB")


MOTIONS = {
    "at rest": np.zeros(61),
    "pan": np.linspace(-70, 70, 61),
    "starts and stops": np.clip(np.linspace(-200, 280, 61), 0, 80),
}


def follow(found: list[list[Face]]) -> list[tuple[Face, ...]]:
    """The faces that would be replaced, at 25 frames a second."""
    settings = Tracking()
    tracker = Tracker(settings, Chooser(Choice(), settings.match_threshold))
    decided = [faces for i, one in enumerate(found) for faces in tracker.add(one, i / 25)]
    return decided + tracker.end()


def measure_steadiness() -> None:
    """Prints how much landmarks tremble."""
    picture = cv2.resize(stranger(), None, fx=1.2, fy=1.2)
    rng = np.random.default_rng(0)
    print(f"{'face':20}{'by frames':>12}{'followed':>12}{'share':>8}{'lag':>14}   (pixels from frame to frame)")
    for name, offsets in MOTIONS.items():
        size = picture.shape[1::-1]
        shifts = [np.array([[1, 0, x], [0, 1, 0]], np.float32) for x in offsets]
        frames = [cv2.warpAffine(picture, shift, size, borderMode=cv2.BORDER_REFLECT) for shift in shifts]
        noisy = [np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
        found = analyser().faces(noisy)
        paths = [np.stack([faces[0].landmarks for faces in some]) for some in (found, follow(found))]
        moved = np.stack([offsets, np.zeros_like(offsets)], axis=-1)[:, None]
        trembles = [float(np.abs(np.diff(path - moved, axis=0)).mean()) for path in paths]
        print(f"{name:20}{trembles[0]:12.2f}{trembles[1]:12.2f}{trembles[1] / trembles[0]:8.2f}{_lag(*paths):7.2f} frames")


def _lag(seen: Any, steady: Any) -> float:
    """By how many frames the second path trails the first: the shift at which they are nearest; a face at rest has none."""
    one, other = (path.mean(axis=1)[:, 0] for path in (seen, steady))
    if np.ptp(one) < 20:
        return 0.0
    shifts, frames = np.linspace(-3, 3, 121), np.arange(len(one), dtype=float)
    apart = [np.abs(np.interp(frames - shift, frames, one) - other)[4:-4].mean() for shift in shifts]
    return float(shifts[int(np.argmin(apart))])


def write_film(path: Path, minutes: float) -> int:
    """A slow pan over a photograph of six people, 1080p at 25 frames a second, with a tone; the number of frames."""
    picture = cv2.resize(group(), None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    picture = cv2.resize(picture, (max(2200, picture.shape[1]), max(1300, picture.shape[0])))
    count = round(minutes * 60 * 25)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "26"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        for i in range(count):
            x = round((picture.shape[1] - 1920) * (0.5 + 0.5 * math.sin(i / 200)))
            y = round((picture.shape[0] - 1080) * (0.5 + 0.5 * math.cos(i / 300)))
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture[y : y + 1080, x : x + 1920]), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return count


@contextlib.contextmanager
def watched(every_s: float) -> Iterator[dict[str, list[int]]]:
    """Resident bytes of each of the service's processes, sampled in the background."""
    samples: dict[str, list[int]] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            for process in psutil.process_iter(["cmdline"]):
                title = " ".join(process.info["cmdline"] or ())
                if title.startswith("ray::"):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
                        memory = process.memory_info()
                        # What the object store shares with all of them is none of theirs.
                        samples.setdefault(title.split(".")[0].strip(), []).append(memory.rss - memory.shared)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def measure_long(minutes: float) -> None:
    """Prints the memory of each process in the second and in the last quarter of a long video."""
    with tempfile.TemporaryDirectory() as folder:
        film, answer = Path(folder) / "film.mp4", Path(folder) / "answer.mp4"
        count = write_film(film, minutes)
        config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
        args = config["applications"][0]["args"]
        args.setdefault("limits", {}).update(
            max_source_frames=count, max_source_seconds=minutes * 60 + 1, max_body_bytes=2**31, request_timeout_s=14_000
        )
        args.setdefault("ingress", {})["tracking"] = {"detect_every": 8}
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
                answer.open("wb") as out,
            ):
                response.raise_for_status()
                for piece in response.iter_bytes():
                    out.write(piece)
            seconds = time.perf_counter() - begun
        print(
            f"{count} frames of 1080p, {film.stat().st_size / 1e6:.0f} MB, in {seconds:.0f} s ({count / seconds:.1f} frames/s); "
            f"{response.headers['x-frames-swapped']} swapped; answer {answer.stat().st_size / 1e6:.0f} MB"
        )
        print(f"{'process':44}{'second quarter':>16}{'last quarter':>16}{'change':>10}")
        for name, values in sorted(samples.items()):
            quarter = len(values) // 4
            if quarter:
                early, late = (statistics.mean(part) / 2**20 for part in (values[quarter : 2 * quarter], values[-quarter:]))
                print(f"{name:44}{early:12.0f} MiB{late:12.0f} MiB{(late / early - 1) * 100:9.1f} %")


def main() -> None:
    """Measures what the command line names; all but the long video by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["paste", "steady", "long", []], default=["paste", "steady"])
    parser.add_argument("--minutes", type=float, default=20, help="of the long video")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "paste": measure_paste,
        "steady": measure_steadiness,
        "long": lambda: measure_long(options.minutes),
    }
    for part in options.parts:
        parts[part]()


if __name__ == "__main__":
    main()
