"""JPEG files without the marker that ends them, as cameras and transfers leave them.

Browsers show them whole if all of the picture is there, and libjpeg does if the marker is added.
Where a part is missing, libjpeg would make up grey for it.
"""

import io

import PIL.Image
from PIL import ImageChops

START, END = b"\xff\xda", b"\xff\xd9"
"""The markers of a scan's start and of the image's end. Coded pixels contain neither."""
_FILLER = bytes(range(1, 251)) * 8
"""What could be coded pixels."""


def lacks_end(data: bytes) -> bool:
    """Return whether a file is a JPEG that ends within or right after its last scan."""
    return data[:2] == b"\xff\xd8" and not data.endswith(END) and data.rfind(END) < data.rfind(START)


def is_whole(image: PIL.Image.Image, data: bytes) -> bool:
    """Return whether nothing but the end is missing in ``data``, of which ``image`` was decoded.

    If anything is, more bytes before the end change the picture.
    """
    other = PIL.Image.open(io.BytesIO(data + _FILLER + END), formats=("JPEG",))
    other.draft(image.mode, image.size)  # the image may have been decoded at a part of its size
    return other.size == image.size and ImageChops.difference(other, image).getbbox() is None
