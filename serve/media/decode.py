"""Videos in: MP4 and WebM by PyAV, GIF and animated WebP by Pillow; a still picture is a video of one frame."""

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np
import PIL.Image
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from deployments.wire import Frames, Image
from serve.media.container import is_matroska, is_picture, open_container
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import check_size, open_image, to_pixels
from serve.media.spool import Media, read_media

STILL_FPS = Fraction(16)
CHUNK = 4
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class SourceLimits:
    """Over these a video is refused before it is decoded."""

    frames: int
    seconds: float
    pixels: int


@dataclass(frozen=True)
class TimedFrames:
    """Consecutive frames and when each is shown, in seconds. ``index``: the number of the first one, from 0."""

    index: int
    frames: Frames
    times: tuple[Fraction, ...]


class Source(ABC):
    """A video that was sent. ``audio``: the file, where it has sound to be copied."""

    def __init__(self, count: int, duration: Fraction, audio: Media | None = None) -> None:
        self.count = count
        self.duration = duration
        self.audio = audio

    @property
    def fps(self) -> Fraction:
        """Frames a second, on average where they vary."""
        return self.count / self.duration

    @abstractmethod
    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        """Each frame and its time in seconds; decoded as it is asked for."""

    def at(self, fps: Fraction) -> "Source":
        """The same video at a constant rate: resampled, its duration kept."""
        return _Resampled(self, fps)

    def chunks(self) -> Iterator[TimedFrames]:
        """The frames, four at a time."""
        pictures: list[Image] = []
        times: list[Fraction] = []
        index = 0
        for picture, time in self.frames():
            pictures.append(picture)
            times.append(time)
            if len(pictures) == CHUNK:
                yield TimedFrames(index, np.stack(pictures), tuple(times))
                index += CHUNK
                pictures, times = [], []
        if pictures:
            yield TimedFrames(index, np.stack(pictures), tuple(times))


class _Resampled(Source):
    """Repeats and drops frames so that they come at a constant rate."""

    def __init__(self, source: Source, fps: Fraction) -> None:
        count = max(1, round(source.duration * fps))
        super().__init__(count, count / fps, source.audio)
        self._source = source

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        rate = self.count / self.duration
        start: Fraction | None = None
        shown: Image | None = None
        made = 0
        for picture, time in self._source.frames():
            start = time if start is None else start
            while shown is not None and made < self.count and start + made / rate < time:
                yield shown, start + made / rate
                made += 1
            shown = picture
        while shown is not None and start is not None and made < self.count:
            yield shown, start + made / rate
            made += 1


class _Pictures(Source):
    """A still or an animated picture, by Pillow."""

    def __init__(self, picture: PIL.Image.Image, durations: list[Fraction]) -> None:
        super().__init__(len(durations), sum(durations, Fraction(0)))
        self._picture = picture
        self._durations = durations

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        time = Fraction(0)
        for i, duration in enumerate(self._durations):
            self._picture.seek(i)
            yield to_pixels(self._picture), time
            time += duration

    def at(self, fps: Fraction) -> Source:
        return _Pictures(self._picture, [1 / fps] * self.count)  # keeps its frames and is retimed


class _Video(Source):
    """A video file, by PyAV."""

    def __init__(self, data: Media, count: int, duration: Fraction, has_audio: bool, pixels: int) -> None:
        super().__init__(count, duration, data if has_audio else None)
        self._data = data
        self._pixels = pixels

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        made = 0
        try:
            with open_container(self._data) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                # A stream may go on with larger pictures than its header says: the decoder refuses them before they take memory.
                stream.codec_context.options = {"max_pixels": str(2 * self._pixels)}
                size: tuple[int, int] | None = None
                for frame in container.decode(stream):
                    if frame.pts is None or frame.time_base is None:
                        raise MediaError("a video whose frames have no time stamps")
                    size = size or (frame.width, frame.height)
                    if frame.width * frame.height > self._pixels:
                        raise MediaTooLarge(
                            f"a frame of {frame.width} x {frame.height} pixels; at most {self._pixels} are accepted"
                        )
                    yield _to_rgb(frame, *size), frame.pts * frame.time_base
                    made += 1
        except av.error.FFmpegError as e:
            raise MediaError(f"a damaged video ({e.strerror})") from None
        if made < self.count:
            raise MediaError(f"a damaged or truncated video: only {made} of its {self.count} frames can be decoded")


