"""Films of drawn combinations of kinds, and the frames of which they were made."""

import dataclasses
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import PIL.Image
from av.audio.frame import AudioFrame
from av.codec.context import Flags
from av.video.frame import VideoFrame

from deployments.wire import Frames, Image
from serve.media.colour.space import ColourSpace, to_bt709
from tests.unit.serve.media.make_film import with_edit, with_matrix

WIDTH, HEIGHT, COUNT, PITCH = 96, 64, 12, 440


@dataclass(frozen=True)
class Codec:
    """A codec with its containers and formats; ``mute`` keeps it from writing to the log."""

    name: str
    containers: tuple[str, ...]
    pix_fmts: tuple[str, ...] = ("yuv420p",)
    options: tuple[tuple[str, str], ...] = ()


CODECS = (
    Codec("libx264", ("mp4", "mov", "matroska"), ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"), (("crf", "8"),)),
    Codec("libx265", ("mp4", "matroska"), ("yuv420p", "yuv420p10le"), (("crf", "8"), ("x265-params", "log-level=none"))),
    Codec("libvpx", ("webm", "matroska"), options=(("b", "3M"), ("deadline", "realtime"))),
    Codec("libvpx-vp9", ("webm", "mp4"), options=(("b", "3M"), ("deadline", "realtime"))),
    Codec("mpeg4", ("mp4", "mov", "matroska"), options=(("qscale", "2"), ("flags", "qscale"), ("global_quality", "236"))),
    Codec("mjpeg", ("mov", "matroska"), ("yuvj420p", "yuvj444p"), (("qmin", "1"), ("qmax", "2"))),
    Codec("prores_ks", ("mov",), ("yuv422p10le",)),
    Codec("ffv1", ("matroska",), ("yuv420p", "yuv444p")),
)
MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[Image], Image]]] = {
    "upright": ((1, 0, 0, 1), lambda x: x),
    "90": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "270": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "antitransposed": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
}
ASPECTS = (Fraction(1), Fraction(4, 3), Fraction(1, 2), Fraction(16, 15))
RATES: dict[str, Callable[[int], Fraction]] = {
    "25": lambda i: Fraction(i, 25),
    "23.976": lambda i: Fraction(1001 * i, 24_000),
    "59.94": lambda i: Fraction(1001 * i, 60_000),
    "variable": lambda i: Fraction(3 * i + i % 3, 60),
}
COLOURS: dict[str, tuple[int, int, int, int]] = {
    "BT.709": (1, 1, 1, 1),
    "BT.601": (6, 6, 6, 1),
    "BT.709 full": (1, 1, 1, 2),
    "Display P3": (12, 1, 1, 1),
    "BT.2020": (9, 14, 9, 1),
    "HLG": (9, 18, 9, 1),
    "PQ": (9, 16, 9, 1),
}
"""Primaries, transfer, matrix and range, as FFmpeg numbers them."""
WIDE = ("Display P3", "BT.2020", "HLG", "PQ")
"""Those that are converted to BT.709."""
ALPHA = {("libvpx-vp9", "yuv420p"): "yuva420p", ("prores_ks", "yuv422p10le"): "yuva444p10le", ("ffv1", "yuv444p"): "yuva444p"}
"""The codecs and formats that also have transparency, and the formats with it."""
ODD = ("libvpx", "libvpx-vp9", "mjpeg", "ffv1", "mpeg4")
"""The codecs that take an odd width and height in any format."""
EXTRAS = ("", "", "", "", "odd", "alpha", "interlaced", "edit list")
CUT_FRAMES = range(4, 10)
"""The frames that the edit list of a film shows."""
SOUNDS: dict[str, dict[str, str]] = {
    "mp4": {"none": "", "AAC": "aac", "MP3": "libmp3lame"},
    "mov": {"none": "", "AAC": "aac", "PCM": "pcm_s16le"},
    "matroska": {"none": "", "AAC": "aac", "Opus": "libopus", "FLAC": "flac", "AC-3": "ac3"},
    "webm": {"none": "", "Opus": "libopus"},
}


