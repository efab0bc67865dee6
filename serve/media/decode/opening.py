"""Opening of a video file in any supported format."""

from serve.media.container import is_image
from serve.media.decode.animation import open_animation
from serve.media.decode.source import Source, SourceLimits
from serve.media.decode.video import open_video
from serve.media.spool import Media, read_media


def open_source(data: Media, limits: SourceLimits) -> Source:
    """Open an MP4, QuickTime, WebM, Matroska, GIF or WebP file, or a still image, as a video.

    The bytes decide the format; a declared media type has no effect. No frame is decoded, except
    those of an animated image. Raises ``MediaError`` for an unsupported, damaged or truncated file
    and ``MediaTooLarge`` for one that exceeds ``limits``.
    """
    if is_image(data):
        return open_animation(read_media(data), limits)
    return open_video(data, limits)
