"""`python -m benchmarks.watermark found|unmarked|quality|faces|time`: what the watermark does.

Photographs come from scikit-image, insightface and this repository, and from ``--photographs``, a
folder. Films are pans and zooms over them, each another one.

- `found` marks films and pictures of `--size`, harms them in each way, and counts how many payloads
  are read.
- `unmarked` looks for watermarks where there are none: in films of `--frames` frames of photographs
  that are mirrored, turned and recoloured at random. It prints how many seem to have one, and how
  close the closest came to it.
- `quality` prints PSNR and SSIM.
- `faces` detects and recognises the faces of photographs, with and without the watermark.
- `time` prints the time for a frame.
"""

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream
from skimage.metrics import structural_similarity

from benchmarks.natural_frames import FACES, film, photographs, varied
from demo.face_models import face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.settings import FaceSettings
from deployments.wire import Face
from serve.media.encode.encoder import Encoder, MarkedEncoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.spool import read_media
from serve.provenance.watermark import PUBLISHED_SECRET, Detector, Payload, Watermark, detect
from serve.provenance.watermark.detector import MAX_RATE
from serve.provenance.watermark.payload import REQUEST_BITS
from serve.provenance.watermark_reading import read_watermark

Frames = npt.NDArray[np.uint8]
Harm = Callable[[Frames, Payload], Frames]

FPS = Fraction(16)


def films(args: argparse.Namespace, count: int) -> Iterator[tuple[Frames, Payload]]:
    """Yield ``args.films`` films of ``count`` frames, each with a payload."""
    pictures = photographs(args.photographs)
    for seed in range(args.films):
        payload = Payload(seed % 16, seed * 2_654_435_761 % (1 << REQUEST_BITS))
        yield film(pictures[seed % len(pictures)], args.size, count=count, seed=seed), payload


def served(kind: str) -> Harm:
    """Return what marks frames and encodes them as the service does."""

    def harm(frames: Frames, payload: Payload) -> Frames:
        mark, count = Watermark(payload), len(frames)
        if kind == "mp4":
            encoder: Encoder = Mp4Encoder(FPS, "veryfast", 18, mark=mark)
        elif kind == "gif":
            encoder = MarkedEncoder(GifEncoder(FPS, count=count), mark)
        else:
            encoder = MarkedEncoder(WebpEncoder(FPS, method=0, count=count), mark)
        encoder.add(frames, tuple(number / FPS for number in range(count)))
        file = read_media(encoder.close())
        if kind == "mp4":
            return _decoded(file)
        found = read_watermark(file, (PUBLISHED_SECRET,))
        return np.zeros((1, 8, 8, 3), np.uint8) if found is None or found.payload != payload else frames[:0]

    return harm