@dataclass(frozen=True)
class Film:
    """A combination; ``extra`` is "odd", "alpha", "interlaced", "edit list" or empty."""

    codec: Codec
    container: str
    pix_fmt: str
    turned: str
    aspect: Fraction
    rate: str
    colour: str
    sound: str
    extra: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """The width and the height of the stored frames."""
        return (WIDTH + 1, HEIGHT - 1) if self.extra == "odd" else (WIDTH, HEIGHT)

    @property
    def shown(self) -> range:
        """The numbers of the frames that are shown."""
        return CUT_FRAMES if self.extra == "edit list" else range(COUNT)

    def __str__(self) -> str:
        return (
            f"{self.codec.name} {self.pix_fmt} in {self.container}, {self.turned}, pixels {self.aspect}, "
            f"{self.rate} fps, {self.colour}, {self.sound}{self.extra and ', ' + self.extra}"
        )


def draw(count: int, seed: int = 0) -> list[Film]:
    """Return ``count`` different combinations."""
    rng = random.Random(seed)
    films: dict[Film, None] = {}
    while len(films) < count:
        extra = rng.choice(EXTRAS)
        film = _draw_plain(rng)
        while extra and extra not in _extras(film):
            film = _draw_plain(rng)
        films[dataclasses.replace(film, extra=extra)] = None
    return list(films)


def _draw_plain(rng: random.Random) -> Film:
    codec = rng.choice(CODECS)
    container, pix_fmt = rng.choice(codec.containers), rng.choice(codec.pix_fmts)
    in_file = codec.name in ("libx264", "libx265", "mpeg4")  # PyAV tells Matroska no aspect ratio
    tagged = codec.name in ("libx264", "libx265")
    colour = rng.choice(list(COLOURS) if tagged else ["BT.601"])
    return Film(
        codec,
        container,
        pix_fmt,
        rng.choice(list(MATRICES)) if container in ("mp4", "mov") else "upright",
        rng.choice(ASPECTS if in_file or container in ("mp4", "mov") else ASPECTS[:1]),
        rng.choice(list(RATES)),
        "BT.601 full" if codec.name == "mjpeg" else colour,
        rng.choice(list(SOUNDS[container])),
    )


def _extras(film: Film) -> list[str]:
    """Return what else can be odd about a film."""
    plain = (film.codec.name, film.pix_fmt) == ("libx264", "yuv420p") and film.turned == "upright"
    possible = {
        "odd": film.codec.name in ODD or film.pix_fmt == "yuv444p",
        "alpha": (film.codec.name, film.pix_fmt) in ALPHA and film.container != "mp4",
        "interlaced": plain and film.colour not in WIDE,
        "edit list": film.container in ("mp4", "mov") and film.rate == "25" and film.sound == "none",
    }
    return [extra for extra, is_possible in possible.items() if is_possible]


def scene(width: int = WIDTH, height: int = HEIGHT, late: int = 0) -> Frames:
    """Return frames of four quarters in different colours, over which a white bar moves.

    ``late`` is how many pixels the bar is further than at the time of its frame.
    """
    frames = np.zeros((COUNT, height, width, 3), np.uint8)
    frames[:, :32, :48], frames[:, :32, 48:] = (180, 70, 50), (60, 140, 80)
    frames[:, 32:, :48], frames[:, 32:, 48:] = (60, 80, 170), (128, 128, 128)
    for i, frame in enumerate(frames):
        frame[8:56, 4 + 7 * i + late : 10 + 7 * i + late] = 235
    return frames