def open_source(data: Media, limits: SourceLimits) -> Source:
    """The video in ``data``: the bytes decide what it is. Raises MediaError or MediaTooLarge, before any frame is decoded."""
    if is_picture(data):
        return _open_pictures(read_media(data), limits)
    return _scan(data, limits)


def _open_pictures(data: bytes, limits: SourceLimits) -> Source:
    picture = open_image(data, limits.pixels)
    if picture.format == "GIF" and not data.rstrip(b"\0").endswith(b";"):
        raise MediaError("a truncated GIF: its end is missing")
    durations = []
    try:
        # A phone's MPO holds two pictures that are no film: the first is what a viewer shows.
        count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        if count == 1:
            return _Pictures(picture, [1 / STILL_FPS])
        _check_frames(count, limits)
        for i in range(count):
            picture.seek(i)
            check_size(picture, limits.pixels)  # a later frame may be larger than the first
            if picture.format == "WEBP":
                picture.load()  # only then does Pillow know how long the frame lasts
            # As browsers do: a frame that claims to last no time at all lasts a tenth of a second.
            durations.append(Fraction(int(picture.info.get("duration") or 100), 1000))
    except (OSError, EOFError, ValueError, SyntaxError, IndexError, struct.error) as e:
        raise MediaError(f"a damaged or truncated picture ({e})") from None
    source = _Pictures(picture, durations)
    _check_seconds(float(source.duration), limits)
    return source


def _scan(data: Media, limits: SourceLimits) -> Source:
    """Reads the container, not the frames: how many, how large, how long, and whether all of it is there."""
    try:
        with open_container(data) as container:
            if not container.streams.video:
                raise MediaError("no video in this file; send MP4, WebM, GIF or WebP")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > limits.pixels:
                raise MediaTooLarge(f"{width} x {height} pixels; at most {limits.pixels} pixels are accepted")
            if stream.frames:
                _check_frames(stream.frames, limits)
            end = last = Fraction(0)
            stored = count = 0
            first, latest = Fraction(10**9), Fraction(-(10**9))
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None:
                    continue
                if packet.stream_index == stream.index:
                    stored += 1
                if packet.is_discard:  # cut away by an edit list: the decoder will not show it
                    continue
                if packet.is_corrupt:
                    raise MediaError("a truncated video: its last part is missing")
                begins = packet.pts * packet.time_base
                ends = begins + (packet.duration or 0) * packet.time_base
                end = max(end, ends)
                if packet.stream_index == stream.index:
                    count += 1
                    first, latest, last = min(first, begins), max(latest, begins), max(last, ends)
                    if count > limits.frames:
                        _check_frames(count, limits)
            if count == 0:
                raise MediaError("no video frames in this file")
            if stored < stream.frames:
                raise MediaError(f"a truncated video: {stored} of its {stream.frames} frames are there")
            claimed = Fraction(container.duration or 0, av.time_base)
            frame_s = 1 / Fraction(stream.average_rate or STILL_FPS)
            # MP4 says how many frames it has; a WebM's missing end is told by its length alone.
            spare = 2 * frame_s + Fraction(1, 10) if is_matroska(data) else max(Fraction(1), claimed / 20)
            if claimed - end > spare:
                raise MediaError(f"a truncated video: it ends after {float(end):.1f} of {float(claimed):.1f} seconds")
            duration = last - first
            if duration <= 0 or latest == last:  # no durations in this container: the last frame lasts as long as the mean
                duration = latest - first + frame_s
            _check_seconds(float(duration), limits)
            return _Video(data, count, duration, bool(container.streams.audio), limits.pixels)
    except av.error.FFmpegError as e:
        raise MediaError(f"a damaged or truncated video ({e.strerror}); send MP4, WebM, GIF or WebP") from None


def _check_frames(count: int, limits: SourceLimits) -> None:
    if count > limits.frames:
        raise MediaTooLarge(f"{count} frames or more; at most {limits.frames} are accepted: cut the video")


def _check_seconds(seconds: float, limits: SourceLimits) -> None:
    if seconds > limits.seconds:
        raise MediaTooLarge(f"{seconds:.1f} seconds; at most {limits.seconds:g} are accepted: cut the video")


def _to_rgb(frame: VideoFrame, width: int, height: int) -> Image:
    """uint8 RGB, upright, scaled to the given size: a recorded call changes its size as the network allows."""
    # Untagged video: BT.709 from 720 lines on, as players assume.
    tagged = frame.colorspace != UNSPECIFIED
    source = frame.colorspace if tagged else (Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601)
    pixels = np.asarray(frame.reformat(width, height, "rgb24", src_colorspace=source).to_ndarray(), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
