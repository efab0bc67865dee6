"""What the frames of an animated PNG and of a GIF show, by the specifications."""

import io
import itertools
import struct
from dataclasses import dataclass, replace

import av
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from av.video.frame import VideoFrame

from deployments.wire import Image
from serve.media.colour.matrix_profile import profile_by_numbers
from serve.media.decode.composition import Composition
from serve.media.decode.gif_frames import gif_frames
from serve.media.decode.opening import open_source
from serve.media.decode.png_frames import png_frames
from serve.media.errors import MediaError
from serve.media.strip.exif import write_orientation
from tests.pictures import decode_image
from tests.unit.serve.media.make_gif import COLOURS, GifFrame, gif
from tests.unit.serve.media.make_media import LIMITS, decode_all
from tests.unit.serve.media.make_png import PngFrame, animated_png, chunk

Floats = npt.NDArray[np.float64]
WIDTH, HEIGHT = 9, 7
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (99, 98, 97)]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PNG_KINDS = [(kind, depth, keyed) for kind in CHANNELS for depth in (8, 16) for keyed in (False, True)]
PNG_KINDS = [(k, d, keyed) for k, d, keyed in PNG_KINDS if not (k == 3 and d == 16) and not (k > 3 and keyed)]


@dataclass(frozen=True)
class Drawn:
    """What the specification of PNG calls a frame, with pixels as RGBA from 0 to 1."""

    rgba: Floats
    left: int
    top: int
    disposal: int
    """0 for none, 1 for background, 2 for previous."""
    blends: bool


