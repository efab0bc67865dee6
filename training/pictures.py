"""Draws batches of clips from scenes, on any device, as float32 in [-1, 1]."""

import io
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from PIL import Image
from torch import Tensor

from training.scenes import COLORS, GROUNDS, SHAPES, TEXTURES, Scene

SHIFT = 0.02
"""How far a shape moves per frame, in sides."""
GROWTH = 0.04
"""How much a shape grows per frame: e to this power."""
TURN = math.radians(5)
"""How far a shape turns per frame, clockwise."""
PAN = 0.006
"""How far the camera moves per frame, in sides."""
ZOOM = 0.008
"""How much the camera zooms per frame: e to this power."""

_DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}

# Where the face is: (x, y, height) as shares of the photograph's shorter side.
_FACES = {"astronaut": (0.436, 0.233, 0.22), "officer": (0.519, 0.436, 0.42)}
_FILES = {
    "astronaut": "astronaut.jpg",
    "officer": "hopper.jpg",
    "cat": "cat.jpg",
    "rocket": "rocket.jpg",
    "coffee": "coffee.jpg",
}


def draw(scenes: Sequence[Scene], *, frames: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the clips of ``scenes``: ``[n, 3, frames, height, width]``."""
    clips, _ = draw_crops(
        scenes,
        frames=frames,
        height=height,
        width=width,
        corners=torch.zeros(len(scenes), 2),
        crop=(height, width),
        device=device,
    )
    return clips


def draw_crops(
    scenes: Sequence[Scene],
    *,
    frames: int,
    height: int,
    width: int,
    corners: Tensor,
    crop: tuple[int, int],
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return crops of the clips, and where faces are: ``[n, 1, frames, *crop]`` in 0 to 1.

    ``corners`` are the top left corners of the crops, (top, left), ``[n, 2]``.
    """
    clips = torch.empty(len(scenes), 3, frames, *crop, device=device)
    faces = torch.zeros(len(scenes), 1, frames, *crop, device=device)
    shapes = [i for i, scene in enumerate(scenes) if scene.is_shape]
    if shapes:
        clips[shapes] = _draw_shapes(
            [scenes[i] for i in shapes],
            frames=frames,
            height=height,
            width=width,
            corners=corners[shapes],
            crop=crop,
            device=device,
        )
    others: dict[str, list[int]] = {}
    for i, scene in enumerate(scenes):
        if not scene.is_shape:
            others.setdefault(scene.subject, []).append(i)
    for subject, indices in others.items():
        chosen = [scenes[i] for i in indices]
        drawn = _draw_camera(
            subject,
            chosen,
            frames=frames,
            height=height,
            width=width,
            corners=corners[indices],
            crop=crop,
            device=device,
        )
        clips[indices], faces[indices] = drawn[:, :3] * 2 - 1, drawn[:, 3:]
    return clips, faces


def _grid(height: int, width: int, *, corners: Tensor, crop: tuple[int, int], scale: int = 1) -> tuple[Tensor, Tensor]:
    """Return the coordinates of pixel centres: x ``[n, 1, w]``, y ``[n, h, 1]``.

    They are measured from the frame's centre, in units of its shorter side.
    """
    side = min(height, width)
    rows = (torch.arange(crop[0] * scale, device=corners.device) + 0.5) / scale
    columns = (torch.arange(crop[1] * scale, device=corners.device) + 0.5) / scale
    x = (corners[:, 1, None] + columns - width / 2) / side
    y = (corners[:, 0, None] + rows - height / 2) / side
    return x[:, None, :], y[:, :, None]


def _column(values: list[float], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _motion(scenes: list[Scene], frames: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return frame numbers, the same from the middle, and speed, direction and zoom by scene.

    The direction is (x, y); the zoom is 1 for in and -1 for out.
    """
    time = torch.arange(frames, device=device, dtype=torch.float32)
    speed = _column([s.speed for s in scenes], device)[:, None]
    way = _column([c for s in scenes for c in _DIRECTIONS.get(s.motion, (0.0, 0.0))], device).view(-1, 2)
    zoom = _column([{"zoom in": 1.0, "zoom out": -1.0}.get(s.motion, 0.0) for s in scenes], device)[:, None]
    return time, time - (frames - 1) / 2, speed, way, zoom


def _draw_shapes(
    scenes: list[Scene],
    *,
    frames: int,
    height: int,
    width: int,
    corners: Tensor,
    crop: tuple[int, int],
    device: torch.device | str,
) -> Tensor:
    side = min(height, width)
    x, y = _grid(height, width, corners=corners.to(device), crop=crop)
    time, middle, speed, way, growth = _motion(scenes, frames, device)
    turn = _column([float(s.motion == "turn") for s in scenes], device)[:, None]
    center_x = _column([s.x * width / side for s in scenes], device)[:, None] + way[:, :1] * SHIFT * speed * middle
    center_y = _column([s.y * height / side for s in scenes], device)[:, None] + way[:, 1:] * SHIFT * speed * middle
    radius = _column([s.size for s in scenes], device)[:, None] * torch.exp(growth * GROWTH * speed * middle)
    angle = turn * TURN * speed * time

    dx = (x[:, None] - center_x[..., None, None]) / radius[..., None, None]
    dy = (y[:, None] - center_y[..., None, None]) / radius[..., None, None]
    cos, sin = torch.cos(angle)[..., None, None], torch.sin(angle)[..., None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = torch.empty_like(u)
    for shape in {s.subject for s in scenes}:
        chosen = [i for i, s in enumerate(scenes) if s.subject == shape]
        distance[chosen] = outline(shape, u[chosen], v[chosen])
    cover = (0.5 - distance * radius[..., None, None] * side).clamp(0, 1)[:, None]

    color = _column([c / 127.5 - 1 for s in scenes for c in COLORS[s.color]], device).view(-1, 3, 1, 1)
    ground = _draw_grounds(scenes, x=x, y=y, device=device)
    return cover * color[:, :, None] + (1 - cover) * ground[:, :, None]


def outline(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the signed distance (near the edge) from a shape of radius 1.

    y points down; the distance is negative inside.
    """
    if shape == "circle":
        return torch.hypot(x, y) - 1
    if shape == "ring":
        return (torch.hypot(x, y) - 0.76).abs() - 0.24
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85
    if shape == "triangle":  # regular, with a corner at the top
        return torch.maximum(y - 0.55, x.abs() * 0.866 - y * 0.5 - 0.55)
    if shape == "cross":
        one = torch.maximum(x.abs() - 0.34, y.abs() - 0.98)
        return torch.minimum(one, torch.maximum(x.abs() - 0.98, y.abs() - 0.34))
    assert shape == "star"
    # Folded into one of ten equal triangles, a star's edge is one straight line from an outer to
    # an inner corner.
    sector = math.pi / 5
    around = torch.atan2(x, -y)
    folded = (around - torch.round(around / (2 * sector)) * 2 * sector).abs()
    length = torch.hypot(x, y)
    along, across = length * torch.cos(folded), length * torch.sin(folded)
    outer, inner = 1.1, 0.48
    corner = (inner * math.cos(sector), inner * math.sin(sector))
    normal = (corner[1], outer - corner[0])
    norm = math.hypot(*normal)
    return ((along - outer) * normal[0] + across * normal[1]) / norm


def _draw_grounds(scenes: list[Scene], *, x: Tensor, y: Tensor, device: torch.device | str) -> Tensor:
    """Return ``[n, 3, h, w]``."""
    base = _column([c / 127.5 - 1 for s in scenes for c in GROUNDS[s.ground]], device).view(-1, 3, 1, 1)
    lighter = base + 0.22
    darker = (base + 1) * 0.45 - 1
    patterns = {
        "plain": torch.zeros_like(x + y),
        "gradient": (y + 0.5).clamp(0, 1).expand(-1, -1, x.shape[2]),
        "striped": ((x + y) * 5 % 1 > 0.5).float(),
        "checkered": ((x * 6).floor() + (y * 6).floor()) % 2,
    }
    other = {"gradient": darker, "striped": lighter, "checkered": lighter, "plain": base}
    out = torch.empty(len(scenes), 3, *patterns["plain"].shape[1:], device=device)
    for texture in TEXTURES:
        chosen = [i for i, s in enumerate(scenes) if s.texture == texture]
        if chosen:
            share = patterns[texture][chosen][:, None]
            out[chosen] = base[chosen] * (1 - share) + other[texture][chosen] * share
    return out


@cache
def photograph(name: str) -> Tensor:
    """Return a training photograph, float32 ``[4, h, w]`` in 0 to 1.

    The fourth channel is 1 where its face is.
    """
    data = resources.files("training").joinpath("photographs", _FILES[name]).read_bytes()
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255
    height, width = picture.shape[:2]
    mask = np.zeros((height, width, 1), np.float32)
    if name in _FACES:
        x, y, size = (value * min(height, width) for value in _FACES[name])
        rows, columns = np.mgrid[:height, :width]
        mask[((columns - x) / (0.45 * size)) ** 2 + ((rows - y) / (0.6 * size)) ** 2 < 1] = 1
    return torch.from_numpy(np.concatenate([picture, mask], axis=2)).permute(2, 0, 1).contiguous()


def _collages(scenes: list[Scene], device: torch.device | str) -> Tensor:
    """Return images made of shapes, ``[n, 4, 192, 192]`` in 0 to 1."""
    layers = []
    for scene in scenes:
        lot = np.random.default_rng(scene.variant + 5)
        pile = [
            Scene(
                subject=SHAPES[lot.integers(len(SHAPES))],
                motion="turn",
                color=list(COLORS)[lot.integers(len(COLORS))],
                ground=list(GROUNDS)[lot.integers(len(GROUNDS))],
                texture=TEXTURES[lot.integers(len(TEXTURES))],
                size=float(lot.uniform(0.06, 0.22)),
                x=float(lot.uniform(-0.5, 0.5)),
                y=float(lot.uniform(-0.5, 0.5)),
                speed=float(lot.uniform(0, 24)),
            )
            for _ in range(7)
        ]
        layers.append(pile)
    canvas = None
    for depth in range(7):
        level = [pile[depth] for pile in layers]
        # In the second frame the shape is turned by `speed`.
        corners = torch.zeros(len(level), 2)
        shapes = _draw_shapes(level, frames=2, height=192, width=192, corners=corners, crop=(192, 192), device=device)
        drawn = shapes[:, :, 1]
        if canvas is None:
            canvas = drawn
            continue
        x, y = _grid(192, 192, corners=corners.to(device), crop=(192, 192))
        ground = _draw_grounds(level, x=x, y=y, device=device)
        canvas = torch.where((drawn - ground).abs().amax(1, keepdim=True) > 0.02, drawn, canvas)
    assert canvas is not None
    return torch.cat([(canvas + 1) / 2, torch.zeros_like(canvas[:, :1])], 1)


def _draw_camera(
    subject: str,
    scenes: list[Scene],
    *,
    frames: int,
    height: int,
    width: int,
    corners: Tensor,
    crop: tuple[int, int],
    device: torch.device | str,
) -> Tensor:
    """Draw camera moves over one subject, ``[n, 4, frames, *crop]`` in 0 to 1."""
    count = len(scenes)
    is_collage = subject == "collage"
    source = _collages(scenes, device) if is_collage else photograph(subject).to(device)[None].expand(count, -1, -1, -1)
    source_height, source_width = source.shape[2:]
    side = min(source_height, source_width)
    view = torch.tensor([_view(subject, scene) for scene in scenes], dtype=torch.float32, device=device)
    window, at_x, at_y, tilt, flip = view[:, :5].unbind(1)

    _, middle, speed, way, zoom = _motion(scenes, frames, device)
    extent = window[:, None] * torch.exp(-zoom * ZOOM * speed * middle)

    # Frames are drawn twice as fine and then averaged, since photographs are shown smaller than
    # they are.
    scale = 2
    x, y = _grid(height, width, corners=corners.to(device), crop=crop, scale=scale)
    px = x[:, None] * extent[..., None, None] + (way[:, :1] * PAN * speed * middle * window[:, None])[..., None, None]
    py = y[:, None] * extent[..., None, None] + (way[:, 1:] * PAN * speed * middle * window[:, None])[..., None, None]
    px = px * flip[:, None, None, None]
    cos, sin = torch.cos(tilt)[:, None, None, None], torch.sin(tilt)[:, None, None, None]
    sx = px * cos - py * sin + at_x[:, None, None, None]
    sy = px * sin + py * cos + at_y[:, None, None, None]
    # Smooth warps give each variant a face of its own.
    for wave in view[:, 9:].view(count, -1, 5).unbind(1):
        ax, ay, fx, fy, phase = (part[:, None, None, None] for part in wave.unbind(1))
        bend = torch.sin(fx * sx + fy * sy + phase)
        sx, sy = sx + ax * bend, sy + ay * bend
    grid = torch.stack([sx * side / source_width, sy * side / source_height], -1) * 2 - 1
    flat = grid.flatten(1, 2)
    drawn = F.grid_sample(source, flat, mode="bilinear", padding_mode="reflection", align_corners=False)
    drawn = F.avg_pool2d(drawn.reshape(count, 4 * frames, crop[0] * scale, -1), scale).view(count, 4, frames, *crop)

    brighter = _column([{"brighter": 1.0, "darker": -1.0}.get(s.motion, 0.0) for s in scenes], device)[:, None]
    gain = torch.exp(brighter * 0.035 * speed * middle)[:, None, :, None, None]
    gamma, tint = view[:, 5], view[:, 6:9]
    rgb = drawn[:, :3].clamp(1e-4, 1) ** gamma[:, None, None, None, None] * tint[:, :, None, None, None] * gain
    return torch.cat([rgb.clamp(0, 1), drawn[:, 3:]], 1)


def _view(subject: str, scene: Scene) -> list[float]:
    """Return a variant's crop, tilt, flip, gamma, tint and three warps.

    Lengths are in units of the photograph's shorter side.
    """
    lot = np.random.default_rng(scene.variant)
    u = lot.uniform(-1, 1, 40)
    if subject in _FACES:
        x, y, size = _FACES[subject]
        window = size * float(lot.uniform(1.6, 3.0 if subject == "astronaut" else 2.3))
        at = (x + 0.1 * window * u[0], y + (0.1 + 0.08 * u[1]) * window)
    elif subject == "collage":
        window = 0.72 + 0.12 * u[0]
        at = (0.5 + 0.08 * u[1], 0.5 + 0.08 * u[2])
    else:
        picture = photograph(subject)
        wide = picture.shape[2] / min(picture.shape[1:])
        window = 0.72 + 0.16 * u[0]
        at = (wide / 2 + 0.5 * (wide - window) * u[1] * 0.8, 0.5 + 0.5 * (1 - window) * u[2] * 0.8)
    warps: list[float] = []
    for k in range(3):
        wave = u[10 + 5 * k : 15 + 5 * k]
        bend = 0.02 * window * scene.warp
        warps += [bend * wave[0], bend * wave[1], 9 * wave[2] / window, 9 * wave[3] / window, 3.14 * wave[4]]
    flip = 1.0 if lot.uniform() < 0.5 else -1.0
    tint = [1.0 + 0.12 * u[3] + 0.05 * u[4 + c] for c in range(3)]
    return [window, *at, 0.12 * u[7], flip, float(np.exp(0.2 * u[8])), *tint, *warps]
