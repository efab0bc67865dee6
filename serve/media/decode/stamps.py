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

from serve.media.errors import MediaError


def has_codec_tag_of_avi(stream: Stream) -> bool:
    """Return whether ``stream`` is a Matroska track in the mode for Video for Windows.

    Only the names of codecs that were taken over from other containers leave a tag in Matroska.
    """
    context = stream.codec_context
    return "matroska" in stream.container.format.name and context is not None and bool(context.codec_tag.strip("\0"))


def stamp_of(timed: "Packet[Any] | VideoFrame") -> int | None:
    """Return the time stamp of a packet or a frame, or None if it has none."""
    return timed.pts if timed.pts is not None else timed.dts


class Stamps:
    """Gives each frame of a track its time stamp, and finds the packets without a frame.

    ``in_order`` says that the stamps belong to the frames in the order in which they are shown, and
    ``lost`` are those of frames whose packets are not in the file any more.
    """

    def __init__(self, *, in_order: bool, lost: Sequence[int] = ()) -> None:
        self._in_order = in_order
        self._waiting: list[tuple[int, bool]] = [(stamp, True) for stamp in sorted(lost)]
        """The time stamps of the packets whose frames have not come, and whether they must come."""
        self._refused: set[int] = set(lost)
        """Those of packets that the decoder refused; kept only where ``in_order``."""
        self._missed: set[int] = set()
        """Those at which another frame is shown, because later ones came first."""
        self._last = 0

    def add(self, packet: "Packet[Any]", *, needed: bool) -> None:
        """Wait for the frame of ``packet``; without it something is damaged if it is ``needed``."""
        stamp = stamp_of(packet)
        if stamp is not None:
            heapq.heappush(self._waiting, (stamp, needed))

    def refuse(self, packet: "Packet[Any]") -> None:
        """Note that the decoder makes no frame of ``packet``."""
        stamp = stamp_of(packet)
        if self._in_order and stamp is not None:
            self._refused.add(stamp)

    def claim(self, frame: VideoFrame) -> tuple[int | None, list[int]]:
        """Return the time stamp of ``frame``, and those of the missing frames before it.

        The first is None if the frame comes too late: where a packet is lost, some decoders keep a
        frame back until the next one of its kind, and its stamp was missing before.
        """
        return self._next() if self._in_order else self._own(frame)

    def missing(self) -> list[int]:
        """Return the time stamps of the frames that have not come."""
        return sorted(stamp for stamp, needed in self._waiting if needed)

    def _own(self, frame: VideoFrame) -> tuple[int | None, list[int]]:
        stamp = stamp_of(frame)
        if stamp is None or frame.time_base is None:
            raise MediaError("the video's frames have no timestamps; re-encode the video")
        if stamp in self._missed:
            self._missed.remove(stamp)
            return None, []
        lost = []
        while self._waiting and self._waiting[0][0] < stamp:
            missed, needed = heapq.heappop(self._waiting)
            if needed:
                lost.append(missed)
        self._missed.update(lost)
        if self._waiting and self._waiting[0][0] == stamp:
            heapq.heappop(self._waiting)
        return stamp, lost

    def _next(self) -> tuple[int, list[int]]:
        lost = []
        while self._waiting:
            stamp, needed = heapq.heappop(self._waiting)
            if stamp in self._refused:
                self._refused.remove(stamp)
                lost += [stamp] if needed else []
            elif needed or not any(waits for _, waits in self._waiting):
                self._last = stamp
                return stamp, lost
        self._last += 1  # a packet held more than one frame
        return self._last, lost
