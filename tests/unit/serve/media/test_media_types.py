import numpy as np
import pytest

from serve.media import EXTENSIONS, IMAGE_TYPES, VIDEO_TYPES
from serve.media.images import encode_image
from tests.pictures import decode_image


def test_every_image_type_is_also_accepted_as_a_video() -> None:
    assert set(IMAGE_TYPES) < set(VIDEO_TYPES)


def test_every_result_has_an_extension_and_can_be_sent_again() -> None:
    assert set(EXTENSIONS) <= set(VIDEO_TYPES)
    assert len(set(EXTENSIONS.values())) == len(EXTENSIONS)


@pytest.mark.parametrize("media_type", sorted(set(IMAGE_TYPES) & set(EXTENSIONS)))
def test_every_image_type_of_results_can_be_written_and_read(media_type: str) -> None:
    image = np.full((8, 6, 3), 128, np.uint8)
    assert decode_image(encode_image(image, media_type), 100).shape == image.shape
