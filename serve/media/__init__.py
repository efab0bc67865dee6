"""Reading and writing of images, video and audio with Pillow and PyAV.

A file that cannot be used raises a ``MediaError`` whose message is meant for the caller of the API.
"""

EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "video/mp4": "mp4",
}
"""The file name extension for each media type that the service returns."""

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/avif", "image/heic")
"""The media types that are accepted as an image."""

VIDEO_TYPES = ("video/mp4", "video/webm", "image/gif", "image/webp", "image/jpeg", "image/png", "image/avif", "image/heic")
"""The media types that are accepted as a video; a still image is a video of one frame."""
