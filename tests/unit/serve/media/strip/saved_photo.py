"""A small photograph, saved in the formats of pictures."""

import io

import PIL.Image

from serve.media.samples import stranger

PHOTO = PIL.Image.fromarray(stranger()).resize((60, 40))


def saved(kind: str, **options: object) -> bytes:
    """Return the photograph, 60 x 40 pixels, as a file; ``options`` are Pillow's."""
    buffer = io.BytesIO()
    PHOTO.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}), **options)
    return buffer.getvalue()
