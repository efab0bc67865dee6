"""`python -m benchmarks.watermark found|unmarked|quality|time`: what the watermark does.

Photographs come from scikit-image, insightface and this repository, and from ``--photographs``, a
folder. Films are pans and zooms over them, each another one.

- `found` marks films and pictures of `--size`, harms them in each way, and counts how many payloads
  are read.
- `unmarked` looks for watermarks where there are none.
- `quality` prints PSNR and SSIM.
- `time` prints the time for a frame.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream
from skimage.metrics import structural_similarity

from serve.media.encode.encoder import Encoder, MarkedEncoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.spool import read_media
from serve.provenance.watermark import PUBLISHED_SECRET, Payload, Watermark, detect
from serve.provenance.watermark.payload import REQUEST_BITS
from serve.provenance.watermark_reading import read_watermark

Frames = npt.NDArray[np.uint8]
Harm = Callable[[Frames, Payload], Frames]

FPS = Fraction(16)
OWN = {
    "skimage/data": [
        *("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png", "ihc.png", "grass.png", "gravel.png"),
        *("brick.png", "camera.png", "coins.png", "moon.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"),
    ],
    "insightface/data/images": ["t1.jpg"],
    "training/photographs": ["hopper.jpg"],
}
"""The photographs that are there anyway."""


def photographs(folder: Path | None) -> list[Frames]:
    """Return all photographs as uint8 RGB ``[height, width, 3]``."""
    paths = [_folder_of(place) / name for place, names in OWN.items() for name in names]
    paths += [] if folder is None else sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    return [_rgb(picture) for picture in read if picture is not None]


def _rgb(picture: npt.NDArray[Any]) -> Frames:
    converted: Frames = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return converted


def _folder_of(place: str) -> Path:
    package, _, rest = place.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / rest


def film(photograph: Frames, size: tuple[int, int], *, count: int, seed: int) -> Frames:
    """Return ``count`` frames of a pan and zoom over a photograph; ``size`` is (width, height)."""
    random = np.random.default_rng(seed)
    width, height = size
    fit = max(height / photograph.shape[0], width / photograph.shape[1])
    first = fit * random.uniform(1.0, 1.35)
    last = first * random.uniform(0.97, 1.1)
    begin = random.uniform(0, 1, 2)
    end = np.clip(begin + random.uniform(-0.25, 0.25, 2), 0, 1)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        share = number / max(count - 1, 1)
        zoom = first + (last - first) * share
        spare = (photograph.shape[1] - width / zoom, photograph.shape[0] - height / zoom)
        x, y = (begin + (end - begin) * share) * spare
        source = photograph
        if zoom < 0.8:  # a warp alone would alias
            source = cv2.resize(photograph, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
            x, y, zoom = x * zoom, y * zoom, 1.0
        matrix = np.array([[zoom, 0, -x * zoom], [0, zoom, -y * zoom]], np.float32)
        cv2.warpAffine(source, matrix, size, frames[number], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return frames


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


def jpeg(frames: Frames) -> Frames:
    """Return one frame from the middle as a JPEG of quality 60."""
    _, data = cv2.imencode(".jpg", frames[len(frames) // 2], [cv2.IMWRITE_JPEG_QUALITY, 60])
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
    """Print how many of ``args.films`` unmarked frames seem to carry a watermark."""
    started, seen = time.monotonic(), 0
    for number, (frames, _) in enumerate(films(args, 1), 1):
        seen += detect(frames, scaled=args.scaled) is not None
        if number % 500 == 0 or number == args.films:
            print(f"{seen} of {number} unmarked frames, {time.monotonic() - started:.0f} s", flush=True)


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
    measurements = {"found": found, "unmarked": unmarked, "quality": quality, "time": timing}
    parser.add_argument("measurement", choices=measurements)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(832, 480))
    parser.add_argument("--frames", type=int, default=17, help="frames in a film; 1 for pictures")
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--scaled", action="store_true", help="with `unmarked`: look at all other scales, too")
    args = parser.parse_args()
    measurements[args.measurement](args)


if __name__ == "__main__":
    main()
