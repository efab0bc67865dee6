"""Removal of the metadata that nobody needs from image files, before a library reads them.

Viewers show a photograph whatever some program has written into its comments. Pillow, however,
parses all of it and refuses the file for one broken entry. So only what decides how the picture
looks is left for it: the pixels, the orientation and the colour profile.
"""

from serve.media.heif import is_heif, strip_heif
from serve.media.strip.jpeg import strip_jpeg
from serve.media.strip.png import strip_png
from serve.media.strip.webp import strip_webp


def strip(data: bytes) -> bytes:
    """Return an image file without needless metadata, and other data as it is.

    What is not well formed is left to the decoder, which says what is wrong with it.
    """
    if data[:2] == b"\xff\xd8":
        return strip_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return strip_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return strip_webp(data)
    if is_heif(data):
        return strip_heif(data)
    return data
