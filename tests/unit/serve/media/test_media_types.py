import numpy as np
import pytest

from serve.media import EXTENSIONS, IMAGE_TYPES, VIDEO_TYPES
from serve.media.images import decode_image, encode_image


def test_every_image_type_is_also_accepted_as_a_video() -> None:
    assert set(IMAGE_TYPES) < set(VIDEO_TYPES)


@pytest.mark.parametrize("media_type", [name for name in EXTENSIONS if name.startswith("image/")])
def test_every_image_type_that_has_an_extension_can_be_written_and_read(media_type: str) -> None:
    image = np.full((8, 6, 3), 128, np.uint8)
    assert decode_image(encode_image(image, media_type), 100).shape == image.shape
