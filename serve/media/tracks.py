"""The choice of the tracks that a player would show."""

from collections.abc import Sequence
from typing import TypeVar

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

_Track = TypeVar("_Track", VideoStream, AudioStream)

_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
"""Pictures that players show beside a film, not as one."""


def shown_video(container: InputContainer) -> VideoStream | None:
    """Return the video track that players choose, or None if there is none but cover pictures."""
    return _choose([stream for stream in container.streams.video if not stream.disposition & _COVERS])


def heard_audio(container: InputContainer) -> AudioStream | None:
    """Return the audio track that players choose, or None if there is none."""
    return _choose(container.streams.audio)


def _choose(tracks: Sequence[_Track]) -> _Track | None:
    """Return the first track that is marked as a default, else the first one.

    A track without a mark is disabled in MP4, or an alternative in Matroska. A track whose codec is
    unknown is chosen only if there is no other.
    """
    known = [track for track in tracks if track.codec_context is not None] or tracks
    return next((track for track in known if track.disposition & Disposition.default), known[0] if known else None)
