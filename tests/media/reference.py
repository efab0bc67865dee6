"""The frames of a film as the program ffmpeg decodes, turns, stretches and converts them."""

import subprocess
import tempfile

import numpy as np

from deployments.wire import Frames
from tests.media.films import WIDE, Film, on_white

_TO_LIGHT = "zscale=t=linear:npl={white},format=gbrpf32le,zscale=p=bt709"
_TO_BT709 = "zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
_KNEE, _PEAK = 0.45, 1000 / 203
"""Where BT.2390 begins to compress, and its peak, as shares of white: those of ``colour_space``.

ffmpeg has no curve of BT.2390 without a GPU; that of ``mobius`` is the nearest one.
"""
LEVELS_OFF = {"HLG": 12.0, "PQ": 12.0}
"""How far the mean colour of a frame may be off, in levels of 255; ``OTHERS_OFF`` in other films.

zscale bends HLG's channels one by one, where BT.2100 bends the luminance, and ``mobius`` darkens
what lies between the knee and white.
"""
OTHERS_OFF = 7.0


def has_zscale(ffmpeg: str) -> bool:
    """Return whether the program converts colour spaces."""
    return " zscale " in subprocess.run([ffmpeg, "-filters"], capture_output=True, check=True, text=True).stdout


def frames_of(ffmpeg: str, data: bytes, film: Film, width: int, height: int) -> Frames:
    """Return the frames, scaled to a size, ``[n, height, width, 3]``."""
    channels = 4 if film.extra == "alpha" else 3
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        decoder = ["-c:v", film.codec.name] if (film.codec.name, channels) == ("libvpx-vp9", 4) else []
        command = [ffmpeg, "-v", "error", *decoder, "-i", file.name, "-an", "-vsync", "passthrough", "-vf", _filters(film)]
        command[-1] += f"scale={width}:{height}:flags=bicubic"
        command += ["-f", "rawvideo", "-pix_fmt", "rgba" if channels == 4 else "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, channels)
    return frames if channels == 3 else on_white(frames[..., :3], frames[..., 3:])


def _filters(film: Film) -> str:
    """Return the filters before that which scales."""
    if film.extra == "interlaced":
        return "bwdif=mode=send_frame:deint=interlaced,"
    if film.colour not in WIDE:
        return ""
    hdr = film.colour in ("HLG", "PQ")
    tone = f"tonemap=mobius:param={_KNEE}:peak={_PEAK:.3f}:desat=0," if hdr else ""
    return f"{_TO_LIGHT.format(white=203 if hdr else 100)},{tone}{_TO_BT709},"
