"""The image with the inputs and results of all endpoints."""

import numpy as np

from serve.cli.overview import HEIGHT, MARGIN, overview
from serve.media.images import encode_image
from serve.media.samples import clip, data_uri, portrait


def test_a_row_shows_the_inputs_and_frames_of_the_result() -> None:
    red = np.full((128, 128, 3), (255, 0, 0), np.uint8)
    body = {"prompt": "x", "reference_image": data_uri(encode_image(red, "image/png"), "image/png")}
    sheet = np.asarray(
        overview([("wan2.6-i2v", body, clip(portrait())), ("wan2.6", {"prompt": "y"}, encode_image(red, "image/png"))])
    )
    assert sheet.shape[0] == 2 * (HEIGHT + 24) + MARGIN
    given = sheet[24 : 24 + HEIGHT, MARGIN : MARGIN + 128]
    assert (given == (255, 0, 0)).all()
    left = MARGIN + 128 + MARGIN
    frames = sheet[24 : 24 + HEIGHT, left : sheet.shape[1] - MARGIN]
    assert frames.shape[1] % 6 == 0
    first, last = frames[:, : frames.shape[1] // 6], frames[:, -frames.shape[1] // 6 :]
    assert np.abs(first.astype(int) - last).mean() > 5  # the clip moves
    second = sheet[HEIGHT + 48 : HEIGHT + 48 + HEIGHT]
    assert (second[:, MARGIN : MARGIN + 128] == 255).all()  # nothing was given
    assert (second[:, left : left + 128] == (255, 0, 0)).all()
