"""Decoding of MP4, QuickTime, WebM and Matroska files with PyAV."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from deployments.wire import Image
from serve.media.boundary import reading
from serve.media.container import is_matroska, open_container
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.source import STILL_FPS, Source, SourceLimits
from serve.media.spool import Media

_LATEST = 10**7
"""The largest timestamp that is accepted, in seconds: 115 days."""
_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED


class _Video(Source):
    """A video file; ``max_pixels`` is the limit for each decoded frame."""

    def __init__(self, data: Media, count: int, duration: Fraction, *, has_audio: bool, pixels: int, max_pixels: int) -> None:
        super().__init__(count, duration, data if has_audio else None, pixels=pixels)
        self._data = data
        self._max_pixels = max_pixels

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        decoded = 0
        with reading("the video is damaged", "send the complete file or re-encode it"), open_container(self._data) as container:
            stream = container.streams.video[0]
            # One thread: FFmpeg would start one for each core of the machine, each with frames of
            # its own, and this process works for one request of many.
            stream.codec_context.thread_count = 1
            # Frames may be larger than the header says: the decoder must refuse them before it
            # allocates their memory.
            stream.codec_context.options = {"max_pixels": str(2 * self._max_pixels)}
            size: tuple[int, int] | None = None
            for frame in container.decode(stream):
                if frame.pts is None or frame.time_base is None:
                    raise MediaError("the video's frames have no timestamps; re-encode the video")
                size = size or _upright_size(frame)
                if frame.width * frame.height > self._max_pixels:
                    raise MediaTooLarge(
                        f"the video has a frame of {frame.width} x {frame.height} pixels; "
                        f"at most {self._max_pixels} pixels are accepted: scale it down"
                    )
                yield _to_rgb(frame, *size), _check_time(frame.pts * frame.time_base)
                decoded += 1
        if decoded < self.count:
            raise MediaError(
                f"the video is damaged or truncated: only {decoded} of its {self.count} frames can be decoded; "
                "send the complete file"
            )


def open_video(data: Media, limits: SourceLimits) -> Source:
    """Open a video file: read its packets to learn its size and length, without decoding a frame.

    Raises ``MediaError`` for an unsupported, damaged or truncated file and ``MediaTooLarge`` for
    one that exceeds ``limits``.
    """
    with reading("the video is damaged or truncated", "send MP4, WebM, GIF or WebP"), open_container(data) as container:
        if not container.streams.video:
            raise MediaError("the file contains no video; send MP4, WebM, GIF or WebP")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise MediaError("the video is in a codec that is not supported; re-encode it as H.264")
        limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
        if stream.frames:
            limits.check_frames(stream.frames)
        timeline = _read_timeline(container, stream, limits)
        frame_seconds = 1 / Fraction(stream.average_rate or STILL_FPS)
        stated_seconds = Fraction(container.duration or 0, av.time_base)
        # MP4 also states its number of frames; for WebM the duration alone shows a missing end.
        tolerance = 2 * frame_seconds + Fraction(1, 10) if is_matroska(data) else max(Fraction(1), stated_seconds / 20)
        _check_complete(timeline, stated_frames=stream.frames, stated_seconds=stated_seconds, tolerance=tolerance)
        duration = timeline.duration(frame_seconds)
        limits.check_seconds(float(duration))
        has_audio = bool(container.streams.audio)
        pixels = stream.codec_context.width * stream.codec_context.height or limits.pixels
        return _Video(data, timeline.count, duration, has_audio=has_audio, pixels=pixels, max_pixels=limits.pixels)


@dataclass
class _Timeline:
    """What the packets of a file say about its video stream; times are in seconds.

    ``stored`` counts all packets of the stream, ``count`` only those that the decoder will show:
    an edit list can hide packets that are still in the file.
    """

    stored: int = 0
    count: int = 0
    first_start: Fraction = Fraction(10**9)
    last_start: Fraction = Fraction(-(10**9))
    last_end: Fraction = Fraction(0)
    file_end: Fraction = Fraction(0)
    """When the last packet of any stream ends, audio included."""

    def duration(self, frame_seconds: Fraction) -> Fraction:
        """Return the video's duration; ``frame_seconds`` is the mean duration of a frame."""
        duration = self.last_end - self.first_start
        if duration <= 0 or self.last_start == self.last_end:  # the packets state no durations
            return self.last_start - self.first_start + frame_seconds
        return duration


def _read_timeline(container: InputContainer, stream: VideoStream, limits: SourceLimits) -> _Timeline:
    timeline = _Timeline()
    for packet in container.demux():
        if packet.pts is None or packet.time_base is None:
            continue
        is_video = packet.stream_index == stream.index
        if is_video:
            timeline.stored += 1
        if packet.is_discard:  # an edit list cuts this packet away: the decoder will not show it
            continue
        if packet.is_corrupt:
            raise MediaError("the video is truncated: its last part is missing; send the complete file")
        start = _check_time(packet.pts * packet.time_base)
        end = start + (packet.duration or 0) * packet.time_base
        timeline.file_end = max(timeline.file_end, end)
        if is_video:
            timeline.count += 1
            timeline.first_start = min(timeline.first_start, start)
            timeline.last_start = max(timeline.last_start, start)
            timeline.last_end = max(timeline.last_end, end)
            limits.check_frames(timeline.count)
    return timeline


def _check_time(time: Fraction) -> Fraction:
    """Return ``time`` (seconds); raise ``MediaError`` if no file of the service could hold it."""
    if abs(time) > _LATEST:
        raise MediaError(f"the video has a timestamp of {float(time):.3g} seconds; re-encode the video")
    return time


def _check_complete(timeline: _Timeline, *, stated_frames: int, stated_seconds: Fraction, tolerance: Fraction) -> None:
    """Raise ``MediaError`` if the file holds less than its header states."""
    if timeline.count == 0:
        raise MediaError("the file contains no video frames; send MP4, WebM, GIF or WebP")
    if timeline.stored < stated_frames:
        raise MediaError(
            f"the video is truncated: it contains {timeline.stored} of its {stated_frames} frames; send the complete file"
        )
    if stated_seconds - timeline.file_end > tolerance:
        raise MediaError(
            f"the video is truncated: it ends after {float(timeline.file_end):.1f} of {float(stated_seconds):.1f} seconds; "
            "send the complete file"
        )


def _quarter_turns(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) % 4


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Return the width and the height in pixels of ``frame`` after its rotation."""
    return (frame.height, frame.width) if _quarter_turns(frame) % 2 else (frame.width, frame.height)


def _to_rgb(frame: VideoFrame, width: int, height: int) -> Image:
    """Return the frame upright, as uint8 RGB scaled to ``width`` x ``height`` pixels.

    All frames get the size of the first one, because the frames of a recorded video call change
    their size with the network's speed, and their rotation when a phone is turned.
    """
    colorspace: int = frame.colorspace
    if colorspace == _UNSPECIFIED:  # players assume BT.709 from 720 lines on, and BT.601 below
        colorspace = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    quarter_turns = _quarter_turns(frame)
    stored = (height, width) if quarter_turns % 2 else (width, height)
    pixels = np.asarray(frame.reformat(*stored, "rgb24", src_colorspace=colorspace).to_ndarray(), np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
