"""Films that callers send."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from deployments.wire import Image
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import data_uri

RATE = Fraction(16)


def film(frames: Sequence[Image]) -> str:
    encoder = Mp4Encoder(RATE, preset="veryfast", crf=12)
    encoder.add(np.stack(frames), tuple(i / RATE for i in range(len(frames))))
    return data_uri(encoder.close().read(), "video/mp4")
