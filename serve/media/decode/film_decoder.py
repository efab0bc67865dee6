"""Decoding of a video track of which some packets may be damaged."""

import heapq
from collections.abc import Iterator

from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from serve.media.decode.packet_roles import PacketRoles, Role
from serve.media.errors import MediaError

MOST_DAMAGED = 0.05
"""The share of the frames that may be damaged; a film with more is refused."""
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""The decoders that read transparency, which FFmpeg's own decoders of these codecs leave out."""


class FilmDecoder:
    """Decodes ``stream`` of ``container``; ``count`` is the number of frames that are expected.

    Where a packet yields no frame, or a corrupt one, the last good frame is shown instead, as
    players do, and ``damaged`` counts it. At the beginning it is the first good frame.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, count: int, max_pixels: int) -> None:
        self.damaged = 0
        self._container = container
        self._stream = stream
        self._count = count
        self._context = _open_decoder(stream, max_pixels)
        self._roles = PacketRoles(stream)
        self._waiting: list[tuple[int, bool]] = []
        """The time stamps of the packets whose frames have not come, and whether they must come."""

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in the order in which they are shown.

        Raises ``MediaError`` once more than ``MOST_DAMAGED`` of the frames are damaged.
        """
        last: VideoFrame | None = None
        early: list[int] = []
        """The time stamps of damaged frames before the first good one."""
        for packet in self._container.demux(self._stream):
            for frame in self._decode(packet):
                stamp = _stamp(frame)
                lost = early + self._lost_before(stamp)
                if frame.is_corrupt:
                    lost.append(stamp)
                shown = last if frame.is_corrupt else last or frame
                if shown is None:
                    early = lost
                    continue
                early = []
                yield from self._repeat(shown, lost)
                if not frame.is_corrupt:
                    frame.pts = stamp
                    last = frame
                    yield frame
        lost = sorted(stamp for stamp, needed in self._waiting if needed)
        if last is None:
            raise MediaError("the video is damaged: none of its frames can be decoded; send the complete file or re-encode it")
        yield from self._repeat(last, lost)

    def _decode(self, packet: "Packet[VideoStream]") -> list[VideoFrame]:
        if packet.size:
            role = self._roles.of(packet)
            stamp = packet.pts if packet.pts is not None else packet.dts
            if role is not Role.HIDDEN and stamp is not None:
                heapq.heappush(self._waiting, (stamp, role is Role.SHOWN))
        try:
            return self._context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:  # the packet is damaged, so its frame will be missed
            return []

    def _lost_before(self, stamp: int) -> list[int]:
        """Return the time stamps of the frames that are missing before the one at ``stamp``."""
        lost = []
        while self._waiting and self._waiting[0][0] < stamp:
            missed, needed = heapq.heappop(self._waiting)
            if needed:
                lost.append(missed)
        if self._waiting and self._waiting[0][0] == stamp:
            heapq.heappop(self._waiting)
        return lost

    def _repeat(self, frame: VideoFrame, stamps: list[int]) -> Iterator[VideoFrame]:
        """Yield ``frame`` once for each of ``stamps``, where other frames are damaged."""
        for stamp in stamps:
            self.damaged += 1
            if self.damaged > MOST_DAMAGED * self._count:
                raise MediaError(
                    f"the video is damaged: more than {MOST_DAMAGED:.0%} of its {self._count} frames cannot be decoded; "
                    "send the complete file or re-encode it"
                )
            before = frame.pts
            frame.pts = stamp
            yield frame
            frame.pts = before


def _open_decoder(stream: VideoStream, max_pixels: int) -> VideoCodecContext:
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and context.name in _ALPHA_DECODERS:
        decoder = CodecContext.create(_ALPHA_DECODERS[context.name], "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = context.extradata
        context = decoder
    # One thread: FFmpeg would start one for each core of the machine, each with frames of its own,
    # and this process works for one request of many.
    context.thread_count = 1
    # Frames may be larger than the header says: the decoder must refuse them before it allocates
    # their memory.
    context.options = {"max_pixels": str(2 * max_pixels)}
    return context


def _stamp(frame: VideoFrame) -> int:
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is None or frame.time_base is None:
        raise MediaError("the video's frames have no timestamps; re-encode the video")
    return stamp
