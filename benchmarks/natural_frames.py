"""Photographs that come with packages, and films that pan and zoom over them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]

OWN = {
    "skimage/data": [
        *("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png", "ihc.png", "grass.png", "gravel.png"),
        *("brick.png", "camera.png", "coins.png", "moon.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"),
    ],
    "insightface/data/images": ["t1.jpg"],
    "training/photographs": ["hopper.jpg"],
}
"""The photographs that are there anyway."""
FACES = {
    "insightface/data/images": ["t1.jpg"],
    "skimage/data": ["astronaut.png"],
    "training/photographs": ["hopper.jpg"],
    "serve/media/samples": ["portrait.jpg", "officer.jpg"],
}
"""Those of them with faces that are large enough to be recognised, and some more."""


def photographs(folder: Path | None, own: Mapping[str, Sequence[str]] = OWN) -> list[Frames]:
    """Return all photographs as uint8 RGB ``[height, width, 3]``, also those of a folder."""
    paths = [_folder_of(place) / name for place, names in own.items() for name in names]
    paths += [] if folder is None else sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    return [_rgb(picture) for picture in read if picture is not None]


def _rgb(picture: npt.NDArray[Any]) -> Frames:
    converted: Frames = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return converted


def _folder_of(place: str) -> Path:
    package, _, rest = place.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / rest


def varied(photograph: Frames, seed: int, *, turned: bool = True) -> Frames:
    """Return a photograph mirrored, turned by quarters and with other colours, all at random."""
    random = np.random.default_rng([1, seed])
    turns, mirrored = random.integers(0, 4), random.integers(0, 2)
    if turned:
        photograph = np.rot90(photograph, int(turns))
    if mirrored:
        photograph = photograph[:, ::-1]
    levels = 255 * (np.arange(256)[:, None] / 255) ** random.uniform(0.7, 1.4, 3) * random.uniform(0.7, 1.0)
    table = levels.astype(np.uint8)[:, None]
    recoloured: Frames = cv2.LUT(np.ascontiguousarray(photograph), table)
    return recoloured


def film(photograph: Frames, size: tuple[int, int], *, count: int, seed: int) -> Frames:
    """Return ``count`` frames of a pan and zoom over a photograph; ``size`` is (width, height)."""
    random = np.random.default_rng(seed)
    width, height = size
    fit = max(height / photograph.shape[0], width / photograph.shape[1])
    first = fit * random.uniform(1.0, 1.35)
    last = first * random.uniform(0.97, 1.1)
    begin = random.uniform(0, 1, 2)
    end = np.clip(begin + random.uniform(-0.25, 0.25, 2), 0, 1)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        share = number / max(count - 1, 1)
        zoom = first + (last - first) * share
        spare = (photograph.shape[1] - width / zoom, photograph.shape[0] - height / zoom)
        x, y = (begin + (end - begin) * share) * spare
        source = photograph
        if zoom < 0.8:  # a warp alone would alias
            source = cv2.resize(photograph, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
            x, y, zoom = x * zoom, y * zoom, 1.0
        matrix = np.array([[zoom, 0, -x * zoom], [0, zoom, -y * zoom]], np.float32)
        cv2.warpAffine(source, matrix, size, frames[number], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return frames
