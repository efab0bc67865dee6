"""The audio track of an MP4 file, copied or transcoded from another file."""

import io
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import InvalidDataError
from av.packet import Packet

from serve.media.aac import AacResampler, aac_encoder, aac_layout, aac_rate
from serve.media.boundary import reading
from serve.media.container import open_container
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.sound import Sound
from serve.media.spool import Media, media_size
from serve.media.tracks import heard_audio

_AudioPacket: TypeAlias = "Packet[AudioStream]"

_COPIED_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "alac"}
"""The codecs that MP4 can hold; audio in any other codec is transcoded to AAC."""
AUDIO_DAMAGED = ("the audio is damaged or in an unsupported format", "send the video without audio, or with AAC")
MAX_CPU_S = 30.0
"""The CPU time that transcoding may take: a few bytes of a lossless codec can be hours of silence.

Two minutes of stereo take one to two seconds.
"""
MAX_EXTRA_BYTES = 2**26
"""How many bytes more than the whole file the sound may have: an hour of AAC.

A file can name the same bytes as its sound again and again, and a lossless codec makes silence
almost as small as nothing.
"""
_REHEARSED_S = 1
"""How much of the sound is decoded before it is known to be usable."""


class AudioTrack:
    """Reads ``sound``, and writes it to an MP4 file in step with the video.

    The packets are copied with their timing if MP4 can hold their codec, and transcoded to AAC
    otherwise; ``transcoded`` says which. All methods raise ``MediaError`` for audio that is damaged
    or cannot be decoded, and ``MediaTooLarge`` for audio that takes more than ``MAX_CPU_S`` seconds
    of CPU time or ``MAX_EXTRA_BYTES`` more than its file.

    The libraries that read the sound can crash, so only worker processes use this class.
    """

    def __init__(self, sound: Sound) -> None:
        self._source = open_container(sound.file)
        self._left_s = MAX_CPU_S
        self._left_bytes = media_size(sound.file) + MAX_EXTRA_BYTES
        self._container: OutputContainer | None = None
        self._target: AudioStream | None = None
        self._ready: deque[_AudioPacket] = deque()
        self._next: _AudioPacket | None = None
        try:
            with reading(*AUDIO_DAMAGED):
                self._stream = _stream_of(self._source)
                self.transcoded = not (sound.copied and self._stream.codec_context.codec.canonical_name in _COPIED_CODECS)
                packets = _transcode(self._source, self._stream) if self.transcoded else _copy(self._source, self._stream)
                self._packets = _in_order(packets, sound.start)
        except BaseException:
            self._source.close()
            raise

    def add_to(self, container: OutputContainer) -> None:
        """Add an audio stream to ``container``, to which ``mux_until`` then writes."""
        with reading(*AUDIO_DAMAGED):
            self._container = container
            if self.transcoded:
                rate, layout = aac_rate(self._stream.rate), aac_layout(self._stream.layout)
                self._target = container.add_stream("aac", rate=rate, layout=layout)
            else:
                self._target = container.add_stream_from_template(self._stream)

    def prepare_until(self, end: Fraction) -> None:
        """Transcode what starts at or before ``end`` (seconds), for a later call of ``mux_until``.

        Audio that is copied needs no preparation.
        """
        if self.transcoded:
            with reading(*AUDIO_DAMAGED):
                self._ready.extend(self._read_until(end))

    def mux_until(self, end: Fraction | None) -> None:
        """Write the packets that start at or before ``end`` (seconds), or all the rest if None."""
        with reading(*AUDIO_DAMAGED):
            while self._ready and _starts_by(self._ready[0], end):
                self._mux(self._ready.popleft())
            if not self._ready:
                for packet in self._read_until(end):
                    self._mux(packet)

    def close(self) -> None:
        """Close the file that the audio is read from."""
        self._source.close()

    def _mux(self, packet: _AudioPacket) -> None:
        assert self._container is not None
        assert self._target is not None
        packet.stream = self._target
        self._container.mux(packet)

    def _read_until(self, end: Fraction | None) -> Iterator[_AudioPacket]:
        while True:
            packet, self._next = self._next or self._read(), None
            if packet is None:
                return
            if not _starts_by(packet, end):
                self._next = packet
                return
            yield packet

    def _read(self) -> "_AudioPacket | None":
        """Return the next packet, within the budgets, or None at the end."""
        started = time.thread_time()
        packet = next(self._packets, None)
        self._left_s -= time.thread_time() - started
        self._left_bytes -= 0 if packet is None else packet.size
        if self._left_s < 0 or self._left_bytes < 0:
            raise MediaTooLarge("the audio is too long; send the video without audio, or with shorter audio")
        return packet


