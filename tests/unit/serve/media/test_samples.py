import importlib.util
import io
from itertools import pairwise

import numpy as np
import PIL.Image
import pytest

from serve.media.data_uri import decode_base64
from serve.media.decode.opening import open_source
from serve.media.samples import OFFICER, PORTRAIT, clip, data_uri, group, jpeg, pan, portrait, stranger, tone
from tests.unit.serve.media.make_media import LIMITS, audio_packets, decode_all


def test_the_portraits_are_jpegs_of_the_documented_size() -> None:
    assert portrait().shape == (192, 160, 3)
    for path in (PORTRAIT, OFFICER):
        with PIL.Image.open(path) as image:
            assert image.format == "JPEG"
    assert PORTRAIT.read_bytes() != OFFICER.read_bytes()


def test_the_stranger_is_cropped_from_the_group() -> None:
    assert group().shape == (886, 1280, 3)
    assert stranger().shape == (300, 260, 3)
    np.testing.assert_array_equal(stranger(), group()[200:500, 390:650])


def test_without_insightface_the_group_is_the_mirrored_portrait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    np.testing.assert_array_equal(group(), portrait()[:, ::-1])
    np.testing.assert_array_equal(stranger(), group())


def test_a_pan_starts_with_the_whole_image_and_moves() -> None:
    frames = pan(stranger(), 5, 64, 48)
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8
    whole = PIL.Image.fromarray(stranger()).resize((64, 48), PIL.Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(frames[0], np.asarray(whole))
    assert all((before != after).any() for before, after in pairwise(frames))


def test_a_clip_has_the_requested_frames_and_audio() -> None:
    data = clip(stranger(), count=8, fps=16, size=(96, 64))
    source = open_source(data, LIMITS)
    assert source.count == 8
    assert source.fps == 16
    assert decode_all(source)[0][0].shape == (64, 96, 3)
    assert audio_packets(data) == audio_packets(tone(0.5))


def test_a_data_uri_can_be_decoded() -> None:
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
    assert decode_base64(data_uri(b"abc", "image/png")) == b"abc"


def test_jpeg_quality_is_applied() -> None:
    low, high = jpeg(stranger(), quality=20), jpeg(stranger())
    assert len(low) < len(high)
    assert PIL.Image.open(io.BytesIO(low)).size == (260, 300)
