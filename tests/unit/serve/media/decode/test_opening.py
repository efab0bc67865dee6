import gc
import weakref
from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest

from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import encode_image
from serve.media.samples import clip, pan, stranger
from serve.media.spool import Spool
from tests.unit.serve.media.make_media import LIMITS, animation, decode_all, encode_all, reencode, webm


def test_every_format_is_opened_by_its_bytes() -> None:
    frames = pan(stranger(), 5, 64, 64)
    for data, count in (
        (encode_all(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16)), 5),
        (webm(frames), 5),
        (animation("GIF", frames), 5),
        (animation("WEBP", frames), 5),
        (encode_image(frames[0], "image/png"), 1),
    ):
        source = open_source(data, LIMITS)
        assert source.count == len(decode_all(source)[0]) == count


def test_an_animation_on_disk_is_read() -> None:
    spool = Spool.empty()
    spool.file.write(encode_image(stranger(), "image/png"))
    (frame,), _ = decode_all(open_source(spool, LIMITS))
    np.testing.assert_array_equal(frame, stranger())


def test_videos_over_the_limits_are_refused_before_a_frame_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    video = clip(stranger())
    animated = encode_all(WebpEncoder(Fraction(16), 0), pan(stranger(), 5, 64, 64), Fraction(16))
    for name in ("video.FilmDecoder", "animation.to_pixels"):
        monkeypatch.setattr(f"serve.media.decode.{name}", lambda *_: pytest.fail("a frame was decoded"))
    for data, limits in (
        (video, SourceLimits(16, 20, 10**7)),
        (video, SourceLimits(100, 0.5, 10**7)),
        (video, SourceLimits(100, 20, 1000)),
        (animated, SourceLimits(4, 20, 10**7)),
        (animated, SourceLimits(100, 0.1, 10**7)),
    ):
        with pytest.raises(MediaTooLarge):
            open_source(data, limits)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_source_on_disk_is_freed_with_its_last_reference(share: float) -> None:
    """The garbage collector may not run for minutes, and a large upload takes gigabytes of disk."""
    whole = clip(stranger())
    gc.collect()
    gc.disable()
    try:
        spool = Spool.empty()
        spool.file.write(whole[: int(len(whole) * share)])
        alive = weakref.ref(spool)
        with pytest.raises(MediaError) if share < 1 else nullcontext():
            source = open_source(spool, LIMITS)
            reencode(source)
            assert source.audio is not None
            assert source.audio.file is spool
            del source
        del spool
        assert alive() is None
    finally:
        gc.enable()
