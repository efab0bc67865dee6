"""Sample requests, one an endpoint: OpenAPI's examples, the payloads of `ryla smoke`, of the load test and of the tests.

The portraits are NASA's picture of Eileen Collins and the U.S. Navy's of Grace Hopper (both public domain). The tests and the
smoke test also use the group picture that the package insightface carries, where it is installed; it is not ours to ship.
"""

import base64
import importlib.util
import io
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
from av.audio.frame import AudioFrame

from deployments.wire import Image
from serve.media.encode import Mp4Encoder

PORTRAIT = Path(__file__).parent / "samples" / "portrait.jpg"
OFFICER = Path(__file__).parent / "samples" / "officer.jpg"
CLIP_RATE = 48_000


def portrait() -> Image:
    """A face that is large and seen from the front, uint8 RGB ``[192, 160, 3]``."""
    return np.asarray(PIL.Image.open(PORTRAIT).convert("RGB"))


def group() -> Image:
    """Six people, uint8 RGB ``[886, 1280, 3]``: insightface's own test picture if that is installed, else the portrait mirrored."""
    spec = importlib.util.find_spec("insightface")
    path = Path(spec.origin).parent / "data" / "images" / "t1.jpg" if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        return np.ascontiguousarray(portrait()[:, ::-1])
    return np.asarray(PIL.Image.open(path).convert("RGB"))


def stranger() -> Image:
    """Another face than the portrait's, cut from the group."""
    people = group()
    return people[200:500, 390:650] if people.shape[1] > 650 else people


def pan(image: Image, count: int, width: int, height: int) -> Image:
    """A moving picture made of a still one: a slow pan and zoom, uint8 ``[count, height, width, 3]``."""
    picture = PIL.Image.fromarray(image)
    frames = []
    for i in range(count):
        share = i / max(1, count - 1)
        w, h = (side * (1 - 0.15 * share) for side in picture.size)
        left, top = 0.1 * share * picture.width, 0.05 * share * picture.height
        frames.append(np.asarray(picture.resize((width, height), PIL.Image.Resampling.BICUBIC, (left, top, left + w, top + h))))
    return np.stack(frames)


def tone(seconds: float) -> bytes:
    """A file with an AAC track: a tone whose pitch rises."""
    t = np.arange(int(seconds * CLIP_RATE)) / CLIP_RATE
    wave = (0.2 * np.sin(2 * np.pi * (300 + 100 * t) * t)).astype(np.float32)[None]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=CLIP_RATE, layout="mono")
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = CLIP_RATE
        frame.pts = 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


def clip(image: Image, count: int = 17, fps: int = 16, size: tuple[int, int] = (192, 224)) -> bytes:
    """An MP4 of a moving picture, with sound."""
    rate = Fraction(fps)
    encoder = Mp4Encoder(rate, "veryfast", 18, tone(count / fps))
    encoder.add(pan(image, count, *size), tuple(i / rate for i in range(count)))
    return encoder.close().read()


def data_uri(data: bytes, media_type: str) -> str:
    """As the API takes it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def jpeg(image: Image, quality: int = 85) -> bytes:
    """Encodes a picture."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@cache
def example(name: str) -> dict[str, Any]:
    """A body for the endpoint ``name``, short enough for a document; all that is not in it is a default."""
    face = data_uri(PORTRAIT.read_bytes(), "image/jpeg")
    other = data_uri(jpeg(stranger()), "image/jpeg")
    officer = data_uri(OFFICER.read_bytes(), "image/jpeg")
    prompt = {"prompt": "a red circle moves to the right", "seed": 7}
    closer = {"prompt": "a portrait of an officer, the camera zooms in", "seed": 7}
    aside = {"prompt": "a smiling astronaut, the camera pans left", "seed": 7}
    bodies: dict[str, dict[str, Any]] = {
        "wan2.6": prompt,
        "wan2.6-i2v": {**aside, "reference_image": face},
        "wan2.6-i2v-faceswap": {**closer, "reference_image": officer, "face_image": face},
        "wan22-i2v": {**closer, "source_image": officer},
        "wan22-i2v-faceswap": {**aside, "source_image": face, "face_image": officer},
        "image-faceswap": {"source_image": other, "reference_image": face},
        "batch-video-faceswap": {"source_video": other, "reference_image": face},
    }
    return bodies[name]


@cache
def payload(name: str) -> dict[str, Any]:
    """The example, with a real clip where a video is due."""
    body = example(name)
    return {**body, "source_video": data_uri(clip(stranger()), "video/mp4")} if "source_video" in body else body
