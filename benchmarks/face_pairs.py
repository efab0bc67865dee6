"""`python -m benchmarks.face_pairs`: the demo's swap of ten pairs of faces, before and after.

write FOLDER: swap all pairs with the code at hand and write the results into FOLDER. For another
state of the code, run this file from a checkout of it:
`PYTHONPATH=. python -P .../benchmarks/face_pairs.py write FOLDER`.
compare BEFORE AFTER SHEET: judge both folders by the same figures, and draw one PNG with a row for
each pair: target, reference, before, after.

The people are the astronaut and the officer of the samples, and the six of the group photograph in
the insightface package, which is not ours to distribute: neither is the sheet. The figures:

identity: cosine of SFace's embeddings of result and reference.
seam: how much steeper the result is than the target around the face, in levels of 255 a pixel.
shadow: how much darker the result is than the target around the face, in levels.
forehead: how much the texture above the brows differs from the target's, in levels.
colour: the mean difference between the channels where a grey target was changed, in levels.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw

from demo.face_models import face_models
from deployments.faces.compositing.alignment import ARCFACE, align, crop
from deployments.faces.engine import FaceEngine, build_face_engine
from deployments.settings import FaceSettings
from deployments.wire import Image, SwapOptions
from serve.media.samples import OFFICER, group, portrait

GREY = "grey "
PAIRS = (
    ("person 1", "astronaut"),
    ("person 5", "astronaut"),
    ("astronaut", "officer"),
    ("officer", "astronaut"),
    ("person 2", "person 6"),
    ("person 6", "person 4"),
    ("person 3", "person 1"),
    ("person 4", "person 2"),
    ("grey person 1", "astronaut"),
    ("grey astronaut", "person 5"),
)
"""Targets and references. The people of the group are counted by the size of their faces: 3 is
nearly in profile, 4 looks aside, and the officer wears glasses."""
HEIGHT = 240
"""The height of each picture of the sheet, in pixels."""
SIDE = 192
TEMPLATE = (ARCFACE - 56) / 112 * 0.7 * SIDE + np.array([SIDE / 2, SIDE * 0.54])
"""Where the landmarks are in the crops that are judged, which show the whole head."""
FIGURES = ("identity", "seam", "shadow", "forehead", "colour")
Region = npt.NDArray[np.bool_]


def unwatched() -> None:
    """A check that never stops the engine."""


def engine() -> FaceEngine:
    """Return the demo's engine."""
    return build_face_engine(FaceSettings(), face_models(), use_cuda=False)


def people(faces: FaceEngine) -> dict[str, Image]:
    """Return a picture of each person, uint8 RGB."""
    everyone = group()
    pictures = {"astronaut": portrait(), "officer": np.asarray(PIL.Image.open(OFFICER).convert("RGB"))}
    for number, face in enumerate(faces.analyse([everyone], unwatched)[0], 1):
        margin = 0.7 * float((face.box[2:] - face.box[:2]).max())
        left, top = (max(0, int(value - margin)) for value in face.box[:2])
        right, bottom = (int(value + margin) for value in face.box[2:])
        pictures[f"person {number}"] = np.ascontiguousarray(everyone[top:bottom, left:right])
    return pictures


