"""What the tests of media share."""

from fractions import Fraction

from deployments.wire import Image
from serve.media.decode import Source, SourceLimits
from serve.media.encode import Encoder
from serve.media.spool import read_media

LIMITS = SourceLimits(frames=100, seconds=20, pixels=2_000_000)


def made(encoder: Encoder, frames: Image, fps: Fraction) -> bytes:
    for i in range(0, len(frames), 4):
        part = frames[i : i + 4]
        encoder.add(part, tuple((i + k) / fps for k in range(len(part))))
    return read_media(encoder.close())


def all_of(source: Source) -> tuple[list[Image], list[Fraction]]:
    frames, times = zip(*((frame.copy(), time) for frame, time in source.frames()), strict=True)
    return list(frames), list(times)


def rotated(data: bytes, quarter_turns: int) -> bytes:
    """The same MP4 with a display matrix that turns it clockwise, as phones write it."""
    cos, sin = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 2 * 4
    return data[:at] + b"".join(v.to_bytes(4, "big", signed=True) for v in matrix) + data[at + 36 :]
