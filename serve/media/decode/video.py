"""Decoding of MP4, QuickTime, WebM and Matroska files with PyAV."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deployments.wire import Image
from serve.media.audio import find_sound
from serve.media.boundary import reading
from serve.media.container import is_matroska, open_container
from serve.media.decode.completeness import check_duration, check_index, is_surely_whole
from serve.media.decode.cropping import Cropper, Cropping, cropping_of
from serve.media.decode.deinterlace import Deinterlacer
from serve.media.decode.film_decoder import FilmDecoder, check_damaged
from serve.media.decode.geometry import square_size
from serve.media.decode.holes import lost_stamps
from serve.media.decode.pixels import ShownPixels, matrix_of
from serve.media.decode.source import STILL_FPS, Source, SourceLimits
from serve.media.decode.stamps import Stamps, has_codec_tag_of_avi
from serve.media.decode.timeline import Timeline, check_time, read_timeline
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.sound import Sound
from serve.media.spool import Media
from serve.media.tracks import heard_audio, shown_video


@dataclass(frozen=True)
class _Film:
    """What was learned of a file when it was opened; ``max_pixels`` is the limit for each frame.

    ``in_order`` says that the packets' time stamps belong to the frames in the order of showing,
    and ``lost`` are the time stamps of frames that are no longer in the file.
    """

    data: Media
    cropping: Cropping | None
    aspect: Fraction | None
    start: Fraction
    max_pixels: int
    in_order: bool
    lost: tuple[int, ...]


class _Video(Source):
    """A video file."""

    def __init__(self, film: _Film, count: int, duration: Fraction, *, sound: Sound | None, pixels: int) -> None:
        super().__init__(count, duration, sound, pixels=pixels)
        self._film = film

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        film = self._film
        self.damaged = 0
        with reading("the video is damaged", "send the complete file or re-encode it"), open_container(film.data) as container:
            stream = _video_of(container)
            stamps = Stamps(in_order=film.in_order, lost=film.lost)
            decoder = FilmDecoder(container, stream, count=self.count, max_pixels=film.max_pixels, stamps=stamps)
            pixels = ShownPixels(film.aspect, film.max_pixels)
            cropper = None if film.cropping is None else Cropper(film.cropping)
            for whole in _deinterlaced(decoder):
                self.damaged = decoder.damaged
                frame = whole if cropper is None else cropper.crop(whole)
                if frame.width * frame.height > film.max_pixels:
                    raise MediaTooLarge(
                        f"the video has a frame of {frame.width} x {frame.height} pixels; "
                        f"at most {film.max_pixels} pixels are accepted: scale it down"
                    )
                assert frame.pts is not None
                assert frame.time_base is not None
                yield pixels.of(frame), check_time(frame.pts * frame.time_base) - film.start
            self.damaged = decoder.damaged


def open_video(data: Media, limits: SourceLimits) -> Source:
    """Open a video file: read its packets to learn its size and length, without decoding a frame.

    Raises ``MediaError`` for an unsupported, damaged or truncated file and ``MediaTooLarge`` for
    one that exceeds ``limits``.
    """
    with reading("the video is damaged or truncated", "send MP4, WebM, GIF or WebP"), open_container(data) as container:
        stream = _video_of(container)
        audio = heard_audio(container)
        coded = stream.codec_context
        limits.check_pixels(coded.width, coded.height)
        matrix_of(coded.colorspace, coded.color_primaries, coded.height)
        aspect = stream.sample_aspect_ratio
        timeline = read_timeline(container, stream, audio=audio, limits=limits)
        frame_seconds = 1 / Fraction(stream.average_rate or STILL_FPS)
        if not is_matroska(data):
            check_index(data, stream, audio)
        elif not is_surely_whole(data):
            _check_duration(container, timeline, frame_seconds)
        lost = _lost_stamps(data, container, stream=stream, timeline=timeline) if is_matroska(data) else []
        count = timeline.count + len(lost)
        limits.check_frames(count)
        check_damaged(len(lost), count)
        duration = timeline.duration(frame_seconds)
        if lost:
            assert stream.time_base is not None
            duration = max(duration, lost[-1] * stream.time_base + frame_seconds - timeline.first_start)
        limits.check_seconds(float(timeline.first_start - timeline.clock_start + duration))
        cropping = cropping_of(data, container, stream)
        shown = (coded.width, coded.height) if cropping is None else cropping.size(coded.width, coded.height)
        width, height = square_size(*shown, aspect, limits.pixels)
        pixels = max(width * height, coded.width * coded.height) or limits.pixels
        sound = None if audio is None else find_sound(data, timeline.clock_start)
        # Where frames are reordered, but not by their times, these are the times of decoding.
        in_order = has_codec_tag_of_avi(stream) or (bool(coded.has_b_frames) and not timeline.steps_back)
        film = _Film(
            data,
            cropping,
            aspect=aspect,
            start=timeline.clock_start,
            max_pixels=limits.pixels,
            in_order=in_order,
            lost=tuple(lost),
        )
        return _Video(film, count, duration, sound=sound, pixels=pixels)


def _lost_stamps(data: Media, container: InputContainer, stream: VideoStream, timeline: Timeline) -> list[int]:
    assert stream.time_base is not None
    end = round(Fraction(container.duration or 0, av.time_base) / stream.time_base)
    return lost_stamps(data, timeline.places, end)


def _video_of(container: InputContainer) -> VideoStream:
    stream = shown_video(container)
    if stream is None:
        raise MediaError("the file contains no video; send MP4, WebM, GIF or WebP")
    if stream.codec_context is None:
        raise MediaError("the video is in a codec that is not supported; re-encode it as H.264")
    return stream


def _deinterlaced(decoder: FilmDecoder) -> Iterator[VideoFrame]:
    deinterlacer = Deinterlacer()
    for frame in decoder.frames():
        yield from deinterlacer.filter(frame)
    yield from deinterlacer.flush()


def _check_duration(container: InputContainer, timeline: Timeline, frame_seconds: Fraction) -> None:
    stated = Fraction(container.duration or 0, av.time_base)
    tolerance = 2 * frame_seconds + Fraction(1, 10)
    check_duration(ends=float(timeline.file_end), stated=float(stated), tolerance=float(tolerance))