def picture_of(name: str, pictures: dict[str, Image]) -> Image:
    """Return the picture of a person, in grey if the name says so."""
    picture = pictures[name.removeprefix(GREY)]
    if not name.startswith(GREY):
        return picture
    return np.asarray(cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def write(folder: Path) -> None:
    """Swap all pairs and write the results as ``0.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    faces = engine()
    pictures = people(faces)
    for number, (target, reference) in enumerate(PAIRS):
        frame = picture_of(target, pictures)
        new = faces.identify([picture_of(reference, pictures)], "face", unwatched)
        (found,) = faces.analyse([frame], unwatched)
        result = faces.swap(frame[None], [found[:1]], reference=new, options=SwapOptions(), check=unwatched)[0]
        PIL.Image.fromarray(result).save(folder / f"{number}.png")


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges results by the faces of their targets and references."""

    faces: FaceEngine

    def figures(self, target: Image, reference: Image, result: Image) -> tuple[float, ...]:
        """Return the values of ``FIGURES``; colour is 0 if the target is not grey."""
        wanted, made = (self.faces.analyse([image], unwatched)[0][0].embedding for image in (reference, result))
        landmarks = self.faces.analyse([target], unwatched)[0][0].landmarks
        before, after = (crop(image, align(landmarks, TEMPLATE), SIDE) for image in (target, result))
        grey_before, grey_after = (cv2.cvtColor(np.float32(image), cv2.COLOR_RGB2GRAY) for image in (before, after))
        around, forehead = regions()
        steeper = np.maximum(steepness(np.asarray(grey_after)) - steepness(np.asarray(grey_before)), 0)
        darker = np.maximum(smooth(np.asarray(grey_before), 4) - smooth(np.asarray(grey_after), 4), 0)
        texture = np.abs((grey_after - smooth(np.asarray(grey_after), 6)) - (grey_before - smooth(np.asarray(grey_before), 6)))
        colour = 0.0
        if np.ptp(target, axis=2).max() == 0:
            colour = float(np.ptp(result[(result != target).any(axis=2)], axis=1).mean())
        measured = (float(steeper[around].mean()), float(darker[around].mean()), float(texture[forehead].mean()))
        return (float(wanted @ made), *measured, colour)


def regions() -> tuple[Region, Region]:
    """Return the ring around the face, where seams are, and the forehead."""
    eyes, mouth = TEMPLATE[:2].mean(axis=0), TEMPLATE[3:].mean(axis=0)
    span, reach = TEMPLATE[1, 0] - TEMPLATE[0, 0], mouth[1] - eyes[1]
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    dx, dy = (x - eyes[0]) / (1.08 * span), (y - eyes[1] - 0.45 * reach) / (1.2 * reach)
    distance = np.hypot(dx, dy)
    brows = eyes[1] - 0.6 * reach
    return (distance > 0.75) & (distance < 1.25), (distance < 1.1) & (y < brows)


def smooth(image: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Return a blurred image."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def steepness(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the length of the gradient, in levels a pixel, without the finest grain."""
    blurred = smooth(image, 1)
    down, right = np.gradient(blurred)
    return np.asarray(np.hypot(down, right), np.float32)


def compare(before: Path, after: Path, sheet: Path) -> None:
    """Print the figures of both states, and draw the sheet."""
    faces = engine()
    pictures, judge = people(faces), Judge(faces)
    rows: list[tuple[str, list[Image]]] = []
    figures: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
    print("| target <- reference |" + "|".join(f" {name} " for name in FIGURES) + "|")
    print("|---" * (1 + len(FIGURES)) + "|")
    for number, (target, reference) in enumerate(PAIRS):
        frame, new = (picture_of(name, pictures) for name in (target, reference))
        made = [np.asarray(PIL.Image.open(folder / f"{number}.png").convert("RGB")) for folder in (before, after)]
        old_figures, new_figures = (judge.figures(frame, new, result) for result in made)
        figures.append((old_figures, new_figures))
        title = f"{target} <- {reference}"
        print(line(title, old_figures, new_figures))
        rows.append((title, [frame, new, *made]))
    means = np.asarray(figures).mean(axis=0)
    greys = sum(target.startswith(GREY) for target, _ in PAIRS) / len(PAIRS)
    means[:, -1] /= greys
    print(line("mean", tuple(means[0]), tuple(means[1])))
    draw(rows).save(sheet)


def line(title: str, old: tuple[float, ...], new: tuple[float, ...]) -> str:
    """Return a row of the table: each figure before and after."""
    cells = (f" {a:.2f} -> {b:.2f} " for a, b in zip(old, new, strict=True))
    return f"| {title} |" + "|".join(cells) + "|"


def draw(rows: list[tuple[str, list[Image]]]) -> PIL.Image.Image:
    """Return a sheet with a row for each pair, in two columns of rows."""
    columns = 2
    width, height = 4 * HEIGHT + 16, HEIGHT + 24
    sheet = PIL.Image.new("RGB", (columns * width, -(-len(rows) // columns) * height), "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for i, (title, images) in enumerate(rows):
        x, y = i % columns * width, i // columns * height
        pen.text((x + 4, y + 4), f"{title}: target, reference, before, after", fill="black", font_size=14)
        for image in images:
            scale = HEIGHT / image.shape[0]
            shown = PIL.Image.fromarray(image).resize(
                (min(round(image.shape[1] * scale), HEIGHT), HEIGHT), PIL.Image.Resampling.BICUBIC
            )
            sheet.paste(shown, (x, y + 24))
            x += HEIGHT
    return sheet


def main() -> None:
    """Write the results of this code, or compare those of two states."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.set_defaults(work=lambda options: write(options.folder))
    comparing = commands.add_parser("compare")
    for name in ("before", "after", "sheet"):
        comparing.add_argument(name, type=Path)
    comparing.set_defaults(work=lambda options: compare(options.before, options.after, options.sheet))
    options = parser.parse_args()
    work: Callable[[argparse.Namespace], None] = options.work
    work(options)


if __name__ == "__main__":
    main()