def find_sound(file: Media, start: Fraction) -> Sound:
    """Return the sound of ``file``, whose video begins at ``start`` seconds.

    All of it is copied, or transcoded, once to nowhere, so that what is wrong with it is found
    before anybody works on the video. If copying fails, the sound is transcoded instead, of which
    only the beginning is tried. Raises ``MediaError`` if neither is possible.
    """
    try:
        sound = Sound(file, start, copied=True)
        _rehearse(sound, None)
    except MediaTooLarge:
        raise
    except MediaError:
        sound = Sound(file, start, copied=False)
        _rehearse(sound, Fraction(_REHEARSED_S))
    return sound


def _rehearse(sound: Sound, end: Fraction | None) -> None:
    """Write ``sound`` to nowhere, up to ``end`` if it must be transcoded."""
    with reading(*AUDIO_DAMAGED):
        container = av.open(_Nowhere(), "w", format="mp4")
        track = AudioTrack(sound)
        try:
            track.add_to(container)
            track.mux_until(end if track.transcoded else None)
        finally:
            track.close()
        container.close()


class _Nowhere(io.RawIOBase):
    """A file that forgets what is written to it."""

    def __init__(self) -> None:
        self._position = self._size = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def write(self, data: object) -> int:
        length = memoryview(data).nbytes  # type: ignore[arg-type]
        self._position += length
        self._size = max(self._size, self._position)
        return length


def _stream_of(source: InputContainer) -> AudioStream:
    stream = heard_audio(source)
    if stream is None or stream.codec_context is None:
        raise MediaError("the audio is in an unsupported format; send the video without audio, or with AAC")
    return stream


def _starts_by(packet: _AudioPacket, end: Fraction | None) -> bool:
    """Return whether ``packet`` starts at or before ``end`` (seconds); all do if that is None."""
    return end is None or packet.pts is None or packet.pts * packet.time_base <= end


def _in_order(packets: Iterable[_AudioPacket], start: Fraction) -> Iterator[_AudioPacket]:
    """Yield ``packets`` with ``start`` subtracted from their times, which strictly increase.

    The muxer refuses times that repeat or step back, which recorders write.
    """
    last: int | None = None
    for packet in packets:
        assert packet.dts is not None
        shift = round(start / packet.time_base)
        dts = packet.dts - shift
        packet.dts = dts if last is None else max(dts, last + 1)
        packet.pts = packet.dts if packet.pts is None else max(packet.pts - shift, packet.dts)
        last = packet.dts
        yield packet


def _copy(source: InputContainer, stream: AudioStream) -> Iterator[_AudioPacket]:
    return _with_length(_heard(source, stream), stream)


def _heard(source: InputContainer, stream: AudioStream) -> Iterator[_AudioPacket]:
    heard = cut = False
    for packet in source.demux(stream):
        if packet.dts is None:  # the packet without a time marks the end of the stream
            continue
        if packet.is_discard and heard:  # an edit list cuts it away
            cut = True
        elif cut and packet.size:
            raise MediaError("the audio has a part in its middle that is not played; re-encode it")
        elif not cut:
            heard = heard or not packet.is_discard
            yield packet


def _with_length(packets: Iterable[_AudioPacket], stream: AudioStream) -> Iterator[_AudioPacket]:
    """Yield ``packets``; the last one states how long it lasts, or it would not be played.

    The others last until the next one begins. Matroska states no durations of ALAC.
    """
    held: _AudioPacket | None = None
    for packet in packets:
        if held is not None:
            yield held
        held = packet
    if held is not None:
        if not held.duration:
            samples = sum(frame.samples for frame in _decode(stream, held))
            held.duration = math.ceil(Fraction(samples, stream.rate) / held.time_base)
        yield held


def _transcode(source: InputContainer, stream: AudioStream) -> Iterator[_AudioPacket]:
    encoder = aac_encoder(stream)
    resampler = AacResampler(encoder)
    heard = damaged = False
    end: int | None = None
    for packet in source.demux(stream):
        damaged = damaged or packet.size > 0
        for frame in _decode(stream, packet):
            heard = True
            if frame.pts is None:  # what a decoder has kept back comes without a time
                frame.pts = end
            end = _end_of(frame)
            for resampled in resampler.resample(frame):
                yield from encoder.encode(resampled)
    if heard:
        for resampled in resampler.resample(None):
            yield from encoder.encode(resampled)
        yield from encoder.encode(None)
    elif damaged:
        raise MediaError("the audio cannot be decoded; send the video without audio, or with AAC")


def _end_of(frame: AudioFrame) -> int | None:
    """Return the time at which ``frame`` ends, in its own unit, or None if it has no time."""
    if frame.pts is None or not frame.time_base or not frame.sample_rate:
        return None
    return frame.pts + round(Fraction(frame.samples, frame.sample_rate) / frame.time_base)


def _decode(stream: AudioStream, packet: _AudioPacket) -> list[AudioFrame]:
    """Return the frames of ``packet``; a damaged one is left out, as players do."""
    try:
        return stream.decode(packet)
    except InvalidDataError:
        return []
