"""The time stamps of a video track's packets, and which frames they belong to.

Most files say when each frame is shown. Some say only when each packet is decoded: Matroska tracks
in the mode for Video for Windows, and files of programs that know no reordered frames (B-frames).
There the frames are shown at these times in the order in which they leave the decoder.
"""

import heapq
from collections.abc import Sequence
from typing import Any

from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame


def has_codec_tag_of_avi(stream: Stream) -> bool:
    """Return whether ``stream`` is a Matroska track in the mode for Video for Windows.

    Only the names of codecs that were taken over from other containers leave a tag in Matroska.
    """
    context = stream.codec_context
    return "matroska" in stream.container.format.name and context is not None and bool(context.codec_tag.strip("\0"))


def stamp_of(timed: "Packet[Any] | VideoFrame") -> int | None:
    """Return the time stamp of a packet or a frame, or None if it has none."""
    return timed.pts if timed.pts is not None else timed.dts


_Waiting = tuple[int, int, bool]
"""The part of the film that a packet is in, its time stamp, and whether its frame must come."""


class Stamps:
    """Gives each frame of a track its time stamp, and finds the packets without a frame.

    Where an edit list has several entries, or films were joined, a film has parts. The first packet
    of a further part is a key frame whose time stamp is not after all of those before.

    ``in_order`` says that the stamps belong to the frames in the order in which they are shown, and
    ``lost`` are those of frames whose packets are not in the file any more.
    """

    def __init__(self, *, in_order: bool, lost: Sequence[int] = ()) -> None:
        self._in_order = in_order
        self._waiting: list[_Waiting] = [(0, stamp, True) for stamp in sorted(lost)]
        """The packets whose frames have not come."""
        self._part = 0
        self._latest: int | None = None
        """The latest time stamp of the packets of this part."""
        self._claimed: set[int] = set()
        """The time stamps of the frames that have come."""
        self._refused: set[int] = set(lost)
        """Those of packets that the decoder refused; kept only where ``in_order``."""
        self._missed: set[int] = set()
        """Those at which another frame is shown, because later ones came first."""
        self._last = 0
        self.untimed = False
        """Whether frames without a time have come."""

    def add(self, packet: "Packet[Any]", *, needed: bool) -> None:
        """Wait for the frame of ``packet``; without it something is damaged if it is ``needed``."""
        stamp = stamp_of(packet)
        if stamp is not None:
            heapq.heappush(self._waiting, (self._part, stamp, needed))

    def begins_part(self, packet: "Packet[Any]") -> bool:
        """Return whether a further part of the film begins with ``packet``, which may be hidden.

        It is asked of each packet, before that is added.
        """
        stamp = stamp_of(packet)
        if stamp is None or self._in_order:
            return False
        if begins := self._latest is not None and stamp <= self._latest and packet.is_keyframe:
            self._part += 1
        self._latest = stamp if begins or self._latest is None else max(self._latest, stamp)
        return begins

    def refuse(self, packet: "Packet[Any]") -> None:
        """Note that the decoder makes no frame of ``packet``."""
        stamp = stamp_of(packet)
        if self._in_order and stamp is not None:
            self._refused.add(stamp)

    def claim(self, frame: VideoFrame) -> tuple[int | None, list[int]]:
        """Return the time stamp of ``frame``, and those of the missing frames before it.

        The first is None if the frame is not shown. It may come too late: where a packet is lost,
        some decoders keep a frame back until the next one of its kind, and its stamp was missing
        before. It may come twice, or have no time.
        """
        return self._next() if self._in_order else self._own(frame)

    def missing(self) -> list[int]:
        """Return the time stamps of the frames that have not come."""
        return [stamp for _, stamp, needed in sorted(self._waiting) if needed]

    def _own(self, frame: VideoFrame) -> tuple[int | None, list[int]]:
        stamp = stamp_of(frame)
        if stamp is None or frame.time_base is None:
            self.untimed = True
            return None, []  # FFmpeg gives no times before 0 in Matroska: such packets are not counted either
        awaited = min((part for part, waiting, _ in self._waiting if waiting == stamp), default=None)
        if awaited is None and stamp in self._missed:
            self._missed.remove(stamp)
            return None, []
        if awaited is None and stamp in self._claimed:
            return None, []
        place = (self._waiting[0][0] if self._waiting and awaited is None else awaited or 0, stamp)
        lost = []
        while self._waiting and self._waiting[0][:2] < place:
            _, missed, needed = heapq.heappop(self._waiting)
            if needed:
                lost.append(missed)
        self._missed.update(lost)
        if awaited is not None:
            heapq.heappop(self._waiting)
        self._claimed.add(stamp)
        return stamp, lost

    def _next(self) -> tuple[int, list[int]]:
        lost = []
        while self._waiting:
            _, stamp, needed = heapq.heappop(self._waiting)
            if stamp in self._refused:
                self._refused.remove(stamp)
                lost += [stamp] if needed else []
            elif needed or not any(waits for *_, waits in self._waiting):
                self._last = stamp
                return stamp, lost
        self._last += 1  # a packet held more than one frame
        return self._last, lost
