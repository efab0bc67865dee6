"""The transparency of PNG pictures of 16 bits a channel in which one colour is transparent."""

import struct

import numpy as np
import numpy.typing as npt
import PIL.Image
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from PIL.PngImagePlugin import PngImageFile

_HEADER = struct.Struct(">8xI4sIIBB")
"""The signature, and the header's length, type, width, height, depth and kind of colours."""
_RGB = 2


def alpha_of_key(image: PIL.Image.Image) -> PIL.Image.Image | None:
    """Return the alpha channel of an RGB picture with a transparent colour of 16 bits a channel.

    Pillow keeps only 8 bits of each channel, in which other colours are the same. ``image`` must
    not be decoded yet. The result is None for any other picture.
    """
    if not isinstance(image, PngImageFile) or not isinstance(image.info.get("transparency"), tuple):
        return None
    file = image.fp
    if file is None:
        return None
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[4:] != (16, _RGB):
        return None
    decoder = CodecContext.create("png", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    (frame,) = decoder.decode(Packet(data))
    rgba: npt.NDArray[np.uint16] = np.asarray(frame.to_ndarray(format="rgba64le"), np.uint16)
    return PIL.Image.fromarray((rgba[..., 3] >> 8).astype(np.uint8))


def alpha_of_grey_key(image: PIL.Image.Image) -> PIL.Image.Image | None:
    """Return the alpha channel of a grey picture of 16 bits with a transparent level, or None."""
    level = image.info.get("transparency")
    if not isinstance(level, int):
        return None
    return PIL.Image.fromarray(np.where(np.asarray(image) == level, 0, 255).astype(np.uint8))
