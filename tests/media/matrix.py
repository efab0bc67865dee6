"""`python -m tests.media.matrix [COUNT]`: films of all kinds against what they were made of.

A film is made for each combination that is drawn (seeded) of codec, container, display matrix,
pixel aspect ratio, frame rate, colour and sound. It is decoded and encoded again, and number,
times, size, colours and sound are compared with those that it was made of. Where `ffmpeg` is
installed, its own frames are compared too. It prints what differs, and exits with 1 if there is
anything.
"""

import io
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import PIL.Image
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from deployments.wire import Frames, Image
from serve.media.colour_space import ColourSpace, to_bt709
from serve.media.decode.opening import open_source
from serve.media.decode.source import Source, SourceLimits, TimedFrames
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import with_sound
from tests.unit.serve.media.make_film import with_matrix

LIMITS = SourceLimits(frames=200, seconds=30, pixels=10**6)
WIDTH, HEIGHT, COUNT, PITCH = 96, 64, 12, 440
LEVELS_OFF = 7.0
"""How far the mean colour of a frame may be off, in levels of 255, lossy codecs included."""


@dataclass(frozen=True)
class Codec:
    """A codec with its containers and formats; ``mute`` keeps it from writing to the log."""

    name: str
    containers: tuple[str, ...]
    pix_fmts: tuple[str, ...] = ("yuv420p",)
    options: tuple[tuple[str, str], ...] = ()


CODECS = (
    Codec("libx264", ("mp4", "mov", "matroska"), ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"), (("crf", "8"),)),
    Codec("libx265", ("mp4", "matroska"), ("yuv420p", "yuv420p10le"), (("crf", "8"), ("x265-params", "log-level=none"))),
    Codec("libvpx", ("webm", "matroska"), options=(("b", "3M"), ("deadline", "realtime"))),
    Codec("libvpx-vp9", ("webm", "mp4"), options=(("b", "3M"), ("deadline", "realtime"))),
    Codec("mpeg4", ("mp4", "mov", "matroska"), options=(("qscale", "2"), ("flags", "qscale"), ("global_quality", "236"))),
    Codec("mjpeg", ("mov", "matroska"), ("yuvj420p", "yuvj444p"), (("qmin", "1"), ("qmax", "2"))),
    Codec("prores_ks", ("mov",), ("yuv422p10le",)),
    Codec("ffv1", ("matroska",), ("yuv420p", "yuv444p")),
)
MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[Image], Image]]] = {
    "upright": ((1, 0, 0, 1), lambda x: x),
    "90": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "270": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "antitransposed": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
}
ASPECTS = (Fraction(1), Fraction(4, 3), Fraction(1, 2), Fraction(16, 15))
RATES: dict[str, Callable[[int], Fraction]] = {
    "25": lambda i: Fraction(i, 25),
    "23.976": lambda i: Fraction(1001 * i, 24_000),
    "59.94": lambda i: Fraction(1001 * i, 60_000),
    "variable": lambda i: Fraction(3 * i + i % 3, 60),
}
COLOURS: dict[str, tuple[int, int, int, int]] = {
    "BT.709": (1, 1, 1, 1),
    "BT.601": (6, 6, 6, 1),
    "BT.709 full": (1, 1, 1, 2),
    "Display P3": (12, 1, 1, 1),
    "BT.2020": (9, 14, 9, 1),
    "HLG": (9, 18, 9, 1),
    "PQ": (9, 16, 9, 1),
}
"""Primaries, transfer, matrix and range, as FFmpeg numbers them."""
SOUNDS: dict[str, dict[str, str]] = {
    "mp4": {"none": "", "AAC": "aac", "MP3": "libmp3lame"},
    "mov": {"none": "", "AAC": "aac", "PCM": "pcm_s16le"},
    "matroska": {"none": "", "AAC": "aac", "Opus": "libopus", "FLAC": "flac", "AC-3": "ac3"},
    "webm": {"none": "", "Opus": "libopus"},
}


