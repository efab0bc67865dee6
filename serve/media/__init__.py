"""Media in and out: PyAV and Pillow. What is wrong with a file is a ``MediaError``."""

EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "video/mp4": "mp4"}
"""Media type -> ending of a file's name."""