def shown(frames: list[Drawn], size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[Floats]:
    """Return what the frames show on white, from 0 to 255."""
    canvas = np.zeros((*size, 4))
    results = []
    for frame in frames:
        before = canvas.copy()
        rows, columns = frame.rgba.shape[:2]
        place = np.s_[frame.top : frame.top + rows, frame.left : frame.left + columns]
        above, below = frame.rgba, canvas[place]
        if frame.blends:
            above_alpha, below_alpha = above[..., 3:], below[..., 3:] * (1 - above[..., 3:])
            alpha = above_alpha + below_alpha
            weighted = above[..., :3] * above_alpha + below[..., :3] * below_alpha
            above = np.dstack([weighted / np.where(alpha > 0, alpha, 1), alpha])
        canvas[place] = above
        results.append(255 * (canvas[..., :3] * canvas[..., 3:] + 1 - canvas[..., 3:]))
        if frame.disposal == 1:
            canvas[place] = 0
        elif frame.disposal == 2:
            canvas = before
    return results


def rgba_of(pixels: npt.NDArray[np.uint16], kind: int, depth: int, *, keyed: bool) -> Floats:
    """Return the pixels of a PNG as RGBA from 0 to 1; see ``shared_chunks`` for what is keyed."""
    if kind == 3:
        alpha = [0, 128, 255, 255] if keyed else [255] * 4
        return np.array([(*colour, a) for colour, a in zip(PALETTE, alpha, strict=True)])[pixels[..., 0]] / 255
    top = 2**depth - 1
    colours = np.broadcast_to(pixels[..., :1] if kind in (0, 4) else pixels[..., :3], (*pixels.shape[:2], 3)) / top
    alpha_channel = pixels[..., -1] / top if kind > 3 else np.ones(pixels.shape[:2])
    if keyed:
        alpha_channel = np.where((pixels == key_of(depth)).all(axis=-1), 0.0, 1.0)
    return np.dstack([colours, alpha_channel])


def key_of(depth: int) -> int:
    return 128 if depth == 8 else 0x8080


def shared_chunks(kind: int, depth: int, *, keyed: bool) -> bytes:
    colours = chunk(b"PLTE", b"".join(bytes(colour) for colour in PALETTE)) if kind == 3 else b""
    key = bytes([0, 128]) if kind == 3 else struct.pack(">H", key_of(depth)) * CHANNELS[kind]
    return colours + (chunk(b"tRNS", key) if keyed else b"")


def places(random: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Return the whole picture and four parts of it: left, top, columns and rows."""
    parts = [(0, 0, WIDTH, HEIGHT)]
    for _ in range(4):
        columns, rows = int(random.integers(1, WIDTH + 1)), int(random.integers(1, HEIGHT + 1))
        parts.append((int(random.integers(WIDTH - columns + 1)), int(random.integers(HEIGHT - rows + 1)), columns, rows))
    return parts


@pytest.mark.parametrize("blending", [0, 1])
@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize(("kind", "depth", "keyed"), PNG_KINDS)
def test_an_animated_png_shows_what_the_specification_says(
    kind: int, depth: int, keyed: bool, disposal: int, blending: int
) -> None:
    random = np.random.default_rng(kind + depth)
    levels = np.arange(4) if kind == 3 else np.array([0, 64, 128, 255]) * (1 if depth == 8 else 257)
    frames, drawn = [], []
    for left, top, columns, rows in places(random):
        pixels = levels[random.integers(0, 4, (rows, columns, CHANNELS[kind]))].astype(np.uint16)
        if random.integers(2):  # all channels alike, as in the transparent colour
            pixels[...] = pixels[..., :1]
        stored = pixels.astype(np.uint8) if depth == 8 else pixels
        frames.append(PngFrame(stored, left=left, top=top, disposal=disposal, blending=blending))
        rgba = rgba_of(pixels, kind, depth, keyed=keyed)
        drawn.append(Drawn(rgba, left=left, top=top, disposal=disposal, blends=blending == 1))
    source = open_source(animated_png(frames, kind, shared_chunks(kind, depth, keyed=keyed)), LIMITS)
    for _ in range(2):  # a second pass shows the same
        for picture, expected in itertools.zip_longest(decode_all(source)[0], shown(drawn)):
            assert np.abs(picture - expected).max() <= 2.5


def test_an_animated_png_with_a_palette_that_ffmpeg_wrote_has_its_colours() -> None:
    palette = np.zeros((256, 4), np.uint8)
    palette[:4] = [(*colour[::-1], 255) for colour in PALETTE]  # as BGRA
    indices = np.random.default_rng(0).integers(0, 4, (4, 48, 64), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="apng") as container:
        stream = container.add_stream("apng", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for numbers in indices:
            frame = VideoFrame(64, 48, "pal8")
            for plane, content in zip(frame.planes, (numbers, palette), strict=True):
                plane.update(content.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue()), mode="r", format="apng") as file:
        # FFmpeg encodes some later frames wrongly, so its decoder says what they show.
        expected = [frame.to_ndarray(format="rgba").astype(int) for frame in file.decode(video=0)]
    shown_frames, _ = decode_all(open_source(buffer.getvalue(), LIMITS))
    np.testing.assert_array_equal(shown_frames[0], np.array(PALETTE)[indices[0]])
    for picture, rgba in itertools.zip_longest(shown_frames, expected):
        np.testing.assert_array_equal(picture, np.where(rgba[..., 3:] == 255, rgba[..., :3], 255))


@pytest.mark.parametrize("opaque_first", [True, False])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_gif_shows_what_browsers_show(disposal: int, local: bool, opaque_first: bool) -> None:
    random = np.random.default_rng(disposal)
    own = [tuple(colour) for colour in random.integers(0, 256, (8, 3)).tolist()] if local else None
    frames, drawn = [], []
    for i, (left, top, columns, rows) in enumerate(places(random)):
        pixels = random.integers(0, 8, (rows, columns), np.uint8)
        transparent = None if opaque_first and i == 0 else 2
        colours = own if i % 2 else None
        frame = GifFrame(pixels, left=left, top=top, disposal=disposal, transparent=transparent, colours=colours)
        table = np.array([(*colour, 255) for colour in colours or COLOURS]) / 255
        if transparent is not None:
            table[transparent, 3] = 0
        frames.append(frame)
        drawn.append(Drawn(table[pixels], left=left, top=top, disposal=max(0, disposal - 1), blends=True))
    source = open_source(gif(frames, WIDTH, HEIGHT), LIMITS)
    for picture, expected in itertools.zip_longest(decode_all(source)[0], shown(drawn)):
        np.testing.assert_array_equal(picture, np.round(expected))


def plain(colour: tuple[int, ...], rows: int = 2, columns: int = 3) -> npt.NDArray[np.uint8]:
    return np.broadcast_to(np.array(colour, np.uint8), (rows, columns, len(colour)))


def pictures(data: bytes, **options: object) -> list[Image]:
    composition = replace(Composition((3, 2), list(png_frames(data))), **options)  # type: ignore[arg-type]
    composition.check()
    return list(composition.pictures())


def test_a_still_that_is_no_frame_does_not_lie_below_the_first_one() -> None:
    frames = [PngFrame(plain((0, 0, 255, 128), rows=1), blending=1)]
    data = animated_png(frames, 6, still=PngFrame(plain((255, 0, 0, 255))))
    (picture,), _ = decode_all(open_source(data, LIMITS))
    assert picture[:, 0].tolist() == [[127, 127, 255], [255, 255, 255]]


def test_the_profile_is_that_of_all_frames() -> None:
    profile = profile_by_numbers(12, 13)
    frames = [PngFrame(plain((200, 40, 90))), PngFrame(plain((10, 220, 30), columns=1))]
    expected = [decode_image(frame.file(), 10) for frame in png_frames(animated_png(frames, 2))]
    first, second = pictures(animated_png(frames, 2), profile=profile)
    assert np.abs(first[0, 0].astype(int) - expected[0][0, 0]).max() > 5
    assert np.abs(second[0, 0].astype(int) - expected[1][0, 0]).max() > 5
    np.testing.assert_array_equal(second[:, 1:], first[:, 1:])


def test_the_whole_canvas_is_turned_upright() -> None:
    frames = [PngFrame(plain((255, 0, 0))), PngFrame(plain((0, 0, 255), rows=1, columns=1))]
    data = animated_png(frames, 2)
    turned = pictures(data, turn=PIL.Image.Transpose.ROTATE_270)
    for picture, upright in zip(turned, pictures(data), strict=True):
        np.testing.assert_array_equal(picture, np.rot90(upright, -1))
    by_exif, _ = decode_all(open_source(animated_png(frames, 2, chunk(b"eXIf", write_orientation(6))), LIMITS))
    np.testing.assert_array_equal(by_exif, turned)


def test_damage_of_any_frame_is_found_before_the_first_is_shown() -> None:
    frames = [GifFrame(np.full((2, 3), i, np.uint8)) for i in range(3)]
    data = bytearray(gif(frames, 3, 2))
    data[-4] = 0xFF  # in the pixels of the last frame
    composition = Composition((3, 2), list(gif_frames(bytes(data))))
    next(composition.pictures())
    with pytest.raises(MediaError, match="damaged"):
        composition.check()
    with pytest.raises(MediaError, match="damaged"):
        open_source(bytes(data), LIMITS)
