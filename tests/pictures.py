"""Pictures of answers, as the tests compare them."""

from deployments.wire import Image
from serve.media.images import open_image, to_pixels


def decode_image(data: bytes, max_pixels: int) -> Image:
    """Decode an image file of at most ``max_pixels`` to uint8 RGB ``[height, width, 3]``."""
    return to_pixels(open_image(data, max_pixels))
