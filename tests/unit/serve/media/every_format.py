"""A small file of every format that is read."""

import io

import numpy as np
import PIL.Image

from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_exif import ORIENTATION, exif_of
from tests.unit.serve.media.make_media import animation, film, webm
from tests.unit.serve.media.make_picture import encoded
from tests.unit.serve.media.make_profile import profile_of

FRAMES = pan(stranger(), 5, 64, 48)
WAVE = np.random.default_rng(3).uniform(-0.5, 0.5, (1, 24_000)).astype(np.float32)


def apng() -> bytes:
    images = [PIL.Image.fromarray(frame) for frame in FRAMES]
    buffer = io.BytesIO()
    images[0].save(buffer, "PNG", save_all=True, append_images=images[1:], duration=100)
    return buffer.getvalue()


IMAGES: dict[str, bytes] = {
    "JPEG": encoded("JPEG", 60, 50),
    "progressive JPEG": encoded("JPEG", 60, 50, progressive=True),
    "PNG": encoded("PNG", 60, 50, "RGBA"),
    "palette PNG": encoded("PNG", 60, 50, "P"),
    "WebP": encoded("WEBP", 60, 50),
    "lossless WebP": encoded("WEBP", 60, 50, "RGBA", lossless=True),
    "GIF": encoded("GIF", 60, 50),
    "AVIF": encoded("AVIF", 60, 50),
    "HEIC": encoded("HEIF", 60, 50, "RGBA"),
    "JPEG with a profile": encoded("JPEG", 60, 50, icc_profile=profile_of("Adobe RGB"), exif=exif_of([ORIENTATION])),
    "PNG with a profile": encoded("PNG", 60, 50, icc_profile=profile_of("Display P3"), exif=exif_of([ORIENTATION])),
}
ANIMATIONS: dict[str, bytes] = {
    "animated GIF": animation("GIF", FRAMES),
    "animated WebP": animation("WEBP", FRAMES),
    "animated PNG": apng(),
}
VIDEOS: dict[str, bytes] = {
    "MP4 with AAC": film("mp4", "aac", WAVE, "mono"),
    "QuickTime with PCM": film("mov", "pcm_s16le", WAVE, "mono"),
    "WebM": webm(FRAMES),
    "Matroska with Opus": film("matroska", "libopus", WAVE, "mono"),
}
