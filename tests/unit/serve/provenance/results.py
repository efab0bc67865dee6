"""Results as this service makes them, one of each format, and what they are marked with."""

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.images import encode_image
from serve.media.samples import stranger
from serve.media.spool import Media, Spool, read_media
from serve.provenance.statement import Statement
from serve.provenance_settings import ProvenanceSettings

FPS = Fraction(8)
MADE_AT = datetime(2026, 11, 26, 8, 30, tzinfo=UTC)
REQUEST_ID = "9f6f2f0e-provenance"
STATEMENT = Statement(kind="generated", models=("wan26",), request_id=REQUEST_ID, made_at=MADE_AT, seed=7)
EDITED = Statement(kind="edited", models=("face-swapper",), request_id=REQUEST_ID, made_at=MADE_AT)
PICTURE = np.ascontiguousarray(stranger()[:96, :128])
"""A picture, uint8 RGB ``[96, 128, 3]``."""
FRAMES = np.ascontiguousarray(np.stack([np.roll(PICTURE, 3 * i, axis=1) for i in range(6)]))


def video(encoder: Mp4Encoder | WebpEncoder | GifEncoder) -> Media:
    """Return ``FRAMES`` as the encoder writes them."""
    encoder.add(FRAMES, tuple(Fraction(i) / FPS for i in range(len(FRAMES))))
    return encoder.close()


def results() -> dict[str, tuple[str, Media]]:
    """Return a media type and a file for each kind of result."""
    return {
        "jpeg": ("image/jpeg", encode_image(PICTURE, "image/jpeg")),
        "png": ("image/png", encode_image(PICTURE, "image/png")),
        "webp": ("image/webp", encode_image(PICTURE, "image/webp")),
        "animated-webp": ("image/webp", video(WebpEncoder(FPS, method=0, count=len(FRAMES)))),
        "gif": ("image/gif", video(GifEncoder(FPS, count=len(FRAMES)))),
        "mp4": ("video/mp4", video(Mp4Encoder(FPS, preset="ultrafast", crf=20))),
    }


KINDS = ("jpeg", "png", "webp", "animated-webp", "gif", "mp4")


def on_disk(data: Media) -> Spool:
    """Return the same content in a file on disk."""
    spool = Spool.empty()
    spool.write(read_media(data))
    return spool


def signing(folder: Path, **c2pa: Any) -> ProvenanceSettings:
    """Return settings whose test certificate is in ``folder``, with time for a busy machine."""
    return ProvenanceSettings.model_validate({"c2pa": {"folder": folder, "timeout_s": 600, **c2pa}})


def flipped(data: bytes, at: int) -> bytes:
    """Return ``data`` with one bit of the byte at ``at`` changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
