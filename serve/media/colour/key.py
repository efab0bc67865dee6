"""The transparency of PNG pictures in which one colour is transparent, where Pillow errs."""

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
_GREY, _RGB = 0, 2


def alpha_of_key(image: PIL.Image.Image) -> PIL.Image.Image | None:
    """Return the alpha channel of an RGB picture with a transparent colour of 16 bits a channel.

    Pillow keeps only 8 bits of each channel, in which other colours are the same. ``image`` must
    not be decoded yet. The result is None for any other picture.
    """
    if not isinstance(image, PngImageFile) or not isinstance(image.info.get("transparency"), tuple):
        return None
    data = _file_of(image)
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[4:] != (16, _RGB):
        return None
    decoder = CodecContext.create("png", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    (frame,) = decoder.decode(Packet(data))
    rgba: npt.NDArray[np.uint16] = np.asarray(frame.to_ndarray(format="rgba64le"), np.uint16)
    return PIL.Image.fromarray((rgba[..., 3] >> 8).astype(np.uint8))


def scale_grey_key(image: PIL.Image.Image) -> None:
    """Scale the transparent level of a grey picture of less than 8 bits as Pillow does all others.

    Pillow compares it with them as it is in the file. ``image`` must not be decoded yet.
    """
    level = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or not isinstance(level, int) or image.mode not in ("1", "L"):
        return
    data = _file_of(image)
    if len(data) < _HEADER.size:
        return
    depth, kind = _HEADER.unpack_from(data)[4:]
    if kind == _GREY and depth < 8 and level < 2**depth:  # unless it has been scaled
        image.info["transparency"] = level * 255 // (2**depth - 1)


def _file_of(image: PngImageFile) -> bytes:
    """Return the file of a picture that is not decoded yet, or nothing once it is."""
    file = image.fp
    if file is None:
        return b""
    position = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(position)
    return data


def alpha_of_grey_key(image: PIL.Image.Image) -> PIL.Image.Image | None:
    """Return the alpha channel of a grey picture of 16 bits with a transparent level, or None."""
    level = image.info.get("transparency")
    if not isinstance(level, int):
        return None
    return PIL.Image.fromarray(np.where(np.asarray(image) == level, 0, 255).astype(np.uint8))
