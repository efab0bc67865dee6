"""`python -m tests.media.matrix [COUNT]`: films of all kinds against what they were made of.

A film is made for each combination that is drawn (seeded) of codec, container, display matrix,
pixel aspect ratio, frame rate, colour, sound, and an odd size, transparency, fields or an edit
list. It is decoded and encoded again, and number, times, size, colours and sound are compared with
those that it was made of. Where `ffmpeg` is installed, its own frames are compared too, with wide
colours converted by its filter `zscale`. It prints what differs and a table, and exits with 1 if
anything differs.
"""

import io
import itertools
import shutil
import sys
from collections import Counter

import av
import numpy as np

from deployments.wire import Frames
from serve.media.decode.opening import open_source
from serve.media.decode.source import Source, SourceLimits, TimedFrames
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import with_sound
from tests.media import reference
from tests.media.films import PITCH, RATES, WIDE, Film, draw, expected, make

LIMITS = SourceLimits(frames=200, seconds=30, pixels=10**6)
LEVELS_OFF = 7.0
"""How far the mean colour of a frame may be off, in levels of 255, lossy codecs included."""


def differences(film: Film, ffmpeg: str | None = None) -> list[str]:
    """Return what is not as it should be."""
    data = make(film)
    source = open_source(data, LIMITS)
    chunks = list(source.chunks())
    frames = np.concatenate([chunk.frames for chunk in chunks])
    times = [time for chunk in chunks for time in chunk.times]
    wanted = expected(film)
    found: list[str] = []
    if (source.count, len(frames), source.damaged) != (len(wanted), len(wanted), 0):
        found.append(f"{source.count} frames are counted and {len(frames)} shown, {source.damaged} damaged")
    elif frames.shape != wanted.shape:
        found.append(f"the size is {frames.shape[1:3]} instead of {wanted.shape[1:3]}")
    elif (error := np.abs(frames.astype(int) - wanted).mean(axis=(1, 2, 3)).max()) > LEVELS_OFF:
        found.append(f"the colours are off by {error:.1f} levels")
    begins = RATES[film.rate](film.shown[0])
    late = max(abs(float(time + begins - RATES[film.rate](i))) for i, time in zip(film.shown, times, strict=False))
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
    if film.colour in WIDE and not reference.has_zscale(ffmpeg):
        return []
    height, width = frames.shape[1:3]
    theirs = reference.frames_of(ffmpeg, data, film, width, height)
    if len(theirs) != len(frames):
        return [f"ffmpeg shows {len(theirs)} frames"]
    error = np.abs(frames.astype(int) - theirs).mean(axis=(1, 2, 3)).max()
    allowed = reference.LEVELS_OFF.get(film.colour, reference.OTHERS_OFF)
    return [f"ffmpeg's colours differ by {error:.1f} levels"] if error > allowed else []


def main(count: int) -> int:
    """Try ``count`` films and return the exit status."""
    ffmpeg = shutil.which("ffmpeg")
    tried: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for number, film in enumerate(draw(count), 1):
        found = differences(film, ffmpeg)
        kinds = [("codec", film.codec.name), ("container", film.container), ("colour", film.colour), ("extra", film.extra)]
        tried.update(kinds)
        wrong.update(kinds if found else [])
        for difference in found:
            print(f"{film}: {difference}", flush=True)
        if not number % 50:
            print(f"{number} films, {sum(n for (kind, _), n in wrong.items() if kind == 'codec')} with differences", flush=True)
    for kind, films in sorted(tried.items()):
        print(f"{kind[0]} {kind[1] or 'none'}: {films} films, {wrong[kind]} with differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*itertools.islice(map(int, sys.argv[1:] or ["500"]), 1)))
