"""The audio track of an MP4 file, copied or transcoded from another file."""

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from serve.media.boundary import reading
from serve.media.container import open_container
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.spool import Media

_AudioPacket: TypeAlias = "Packet[AudioStream]"

_COPIED_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "alac"}
"""The codecs that MP4 can hold; audio in any other codec is transcoded to AAC."""
AUDIO_DAMAGED = ("the audio is damaged or in an unsupported format", "send the video without audio, or with AAC")
MAX_CPU_S = 30.0
"""The CPU time that transcoding may take: a few bytes of a lossless codec can be hours of silence.

Two minutes of stereo take one to two seconds.
"""
_MAX_AAC_RATE = 48_000
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""The usual layout for each number of channels, for files that state only their number."""


class AudioTrack:
    """Writes the first audio stream of ``file`` to ``container``, in step with the video.

    The packets are copied with their timing if MP4 can hold their codec, and transcoded to AAC
    otherwise. All methods raise ``MediaError`` for audio that is damaged or cannot be decoded, and
    ``MediaTooLarge`` for audio that takes more than ``MAX_CPU_S`` seconds of CPU time.
    """

    def __init__(self, file: Media, container: OutputContainer) -> None:
        self._container = container
        self._source = open_container(file)
        self._left_s = MAX_CPU_S
        try:
            with reading(*AUDIO_DAMAGED):
                self._packets = _open_packets(self._source, container)
                self._pending = next(self._packets, None)
        except BaseException:
            self._source.close()
            raise

    def mux_until(self, end: Fraction | None) -> None:
        """Write the packets that start at or before ``end`` (seconds), or all the rest if None."""
        with reading(*AUDIO_DAMAGED):
            while (packet := self._pending) is not None:
                if end is not None and packet.pts is not None and packet.pts * packet.time_base > end:
                    return
                self._container.mux(packet)
                started = time.thread_time()
                self._pending = next(self._packets, None)
                self._left_s -= time.thread_time() - started
                if self._left_s < 0:
                    raise MediaTooLarge("the audio is too long; send the video without audio, or with shorter audio")

    def close(self) -> None:
        """Close the file that the audio is read from."""
        self._source.close()


def _open_packets(source: InputContainer, container: OutputContainer) -> Iterator[_AudioPacket]:
    """Add an audio stream to ``container`` and return the packets for it."""
    stream = source.streams.audio[0]
    if stream.codec_context is None:
        raise MediaError("the audio is in an unsupported format; send the video without audio, or with AAC")
    if stream.codec_context.name in _COPIED_CODECS:
        return _copy(source, stream, container.add_stream_from_template(stream))
    layout = stream.layout.name
    if layout.endswith("channels"):  # FFmpeg's name for a layout of which it knows only the number
        layout = _DEFAULT_LAYOUTS.get(stream.layout.nb_channels, "stereo")
    encoder = container.add_stream("aac", rate=min(stream.rate, _MAX_AAC_RATE), layout=layout)
    return _transcode(source, stream, encoder)


def _copy(source: InputContainer, stream: AudioStream, target: AudioStream) -> Iterator[_AudioPacket]:
    last: int | None = None
    for packet in source.demux(stream):
        if packet.dts is not None:  # the packet without a time marks the end of the stream
            # The muxer refuses times that repeat or step back, which recorders write.
            packet.dts = packet.dts if last is None else max(packet.dts, last + 1)
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
            last = packet.dts
            packet.stream = target
            yield packet


def _transcode(source: InputContainer, stream: AudioStream, encoder: AudioStream) -> Iterator[_AudioPacket]:
    resampler = AudioResampler(format="fltp", layout=encoder.layout, rate=encoder.rate)
    for frame in source.decode(stream):
        for resampled in resampler.resample(frame):
            yield from encoder.encode(resampled)
    yield from encoder.encode(None)