def alpha_of(width: int, height: int) -> Image:
    """Return how opaque each pixel of a film with transparency is, ``[height, width, 1]``."""
    alpha = np.full((height, width, 1), 255, np.uint8)
    alpha[:, : width // 3], alpha[: height // 3, width // 2 :] = 0, 128
    return alpha


def numbers_of(colour: str) -> tuple[int, int, int, int]:
    """Return the numbers of a colour space; MJPEG is untagged and full."""
    return (2, 2, 5, 2) if colour == "BT.601 full" else COLOURS[colour]


def make(film: Film) -> bytes:
    """Return the file."""
    primaries, transfer, matrix, range_ = numbers_of(film.colour)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=film.container) as container:
        video = container.add_stream(film.codec.name, rate=30, options=dict(film.codec.options))
        assert isinstance(video, av.VideoStream)
        video.width, video.height = film.size
        video.pix_fmt = ALPHA[film.codec.name, film.pix_fmt] if film.extra == "alpha" else film.pix_fmt
        context = video.codec_context
        context.time_base = Fraction(1, 1000) if film.container in ("matroska", "webm") else Fraction(1, 60_000)
        context.sample_aspect_ratio = film.aspect
        if film.codec.name in ("libx264", "libx265"):
            context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix
            context.color_range = range_
        if film.extra == "interlaced":
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        name = SOUNDS[film.container][film.sound]
        audio = container.add_stream(name, rate=48_000, layout="mono") if name else None
        for i, pixels in enumerate(_stored(film)):
            frame = VideoFrame.from_ndarray(pixels, format="rgba" if film.extra == "alpha" else "rgb24")
            frame = frame.reformat(format=video.pix_fmt, dst_colorspace=matrix, dst_color_range=range_)
            frame.pts, frame.time_base = round(RATES[film.rate](i) / context.time_base), context.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            wave = 0.3 * np.sin(2 * np.pi * PITCH * np.arange(24_000) / 48_000)[None].astype(np.float32)
            samples = AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48_000, 0
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=48_000, frame_size=audio.frame_size or 0)
            for part in (*resampler.resample(samples), *resampler.resample(None)):
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
    data = buffer.getvalue()
    if film.extra == "edit list":
        data = with_edit(data, CUT_FRAMES[0] / 25, len(CUT_FRAMES) / 25)
    return data if film.turned == "upright" else with_matrix(data, *MATRICES[film.turned][0])


def _stored(film: Film) -> Frames:
    """Return the frames as they are encoded."""
    frames = scene(*film.size)
    if film.extra == "interlaced":  # the upper field is half a frame later: FFmpeg marks them so
        frames[:, ::2] = scene(*film.size, late=3)[:, ::2]
    if film.extra == "alpha":
        alpha = np.broadcast_to(alpha_of(*film.size), (*frames.shape[:3], 1))
        frames = np.concatenate([frames, alpha], axis=3)
    return frames


def expected(film: Film) -> Frames:
    """Return the frames as they must be shown."""
    primaries, transfer, _, _ = numbers_of(film.colour)
    frames = []
    for number, pixels in enumerate(scene(*film.size)):
        if number not in film.shown:
            continue
        shown = pixels
        if film.colour in WIDE:
            space = ColourSpace(primaries, transfer if transfer in (16, 18) else 0)
            values = to_bt709(pixels.reshape(-1, 3) / 255, space)
            shown = np.round(255 * values).astype(np.uint8).reshape(pixels.shape)
        width, height = film.size
        if film.extra == "alpha":
            shown = on_white(shown, alpha_of(width, height))
        if film.aspect > 1:
            width = round(width * film.aspect)
        elif film.aspect < 1:
            height = round(height / film.aspect)
        stretched = PIL.Image.fromarray(shown).resize((width, height), PIL.Image.Resampling.BICUBIC)
        frames.append(np.ascontiguousarray(MATRICES[film.turned][1](np.asarray(stretched))))
    return np.stack(frames)


def on_white(colours: Frames | Image, alpha: Frames | Image) -> Frames | Image:
    """Return ``colours`` by their opacity ``alpha`` on a white ground."""
    opacity = alpha / 255
    return np.round(colours * opacity + 255 * (1 - opacity)).astype(np.uint8)
