"""When the frames of a video are shown, as its packets say."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from serve.media.decode.holes import Place
from serve.media.decode.packet_roles import PacketRoles, Role
from serve.media.decode.source import SourceLimits
from serve.media.decode.stamps import stamp_of
from serve.media.errors import MediaError

_LATEST = 10**7
"""The largest timestamp that is accepted, in seconds: 115 days."""
_PRIMING = Fraction(1, 20)
"""How much earlier than the picture sound may begin without delaying it.

Encoders begin with up to 47 ms of silence, which is cut away when the file is played.
"""
_UNLIKE = Fraction(1, 4)
"""By what share the duration that all frames state may differ from their usual step in time.

Matroska states one for all frames, which programs get wrong: it may be that of a field. It would
count for the last frame alone.
"""


@dataclass
class Timeline:
    """What the packets of a file say about its video track; times are in seconds.

    ``count`` is the number of frames that are shown: an edit list can hide packets that are still
    in the file, and a file that was cut may begin with packets that cannot be decoded.
    """

    count: int = 0
    first_start: Fraction = Fraction(10**9)
    last_start: Fraction = Fraction(-(10**9))
    last_end: Fraction = Fraction(0)
    audio_start: Fraction | None = None
    file_end: Fraction = Fraction(0)
    """When the last packet of any stream ends, audio included."""
    places: list[Place] = field(default_factory=list)
    """The packets of the frames that are shown."""
    unit: Fraction = Fraction(1)
    """The seconds of 1 in the time stamps of ``places``."""
    durations: list[Fraction] = field(default_factory=list)
    """What the packets say how long their frames are shown, up to two that differ."""
    steps_back: bool = False
    """Whether a frame is shown before one that comes earlier in the file."""

    @property
    def clock_start(self) -> Fraction:
        """When playing begins: with the first frame, or with the sound if that comes earlier."""
        if self.audio_start is None or self.first_start - self.audio_start < _PRIMING:
            return self.first_start
        return self.audio_start

    def duration(self, frame_seconds: Fraction) -> Fraction:
        """Return the video's duration; ``frame_seconds`` is the mean duration of a frame."""
        step = self._usual_step()
        if len(self.durations) == 1 and 0 < step * _UNLIKE < abs(self.durations[0] - step) and self.durations[0] > 0:
            return self.last_start - self.first_start + step
        duration = self.last_end - self.first_start
        if duration <= 0 or self.last_start == self.last_end:  # the packets state no durations
            return self.last_start - self.first_start + frame_seconds
        return duration

    def _usual_step(self) -> Fraction:
        """Return the median of the seconds from one frame to the next, or 0 for a single frame."""
        starts = sorted(stamp for stamp, _ in self.places)
        steps = [after - before for before, after in pairwise(starts) if after > before]
        return median_low(steps) * self.unit if steps else Fraction(0)


def read_timeline(container: InputContainer, video: VideoStream, audio: AudioStream | None, limits: SourceLimits) -> Timeline:
    """Read all packets of ``container``, without decoding any.

    Raises ``MediaTooLarge`` for too many frames, and ``MediaError`` for a packet that is cut off
    and for times that no file of the service could hold.
    """
    roles = PacketRoles(video)
    shown, undecodable = Timeline(), Timeline()
    for packet in container.demux():
        stamp = stamp_of(packet)
        if stamp is None or packet.time_base is None or not packet.size:
            continue  # one of no bytes, as QuickTime has, shows the frame before for longer
        role = roles.of(packet) if _is_of(packet, video) else Role.SHOWN
        if packet.is_discard or role is Role.HIDDEN:
            continue
        if packet.is_corrupt:
            raise MediaError("the video is truncated: its last part is missing; send the complete file")
        start = check_time(stamp * packet.time_base)
        end = start + (packet.duration or 0) * packet.time_base
        shown.file_end = max(shown.file_end, end)
        if _is_of(packet, video):
            line = shown if role is Role.SHOWN else undecodable
            line.count += 1
            line.places.append((stamp, packet.pos or 0))
            line.unit = packet.time_base
            if len(line.durations) < 2 and end - start not in line.durations:
                line.durations.append(end - start)
            line.steps_back = line.steps_back or start < line.last_start
            line.first_start = min(line.first_start, start)
            line.last_start = max(line.last_start, start)
            line.last_end = max(line.last_end, end)
            limits.check_frames(line.count)
        elif _is_of(packet, audio) and (shown.audio_start is None or start < shown.audio_start):
            shown.audio_start = start
    if shown.count == 0:  # no packet is marked as a key frame: the mark is missing, not the frames
        undecodable.audio_start, undecodable.file_end = shown.audio_start, shown.file_end
        shown = undecodable
    if shown.count == 0:
        raise MediaError("the file contains no video frames; send MP4, WebM, GIF or WebP")
    return shown


def check_time(time: Fraction) -> Fraction:
    """Return ``time`` (seconds); raise ``MediaError`` if no file of the service could hold it."""
    if abs(time) > _LATEST:
        raise MediaError(f"the video has a timestamp of {float(time):.3g} seconds; re-encode the video")
    return time


def _is_of(packet: "Packet[Stream]", stream: Stream | None) -> bool:
    return stream is not None and packet.stream_index == stream.index
