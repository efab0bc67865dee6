"""Wide and high-dynamic-range colour looks as on a screen for BT.709."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from serve.media.colour.space import ColourSpace, to_bt709
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.decode.wide_colour import WideColour, wide_colour_of
from serve.media.samples import stranger
from tests.unit.serve.media.make_film import encoded
from tests.unit.serve.media.make_media import decode_all
from tests.unit.serve.media.published_colours import BT2020, P3

PQ, HLG = 16, 18


@pytest.mark.parametrize("space", [ColourSpace(P3, 0), ColourSpace(BT2020, PQ), ColourSpace(BT2020, HLG), ColourSpace(P3, 13)])
def test_the_table_gives_what_the_formula_does(space: ColourSpace) -> None:
    values = np.random.default_rng(1).uniform(0.05, 0.75, (32, 48, 3))
    frame = VideoFrame.from_ndarray(np.round(values * 65_535).astype(np.uint16), format="rgb48le")
    converted = WideColour(space, 48, 32).convert(frame).to_ndarray() / 65_535
    assert np.abs(converted - to_bt709(values.reshape(-1, 3), space).reshape(values.shape)).mean() < 0.5 / 255


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix", "pix_fmt"),
    [(12, 1, 1, "yuv420p"), (9, 14, 9, "yuv420p10le"), (9, 16, 9, "yuv420p10le"), (9, 18, 9, "yuv420p10le")],
)
def test_a_film_in_wide_colour_is_converted(primaries: int, transfer: int, matrix: int, pix_fmt: str) -> None:
    """The picture of the file is that of the same file without marks, sent through the formula."""
    photo = stranger()[:64, :96]

    def mark(stream: object) -> None:
        context = stream.codec_context  # type: ignore[attr-defined]
        context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix

    options = {"crf": "4", "x265-params": "log-level=none"}
    film = encoded("libx265", "mp4", [photo] * 3, pix_fmt=pix_fmt, options=options, prepare=mark)
    frames, _ = decode_all(open_source(film, SourceLimits(100, 20, 10**6)))
    assert len(frames) == 3
    with av.open(io.BytesIO(film), mode="r") as container:
        first = next(container.decode(video=0))
    space = wide_colour_of(first)
    assert space is not None
    stored = first.reformat(format="rgb48le", src_colorspace=matrix).to_ndarray() / 65_535
    expected = 255 * to_bt709(stored.reshape(-1, 3), space).reshape(stored.shape)
    assert np.abs(frames[0] - expected).mean() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize(("primaries", "transfer", "matrix"), [(12, 1, 1), (9, 14, 9), (9, 16, 9), (9, 18, 9)])
def test_a_transparent_film_in_wide_colour_is_converted_and_lies_on_white(primaries: int, transfer: int, matrix: int) -> None:
    """ProRes 4444 shows the same colours with alpha as without, where it is opaque."""
    photo = np.dstack([stranger()[:64, :96], np.full((64, 96), 255, np.uint8)])
    photo[:, :32, 3] = 0

    def shown(pix_fmt: str) -> np.ndarray:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mov") as container:
            stream = container.add_stream("prores_ks", rate=25, options={"profile": "4"})
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix
            frame = VideoFrame.from_ndarray(photo, format="rgba").reformat(format=pix_fmt, dst_colorspace=matrix)
            frame.color_primaries, frame.color_trc, frame.colorspace = primaries, transfer, matrix
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        (frame_shown,), _ = decode_all(open_source(buffer.getvalue(), SourceLimits(100, 20, 10**6)))
        return frame_shown

    opaque, transparent = shown("yuv444p10le"), shown("yuva444p10le")
    assert np.abs(opaque[:, 40:].astype(int) - photo[:, 40:, :3]).mean() > 3, "nothing is converted"
    assert np.abs(opaque[:, 40:].astype(int) - transparent[:, 40:]).mean() < 1
    assert transparent[:, :24].min() > 250


def test_ordinary_colour_is_left_alone() -> None:
    for primaries, transfer in ((1, 1), (2, 2), (5, 6), (6, 6), (1, 13)):
        frame = VideoFrame(16, 16, "yuv420p")
        frame.color_primaries, frame.color_trc = primaries, transfer
        assert wide_colour_of(frame) is None