def _decoded(file: bytes) -> Frames:
    with av.open(io.BytesIO(file), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def coded(codec: str, crf: int) -> Callable[[Frames], Frames]:
    """Return what encodes frames once more, as somebody who uploads them elsewhere would."""
    options = {"crf": str(crf)} if codec == "libx264" else {"crf": str(crf), "b": "0", "deadline": "realtime", "cpu-used": "6"}

    def encode(frames: Frames) -> Frames:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4" if codec == "libx264" else "webm") as container:
            stream = container.add_stream(codec, rate=FPS, options=options)
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = (side // 2 * 2 for side in frames.shape[1:3])
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                whole = np.ascontiguousarray(frame[: stream.height, : stream.width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(whole, format="rgb24")))
            container.mux(stream.encode())
        return _decoded(file.getvalue())

    return encode


def scaled(share: float) -> Callable[[Frames], Frames]:
    """Return what scales frames down."""
    return lambda frames: np.stack([cv2.resize(f, None, fx=share, fy=share, interpolation=cv2.INTER_AREA) for f in frames])


def jpeg(frames: Frames, quality: int = 60) -> Frames:
    """Return one frame from the middle as a JPEG."""
    _, data = cv2.imencode(".jpg", frames[len(frames) // 2], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.stack([decoded])


def cropped(frames: Frames) -> Frames:
    """Return frames without a fifth of their height and width, at odd offsets."""
    height, width = frames.shape[1:3]
    top, left = int(height * 0.13) | 1, int(width * 0.07) | 1
    return frames[:, top : top + int(height * 0.8), left : left + int(width * 0.8)]


def shot(frames: Frames) -> Frames:
    """Return one frame from the middle."""
    return frames[len(frames) // 2 :][:1]


def brighter(frames: Frames) -> Frames:
    """Return frames of 1.2 times the contrast, 15 levels brighter."""
    brightened: Frames = cv2.convertScaleAbs(frames, alpha=1.2, beta=15).reshape(frames.shape)
    return brightened


HARMS: dict[str, Callable[[Frames], Frames]] = {
    "nothing": lambda frames: frames,
    "H.264 CRF 28": coded("libx264", 28),
    "VP9 CRF 32": coded("libvpx-vp9", 32),
    "half size": scaled(0.5),
    "JPEG 60, one frame": jpeg,
    "crop 20 %": cropped,
    "screenshot of a frame": shot,
    "brightness": brighter,
    "screenshot of H.264 CRF 28": lambda frames: shot(coded("libx264", 28)(frames)),
    "cropped screenshot": lambda frames: cropped(shot(frames)),
    "70 % size": scaled(0.7),
}


def found(args: argparse.Namespace) -> None:
    """Print how often each harm leaves the payload readable."""
    counts = dict.fromkeys([*HARMS, "as WebP", "as GIF"], 0)
    wrong = 0
    for frames, payload in films(args, args.frames):
        marked = Watermark(payload).mark(frames) if args.frames == 1 else served("mp4")(frames, payload)
        for name, harm in HARMS.items():
            if args.frames == 1 and ("H.264" in name or "VP9" in name):
                continue
            reading = detect(harm(marked))
            counts[name] += reading is not None and reading.payload == payload
            wrong += reading is not None and reading.payload != payload
        for name, kind in (("as WebP", "webp"), ("as GIF", "gif")):
            if args.frames > 1:
                counts[name] += not len(served(kind)(frames, payload))
    for name, count in counts.items():
        print(f"{name:28} {count:4} of {args.films}  {100 * count / args.films:5.1f} %", flush=True)
    print(f"another payload: {wrong}")


def unmarked(args: argparse.Namespace) -> None:
    """Print how many of ``args.films`` unmarked films seem to carry a watermark.

    Each is searched with two secrets: the published one, and one of its own. With ``args.scaled``,
    the first frame of each is searched at all other scales, too.
    """
    started, seen, lowest = time.monotonic(), 0, math.inf
    pictures = photographs(args.photographs)
    for seed in range(args.first, args.first + args.films):
        picture = varied(pictures[seed % len(pictures)], seed)
        detector = Detector([PUBLISHED_SECRET, b"secret %d" % seed], scaled=args.scaled)
        frames = film(picture, args.size, count=args.frames, seed=seed)
        seen += detector.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames) is not None
        lowest = min(lowest, detector.lowest_rate)
        number = seed - args.first + 1
        if number % 250 == 0 or number == args.films:
            print(
                f"{seen} of {number} unmarked films, {number * args.frames} frames, {time.monotonic() - started:.0f} s; the "
                f"lowest bound of any place that decodes to a payload is {lowest:.2g}, where {MAX_RATE:.0e} would count",
                flush=True,
            )


def quality(args: argparse.Namespace) -> None:
    """Print PSNR and SSIM of marked frames against those that are not."""
    psnr, ssim = [], []
    for frames, payload in films(args, 1):
        marked = Watermark(payload).mark(frames)
        psnr.append(cv2.PSNR(frames[0], marked[0]))
        ssim.append(structural_similarity(frames[0], marked[0], channel_axis=2))
    for name, values in (("PSNR", psnr), ("SSIM", ssim)):
        least, median = min(values), statistics.median(values)
        print(f"{name}: least {least:.4f}, median {median:.4f}, mean {statistics.fmean(values):.4f}")


def faces(args: argparse.Namespace) -> None:
    """Print how detection and identity of faces differ in marked frames, and in JPEGs of them.

    The JPEG has a quality of 95, and is that of the frame without the watermark: what a reader of
    pictures sees of them anyway.
    """
    models = face_models()
    analyser = OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())
    changes: dict[str, list[tuple[float, float]]] = {"watermark": [], "JPEG 95": []}
    counts: dict[str, list[int]] = {name: [0, 0] for name in changes}
    pictures = photographs(args.photographs, FACES)
    for seed in range(args.films):
        frames = film(varied(pictures[seed % len(pictures)], seed, turned=False), args.size, count=1, seed=seed)
        payload = Payload(seed % 16, seed * 2_654_435_761 % (1 << REQUEST_BITS))
        before = analyser.faces(frames)[0]
        for name, changed in (("watermark", Watermark(payload).mark(frames)), ("JPEG 95", jpeg(frames, 95))):
            after = analyser.faces(changed)[0]
            counts[name][0] += len(before)
            counts[name][1] += len(after)
            changes[name] += [change for face in before if (change := _change(face, after)) is not None]
    for name, pairs in changes.items():
        cosines, scores = zip(*pairs, strict=True)
        print(
            f"{name:10} faces {counts[name][0]} before, {counts[name][1]} after, {len(pairs)} of them the same; cosine: "
            f"median {statistics.median(cosines):.4f}, mean {statistics.fmean(cosines):.4f}, worst {min(cosines):.4f}; "
            f"change of score: mean {statistics.fmean(scores):+.4f}, largest {max(map(abs, scores)):.4f}"
        )


def _change(face: Face, after: Sequence[Face]) -> tuple[float, float] | None:
    """Return the cosine and the change of score of the face in the same place, None without one."""
    if not after:
        return None
    other = min(after, key=lambda each: float(np.abs(each.landmarks - face.landmarks).mean()))
    if np.abs(other.landmarks - face.landmarks).mean() > (face.box[2] - face.box[0]) / 4:
        return None
    cosine = face.embedding @ other.embedding / (np.linalg.norm(face.embedding) * np.linalg.norm(other.embedding))
    return float(cosine), float(other.score - face.score)


def timing(args: argparse.Namespace) -> None:
    """Print the time that marking takes for a frame, RGB and luma."""
    (frames, payload), *_ = films(argparse.Namespace(**{**vars(args), "films": 1}), 8)
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]

    def luma() -> None:
        for plane in planes:
            mark.mark_luma(plane)

    started = time.perf_counter()
    mark = Watermark(payload)
    mark.mark(frames[:1])
    print(f"first frame: {1e3 * (time.perf_counter() - started):.1f} ms")
    for name, call in (("RGB", lambda: mark.mark(frames)), ("luma, for MP4", luma)):
        times = []
        for _ in range(15):
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) / len(frames))
        print(f"{name}: {1e3 * statistics.median(times):.2f} ms a frame, least {1e3 * min(times):.2f}")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = {"found": found, "unmarked": unmarked, "quality": quality, "faces": faces, "time": timing}
    parser.add_argument("measurement", choices=measurements)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(832, 480))
    parser.add_argument("--frames", type=int, default=17, help="frames in a film; 1 for pictures")
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--first", type=int, default=0, help="with `unmarked`: the seed of the first film")
    parser.add_argument("--scaled", action="store_true", help="with `unmarked`: look at all other scales, too")
    args = parser.parse_args()
    measurements[args.measurement](args)


if __name__ == "__main__":
    main()