@dataclass(frozen=True)
class Film:
    """A combination."""

    codec: Codec
    container: str
    pix_fmt: str
    turned: str
    aspect: Fraction
    rate: str
    colour: str
    sound: str

    def __str__(self) -> str:
        return (
            f"{self.codec.name} {self.pix_fmt} in {self.container}, {self.turned}, pixels {self.aspect}, "
            f"{self.rate} fps, {self.colour}, {self.sound}"
        )


def draw(count: int, seed: int = 0) -> list[Film]:
    """Return ``count`` different combinations."""
    rng = random.Random(seed)
    films: dict[Film, None] = {}
    while len(films) < count:
        codec = rng.choice(CODECS)
        container, pix_fmt = rng.choice(codec.containers), rng.choice(codec.pix_fmts)
        in_file = codec.name in ("libx264", "libx265", "mpeg4")  # PyAV tells Matroska no aspect ratio
        tagged = codec.name in ("libx264", "libx265")
        colours = list(COLOURS) if tagged else ["BT.601"]
        colour = "BT.709 full" if codec.name == "mjpeg" else rng.choice(colours)
        films[
            Film(
                codec,
                container,
                pix_fmt,
                rng.choice(list(MATRICES)) if container in ("mp4", "mov") else "upright",
                rng.choice(ASPECTS if in_file or container in ("mp4", "mov") else ASPECTS[:1]),
                rng.choice(list(RATES)),
                "BT.601 full" if codec.name == "mjpeg" else colour,
                rng.choice(list(SOUNDS[container])),
            )
        ] = None
    return list(films)


def scene() -> Frames:
    """Return frames of four quarters in different colours, over which a white bar moves."""
    frames = np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, :32, :48], frames[:, :32, 48:] = (180, 70, 50), (60, 140, 80)
    frames[:, 32:, :48], frames[:, 32:, 48:] = (60, 80, 170), (128, 128, 128)
    for i, frame in enumerate(frames):
        frame[8:56, 4 + 7 * i : 10 + 7 * i] = 235
    return frames


def numbers_of(colour: str) -> tuple[int, int, int, int]:
    """Return the numbers of a colour space; MJPEG is untagged and full."""
    return (2, 2, 5, 2) if colour == "BT.601 full" else COLOURS[colour]


def make(film: Film) -> bytes:
    """Return the file."""
    primaries, transfer, matrix, range_ = numbers_of(film.colour)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=film.container) as container:
        video = container.add_stream(film.codec.name, rate=30, options=dict(film.codec.options))
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, film.pix_fmt
        context = video.codec_context
        context.time_base = Fraction(1, 1000) if film.container in ("matroska", "webm") else Fraction(1, 60_000)
        context.sample_aspect_ratio = film.aspect
        if film.codec.name in ("libx264", "libx265"):
            context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix
            context.color_range = range_
        name = SOUNDS[film.container][film.sound]
        audio = container.add_stream(name, rate=48_000, layout="mono") if name else None
        for i, pixels in enumerate(scene()):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=film.pix_fmt, dst_colorspace=matrix, dst_color_range=range_)
            frame.pts, frame.time_base = round(RATES[film.rate](i) / context.time_base), context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            wave = 0.3 * np.sin(2 * np.pi * PITCH * np.arange(24_000) / 48_000)[None].astype(np.float32)
            samples = AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48_000, 0
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=48_000, frame_size=audio.frame_size or 0)
            for part in (*resampler.resample(samples), *resampler.resample(None)):
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
    data = buffer.getvalue()
    return data if film.turned == "upright" else with_matrix(data, *MATRICES[film.turned][0])


def expected(film: Film) -> Frames:
    """Return the frames as they must be shown."""
    primaries, transfer, _, _ = numbers_of(film.colour)
    frames = []
    for pixels in scene():
        shown = pixels
        if film.colour in ("Display P3", "BT.2020", "HLG", "PQ"):
            space = ColourSpace(primaries, transfer if transfer in (16, 18) else 0)
            values = to_bt709(pixels.reshape(-1, 3) / 255, space)
            shown = np.round(255 * values).astype(np.uint8).reshape(pixels.shape)
        width, height = WIDTH, HEIGHT
        if film.aspect > 1:
            width = round(WIDTH * film.aspect)
        elif film.aspect < 1:
            height = round(HEIGHT / film.aspect)
        stretched = PIL.Image.fromarray(shown).resize((width, height), PIL.Image.Resampling.BICUBIC)
        frames.append(np.ascontiguousarray(MATRICES[film.turned][1](np.asarray(stretched))))
    return np.stack(frames)


