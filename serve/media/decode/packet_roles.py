"""Which packets of a video track a decoder turns into frames that are shown."""

from enum import Enum
from typing import Any

from av.packet import Packet
from av.video.stream import VideoStream

from serve.media.decode.mpeg4 import EmptyPictures

_VP8_SHOWN = 0x10
"""The bit in the first byte of a VP8 frame that says that it is shown, not only referred to."""
_HEVC_SKIPPED = {8, 9}
"""HEVC's types of leading pictures that refer to what is before the first key frame (RASL)."""
_HEVC_FIRST_NOT_PICTURE = 32


class Role(Enum):
    """What becomes of a packet."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    """An edit list cuts it away, or its codec marks it as a mere reference or as no picture."""
    UNDECODABLE = "undecodable"
    """It refers to frames before the beginning of the file, which no player can show."""


class PacketRoles:
    """Tells the role of each packet of ``stream``, which are given in the order of the file.

    A file that was cut without encoding it again may begin with pictures that refer to what has
    been cut away (an open group of pictures).
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context.name
        extradata = stream.codec_context.extradata or b""
        self._length_bytes = (extradata[21] & 3) + 1 if len(extradata) > 21 and extradata[0] == 1 else 0
        self._empty = EmptyPictures(extradata) if self._codec == "mpeg4" else None
        self._begun = False
        self._first_key: int | None = None
        """The time stamp of the first key frame, if it has one."""

    def of(self, packet: "Packet[Any]") -> Role:
        """Return the role of the next packet."""
        role = self._in_decoder(packet)
        return Role.HIDDEN if packet.is_discard or self._makes_no_frame(packet) else role

    def _makes_no_frame(self, packet: "Packet[Any]") -> bool:
        if self._empty is not None:
            return self._empty.is_in(bytes(packet))
        return self._codec == "vp8" and packet.size > 0 and not memoryview(packet)[0] & _VP8_SHOWN

    def _in_decoder(self, packet: "Packet[Any]") -> Role:
        if not self._begun:
            if not packet.is_keyframe:
                return Role.UNDECODABLE
            self._begun, self._first_key = True, packet.pts
            return Role.SHOWN
        leads = self._first_key is not None and packet.pts is not None and packet.pts < self._first_key
        return Role.UNDECODABLE if leads and not self._stands_alone(packet) else Role.SHOWN

    def _stands_alone(self, packet: "Packet[Any]") -> bool:
        """Return whether a leading picture refers only to what is in the file."""
        if self._codec in ("vp8", "vp9", "av1"):
            return True  # they have no leading pictures: the time stamp is wrong
        if self._codec != "hevc" or not self._length_bytes:
            return False
        data, at = memoryview(packet), 0
        while at + self._length_bytes < len(data):
            kind = data[at + self._length_bytes] >> 1 & 0x3F
            if kind < _HEVC_FIRST_NOT_PICTURE:
                return kind not in _HEVC_SKIPPED
            at += self._length_bytes + int.from_bytes(data[at : at + self._length_bytes], "big")
        return False
