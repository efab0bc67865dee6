"""Judges what a clip shows from its pixels alone: the colour and form of a shape, and how it moves.

The background is the median of the frame's border, and what differs from it is the shape. Its
colour is the nearest one of the palette, its form the template that covers it best at any angle,
and its motion the steady change of its position, size or angle. No model is involved.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.pictures import GROWTH, SHIFT, TURN, outline
from training.scenes import COLORS, SHAPES, Scene

Frames = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

GRID = 48
EXTENT = 1.45
ANGLES = np.arange(0, 360, 6)
LEAST_MOTION = 0.3
"""The least share of the motion per frame in training data that counts as motion."""
_SYMMETRY = {"square": 90, "cross": 90, "triangle": 120, "star": 72}


@dataclass(frozen=True)
class Seen:
    """What a clip shows; None where there is no shape or no clear answer."""

    color: str | None
    shape: str | None
    motion: str | None

    def right(self, scene: Scene) -> tuple[bool, bool, bool]:
        """Return whether colour, shape and motion are those of ``scene``."""
        return self.color == scene.color, self.shape == scene.subject, self.motion == scene.motion


def judge(frames: Frames) -> Seen:
    """Judge a clip, uint8 ``[n, h, w, 3]`` with n of at least 5."""
    masks = [find_shape(frame) for frame in frames]
    visible = [i for i, mask in enumerate(masks) if mask is not None]
    if len(visible) < max(4, len(frames) // 2):
        return Seen(None, None, None)
    middle = visible[len(visible) // 2]
    return Seen(_color(frames, masks, visible), _shape(masks, visible, middle), _motion(masks, visible, frames.shape[1:3]))


def find_shape(frame: Frames) -> Mask | None:
    """Return the largest connected part of ``frame`` that is not background.

    Returns None if nothing is large enough.
    """
    border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    ground = np.median(border, axis=0)
    differing = (np.abs(frame.astype(np.int16) - ground).max(axis=2) > 48).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(differing)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[largest, cv2.CC_STAT_AREA] < 0.004 * differing.size:
        return None
    return np.asarray(labels == largest)


def _color(frames: Frames, masks: list[Mask | None], visible: list[int]) -> str:
    inside = []
    for i in visible:
        mask = masks[i]
        assert mask is not None
        core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        inside.append(np.median(frames[i][core if core.any() else mask], axis=0))
    seen = np.median(inside, axis=0)
    return min(COLORS, key=lambda name: float(np.abs(_lab(seen) - _lab(np.array(COLORS[name]))).sum()))


def _lab(rgb: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    pixel = (rgb.astype(np.float32) / 255).reshape(1, 1, 3)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB), np.float32).reshape(3)


def _templates() -> dict[str, npt.NDArray[np.bool_]]:
    """Return each form with area 1, centred, at every angle: ``[angles, GRID, GRID]``."""
    axis = (torch.arange(GRID) + 0.5) / GRID * 2 - 1
    templates = {}
    for shape in SHAPES:
        fine = torch.linspace(-1.2, 1.2, 241)
        inside = outline(shape, fine[None, :].expand(241, -1), fine[:, None].expand(-1, 241)) < 0
        area = inside.float().mean().item() * 2.4**2
        rows = fine[:, None].expand(-1, 241)[inside]
        center = rows.mean().item()  # all forms are symmetric in x
        scale = math.sqrt(area)
        turned = []
        for angle in np.radians(ANGLES):
            x, y = axis[None, :] * EXTENT * scale, axis[:, None] * EXTENT * scale
            u = x * math.cos(angle) + y * math.sin(angle)
            v = y * math.cos(angle) - x * math.sin(angle) + center
            turned.append((outline(shape, u, v) < 0).numpy())
        templates[shape] = np.stack(turned)
    return templates


_TEMPLATES = _templates()


def _normalised(mask: Mask) -> Mask:
    """Return ``mask`` centred and scaled to area 1 on the templates' grid."""
    x, y = _center(mask)
    side = math.sqrt(mask.sum())
    axis = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * EXTENT * side
    columns, rows = np.meshgrid((axis + x).astype(np.float32), (axis + y).astype(np.float32))
    drawn = cv2.remap(mask.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(drawn > 0.5)


def _overlaps(mask: Mask, shape: str) -> npt.NDArray[np.float64]:
    """Return the intersection over union with ``shape`` at every angle."""
    templates, own = _TEMPLATES[shape], _normalised(mask)
    both = (templates & own).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(1, (templates | own).sum(axis=(1, 2))), np.float64)


def _shape(masks: list[Mask | None], visible: list[int], middle: int) -> str:
    near = [i for i in visible if abs(i - middle) <= 2]
    totals = dict.fromkeys(SHAPES, 0.0)
    for i in near:
        mask = masks[i]
        assert mask is not None
        for shape in SHAPES:
            totals[shape] += float(_overlaps(mask, shape).max())
    return max(totals, key=lambda shape: totals[shape])


def _center(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def _motion(masks: list[Mask | None], visible: list[int], size: tuple[int, int]) -> str:
    found = [mask for i in visible if (mask := masks[i]) is not None]
    whole = [i for i, mask in enumerate(found) if not _touches_border(mask)]
    if len(whole) >= 4:
        found, visible = [found[i] for i in whole], [visible[i] for i in whole]
    time = np.array(visible, np.float64)
    centers = np.array([_center(mask) for mask in found]) / min(size)
    growth = _slope(time, np.log([math.sqrt(mask.sum()) for mask in found])) / GROWTH
    x, y = (_slope(time, centers[:, axis]) / SHIFT for axis in (0, 1))
    moves = {"left": -x, "right": x, "up": -y, "down": y, "zoom in": growth, "zoom out": -growth}
    best = max(moves, key=lambda name: moves[name])
    if moves[best] >= LEAST_MOTION:
        return best
    return "turn" if abs(_turn(found, time)) >= LEAST_MOTION else "still"


def _touches_border(mask: Mask) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _slope(time: npt.NDArray[np.float64], values: npt.NDArray[np.generic]) -> float:
    return float(np.polyfit(time, values.astype(np.float64), 1)[0])


def _turn(masks: list[Mask], time: npt.NDArray[np.float64]) -> float:
    """Return the turn per frame, as a share of that in training data; 0 for round forms."""
    shape = _shape(list(masks), list(range(len(masks))), len(masks) // 2)
    if shape not in _SYMMETRY:
        return 0.0
    period = _SYMMETRY[shape]
    angles = [float(ANGLES[int(_overlaps(mask, shape).argmax())]) % period for mask in masks]
    unwrapped = np.unwrap(np.array(angles), period=period)
    return _slope(time, np.radians(unwrapped)) / TURN