def differences(film: Film, ffmpeg: str | None = None) -> list[str]:
    """Return what is not as it should be."""
    data = make(film)
    source = open_source(data, LIMITS)
    chunks = list(source.chunks())
    frames = np.concatenate([chunk.frames for chunk in chunks])
    times = [time for chunk in chunks for time in chunk.times]
    wanted = expected(film)
    found: list[str] = []
    if (source.count, len(frames), source.damaged) != (COUNT, COUNT, 0):
        found.append(f"{source.count} frames are counted and {len(frames)} shown, {source.damaged} damaged")
    elif frames.shape != wanted.shape:
        found.append(f"the size is {frames.shape[1:3]} instead of {wanted.shape[1:3]}")
    elif (error := np.abs(frames.astype(int) - wanted).mean(axis=(1, 2, 3)).max()) > LEVELS_OFF:
        found.append(f"the colours are off by {error:.1f} levels")
    late = max(abs(float(time - RATES[film.rate](i))) for i, time in enumerate(times))
    if late > 0.0011:
        found.append(f"a frame is off by {1000 * late:.1f} ms")
    if ffmpeg is not None and not found:
        found += _unlike_ffmpeg(ffmpeg, data, frames, film)
    return found + _sound_differences(film, source, chunks)


def _sound_differences(film: Film, source: Source, chunks: list[TimedFrames]) -> list[str]:
    encoder = Mp4Encoder(source.fps, "ultrafast", 18, seconds=source.duration, draft=source.audio is not None)
    for chunk in chunks:
        encoder.add(chunk.frames, chunk.times)
    result = encoder.close() if source.audio is None else with_sound(encoder, source.audio)
    with av.open(io.BytesIO(result.read()), mode="r") as container:
        has_sound = bool(container.streams.audio)
        if has_sound != (film.sound != "none"):
            return ["the sound is lost" if film.sound != "none" else "there is sound"]
        if not has_sound:
            return []
        rate, start, parts = 0, None, []
        for frame in container.decode(audio=0):
            rate, start = frame.sample_rate, float(frame.time or 0) if start is None else start
            parts.append(frame.to_ndarray().astype(float).reshape(-1) if frame.format.is_planar else frame.to_ndarray()[0])
    wave = np.concatenate(parts)
    pitch = np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave)
    found = [] if abs(pitch - PITCH) < 8 else [f"the sound has {pitch:.0f} Hz"]
    if start is None or abs(start) > 0.06 or abs(len(wave) / rate - 0.5) > 0.11:
        found.append(f"the sound begins at {start} s and lasts {len(wave) / rate:.2f} s")
    return found


def _unlike_ffmpeg(ffmpeg: str, data: bytes, frames: Frames, film: Film) -> list[str]:
    """Compare with the frames that ffmpeg decodes, turns and stretches itself."""
    if film.colour in ("Display P3", "BT.2020", "HLG", "PQ"):
        return []  # ffmpeg does not convert these unless it is told to
    height, width = frames.shape[1:3]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [ffmpeg, "-v", "error", "-i", file.name, "-an", "-vsync", "passthrough"]
        command += ["-vf", f"scale={width}:{height}:flags=bicubic", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    if len(theirs) != len(frames):
        return [f"ffmpeg shows {len(theirs)} frames"]
    error = np.abs(frames.astype(int) - theirs).mean(axis=(1, 2, 3)).max()
    return [f"ffmpeg's colours differ by {error:.1f} levels"] if error > LEVELS_OFF else []


def main(count: int) -> int:
    """Try ``count`` films and return the exit status."""
    ffmpeg = shutil.which("ffmpeg")
    wrong = 0
    for number, film in enumerate(draw(count), 1):
        found = differences(film, ffmpeg)
        wrong += bool(found)
        for difference in found:
            print(f"{film}: {difference}", flush=True)
        if not number % 50:
            print(f"{number} films, {wrong} with differences", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*itertools.islice(map(int, sys.argv[1:] or ["500"]), 1)))
