"""Media in and out: PyAV and Pillow. What is wrong with a file is a ``MediaError``."""

EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "video/mp4": "mp4"}
"""Media type -> ending of a file's name."""

PICTURES = ("image/jpeg", "image/png", "image/webp")
"""What is read where a picture is due."""
VIDEOS = ("video/mp4", "video/webm", "image/gif", "image/webp", *PICTURES[:2])
"""What is read where a video is due; a still picture is a video of one frame."""
