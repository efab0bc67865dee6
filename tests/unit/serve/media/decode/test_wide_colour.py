"""Wide and high-dynamic-range colour looks as on a screen for BT.709."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from serve.media.colour_space import ColourSpace, to_bt709
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.decode.wide_colour import WideColour, wide_colour_of
from serve.media.samples import stranger
from tests.unit.serve.media.make_film import encoded
from tests.unit.serve.media.make_media import decode_all

P3, BT2020, PQ, HLG = 12, 9, 16, 18
PATCHES = np.array([(180, 60, 40), (40, 140, 60), (60, 80, 190), (128, 128, 128), (230, 230, 225), (20, 22, 25)]) / 255
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
FROM_XYZ = {
    P3: np.array([[2.4934969, -0.9313836, -0.4027108], [-0.8294890, 1.7626641, 0.0236247], [0.0358458, -0.0761724, 0.9568845]]),
    BT2020: np.array(
        [[1.7166512, -0.3556708, -0.2533663], [-0.6666844, 1.6164812, 0.0157685], [0.0176399, -0.0427706, 0.9421031]]
    ),
}
"""Published matrices, not those that the code computes from chromaticities."""


def linear_in(primaries: int) -> np.ndarray:
    return np.asarray(np.clip(PATCHES**2.4 @ TO_XYZ.T @ FROM_XYZ[primaries].T, 0, 1))


def pq(nits: np.ndarray) -> np.ndarray:
    power = (nits / 10_000) ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


@pytest.mark.parametrize("primaries", [P3, BT2020])
def test_colours_of_wide_primaries_that_bt709_has_are_exact(primaries: int) -> None:
    shown = to_bt709(linear_in(primaries) ** (1 / 2.4), ColourSpace(primaries, 1))
    assert np.abs(shown - PATCHES).max() < 1 / 255


def test_dark_and_middle_tones_of_pq_keep_their_luminance() -> None:
    """BT.2390 leaves what is below its knee, at 93 nits, as it is."""
    nits = 203 * linear_in(BT2020)
    shown = to_bt709(pq(nits), ColourSpace(BT2020, PQ))
    below = nits.max(1) < 90
    assert below.sum() >= 4
    assert np.abs(shown - PATCHES)[below].max() < 1.5 / 255


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_the_tone_curve_rises_to_white_without_clipping(transfer: int) -> None:
    top = pq(np.array(1000.0)) if transfer == PQ else 1.0
    ramp = np.linspace(0, float(top), 400)[:, None].repeat(3, 1)
    shown = to_bt709(ramp, ColourSpace(BT2020, transfer))
    assert np.abs(shown - shown[:, :1]).max() < 1e-6, "grey has a colour"
    assert (np.diff(shown[:, 0]) > 0).all()
    assert shown[-1, 0] == pytest.approx(1, abs=0.01)
    assert shown[0, 0] == pytest.approx(0, abs=0.01)


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
