"""Sample images, videos and audio for example requests, smoke tests, load tests and unit tests.

The portraits are NASA's photograph of Eileen Collins and the U.S. Navy's of Grace Hopper, both in
the public domain. ``group`` reads the group photograph in the insightface package if that is
installed; the photograph is not ours to distribute.
"""

import base64
import importlib.util
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
from av.audio.frame import AudioFrame

from deployments.wire import Frames, Image
from serve.media.audio import AudioTrack
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.soundtrack import add_soundtrack
from serve.media.sound import Sound
from serve.media.spool import Spool

PORTRAIT = Path(__file__).parent / "portrait.jpg"
OFFICER = Path(__file__).parent / "officer.jpg"
AUDIO_RATE = 48_000
"""Samples per second of ``tone``."""


def portrait() -> Image:
    """Return a large frontal face, uint8 RGB ``[192, 160, 3]``."""
    return np.asarray(PIL.Image.open(PORTRAIT).convert("RGB"))


def group() -> Image:
    """Return a photograph of six people, uint8 RGB ``[886, 1280, 3]``.

    Without insightface's test image it is the mirrored portrait, ``[192, 160, 3]``.
    """
    spec = importlib.util.find_spec("insightface")
    path = Path(spec.origin).parent / "data" / "images" / "t1.jpg" if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        return np.ascontiguousarray(portrait()[:, ::-1])
    return np.asarray(PIL.Image.open(path).convert("RGB"))


def stranger() -> Image:
    """Return another person's face, cropped from ``group``: uint8 RGB ``[300, 260, 3]``."""
    people = group()
    return people[200:500, 390:650] if people.shape[1] > 650 else people


def pan(image: Image, count: int, width: int, height: int) -> Frames:
    """Return a slow pan and zoom over ``image``, uint8 RGB ``[count, height, width, 3]``."""
    still = PIL.Image.fromarray(image)
    frames = []
    for i in range(count):
        share = i / max(1, count - 1)
        w, h = (side * (1 - 0.15 * share) for side in still.size)
        left, top = 0.1 * share * still.width, 0.05 * share * still.height
        box = (left, top, left + w, top + h)
        frames.append(np.asarray(still.resize((width, height), PIL.Image.Resampling.BICUBIC, box)))
    return np.stack(frames)


def tone(seconds: float) -> bytes:
    """Return an MP4 file with only an AAC track (mono, 48 kHz): a tone that rises in pitch."""
    t = np.arange(int(seconds * AUDIO_RATE)) / AUDIO_RATE
    wave = (0.2 * np.sin(2 * np.pi * (300 + 100 * t) * t)).astype(np.float32)[None]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = AUDIO_RATE
        frame.pts = 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


def clip(image: Image, count: int = 17, fps: int = 16, size: tuple[int, int] = (192, 224)) -> bytes:
    """Return an MP4 file of ``count`` frames that pan over ``image``, with ``tone`` as its audio.

    ``size`` is the width and height in pixels.
    """
    rate = Fraction(fps)
    encoder = Mp4Encoder(rate, preset="veryfast", crf=18, seconds=count / rate, draft=True)
    encoder.add(pan(image, count, *size), tuple(i / rate for i in range(count)))
    return with_sound(encoder, Sound(tone(count / fps))).read()


def with_sound(encoder: Mp4Encoder, sound: Sound) -> Spool:
    """Finish the draft of ``encoder`` and return the file with ``sound``.

    The sound is read in this process, so it must not come from a caller.
    """
    draft, film, track = encoder.close(), Spool.empty(), AudioTrack(sound)
    try:
        add_soundtrack(draft, track, film, end=encoder.end)
    finally:
        track.close()
        draft.close()
    return film


def data_uri(data: bytes, media_type: str) -> str:
    """Return ``data`` as a base64 data URI, which is how the API accepts files in JSON."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def jpeg(image: Image, quality: int = 85) -> bytes:
    """Encode uint8 RGB ``[height, width, 3]`` as JPEG."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
