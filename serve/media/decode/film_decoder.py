"""Decoding of a video track of which some packets may be damaged."""

from collections.abc import Iterator

from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from serve.media.decode.packet_roles import PacketRoles, Role
from serve.media.decode.stamps import Stamps
from serve.media.errors import MediaError

MOST_DAMAGED = 0.05
"""The share of the frames that may be damaged; a film with more is refused."""
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""The decoders that read transparency, which FFmpeg's own decoders of these codecs leave out."""


class FilmDecoder:
    """Decodes ``stream`` of ``container``; ``count`` is the number of frames that are expected.

    ``stamps`` gives the frames their time stamps, and has seen none of them yet. Where a packet
    yields no frame, or a corrupt one, the last good frame is shown instead, as players do, and
    ``damaged`` counts it. At the beginning it is the first good frame.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, count: int, max_pixels: int, stamps: Stamps) -> None:
        self.damaged = 0
        self._container = container
        self._stream = stream
        self._count = count
        self._context = _open_decoder(stream, max_pixels)
        self._roles = PacketRoles(stream)
        self._stamps = stamps
        self._empty_end: int | None = None
        """The time stamp of the last packet if it makes no frame.

        FFmpeg's decoder of MPEG-4 then repeats the last frame at the end of the film.
        """

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in the order in which they are shown.

        Raises ``MediaError`` once more than ``MOST_DAMAGED`` of the frames are damaged.
        """
        last: VideoFrame | None = None
        early: list[int] = []
        """The time stamps of damaged frames before the first good one."""
        for packet in self._container.demux(self._stream):
            if not packet.size and packet.pts is not None:
                continue  # to the decoder, a packet of no bytes would be the end
            for frame in self._decode(packet):
                if not packet.size and frame.pts is not None and frame.pts == self._empty_end:
                    continue
                stamp, missed = self._stamps.claim(frame)
                if stamp is None:
                    continue
                lost = early + missed
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
        if last is None and self._stamps.untimed:
            raise MediaError("the video's frames have no timestamps; re-encode the video")
        if last is None:
            raise MediaError("the video is damaged: none of its frames can be decoded; send the complete file or re-encode it")
        yield from self._repeat(last, self._stamps.missing())

    def _decode(self, packet: "Packet[VideoStream]") -> list[VideoFrame]:
        kept_back: list[VideoFrame] = []
        if packet.size:
            role = self._roles.of(packet)
            self._empty_end = packet.pts if role is Role.HIDDEN else None
            if self._stamps.begins_part(packet):
                kept_back = self._kept_back()
            if role is not Role.HIDDEN:
                self._stamps.add(packet, needed=role is Role.SHOWN)
        try:
            return kept_back + self._context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:  # the packet is damaged, so its frame will be missed
            self._stamps.refuse(packet)
            return kept_back

    def _kept_back(self) -> list[VideoFrame]:
        """Return the last frames of a part, and prepare the decoder for the next one.

        It would sort the frames of both into one order.
        """
        try:
            frames = self._context.decode(None)
        except MemoryError:
            raise
        except FFmpegError:
            frames = []
        for frame in frames:  # which have it from their packets otherwise
            frame.time_base = self._stream.time_base
        self._context.flush_buffers()
        return frames

    def _repeat(self, frame: VideoFrame, stamps: list[int]) -> Iterator[VideoFrame]:
        """Yield ``frame`` once for each of ``stamps``, where other frames are damaged."""
        for stamp in stamps:
            self.damaged += 1
            check_damaged(self.damaged, self._count)
            before = frame.pts
            frame.pts = stamp
            yield frame
            frame.pts = before


def check_damaged(damaged: int, count: int) -> None:
    """Raise ``MediaError`` if more than ``MOST_DAMAGED`` of ``count`` frames are damaged."""
    if damaged > MOST_DAMAGED * count:
        raise MediaError(
            f"the video is damaged: more than {MOST_DAMAGED:.0%} of its {count} frames cannot be decoded; "
            "send the complete file or re-encode it"
        )


def _open_decoder(stream: VideoStream, max_pixels: int) -> VideoCodecContext:
    context = stream.codec_context
    marks = {name.lower(): value for name, value in stream.metadata.items()}  # a tag may be written in capitals
    if marks.get("alpha_mode") == "1" and context.name in _ALPHA_DECODERS:
        decoder = CodecContext.create(_ALPHA_DECODERS[context.name], "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = context.extradata
        for name in ("color_primaries", "color_trc", "colorspace", "color_range"):  # which only the container may state
            setattr(decoder, name, getattr(context, name))
        context = decoder
    # One thread: FFmpeg would start one for each core of the machine, each with frames of its own,
    # and this process works for one request of many.
    context.thread_count = 1
    # Frames may be larger than the header says: the decoder must refuse them before it allocates
    # their memory.
    context.options = {"max_pixels": str(2 * max_pixels)}
    return context
