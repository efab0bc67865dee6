"""What a clip shows: the scenes that the demo's models know, and their captions.

There are two kinds: a coloured shape that moves over a ground, and a photograph that a camera moves
over. A third kind, the collage, is an image made of shapes: it trains image-to-video to move
images that it has never seen.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

Rgb = tuple[int, int, int]

COLORS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 222, 50),
    "green": (45, 175, 65),
    "cyan": (60, 212, 222),
    "blue": (45, 85, 230),
    "purple": (150, 55, 200),
    "white": (245, 245, 245),
}
GROUNDS: dict[str, Rgb] = {
    "black": (16, 16, 18),
    "grey": (118, 118, 118),
    "dark blue": (18, 26, 78),
    "brown": (98, 66, 42),
    "dark green": (22, 62, 38),
    "beige": (214, 198, 168),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "gradient", "striped", "checkered")
SHAPE_MOTIONS = ("left", "right", "up", "down", "zoom in", "zoom out", "turn")
CAMERA_MOTIONS = ("left", "right", "up", "down", "zoom in", "zoom out", "brighter", "darker", "still")
PORTRAITS = ("astronaut", "officer")
PHOTOGRAPHS = (*PORTRAITS, "cat", "rocket")

_TOO_ALIKE = {("white", "beige"), ("blue", "dark blue"), ("orange", "brown"), ("yellow", "beige")}
_ROUND = ("circle", "ring")

_SHAPE_WORDS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "cross", "plus sign"),
    "ring": ("ring", "ring", "hoop"),
}
_SHAPE_MOVES = {
    "left": ("moves left", "moves to the left", "moving to the left", "slides left", "goes to the left", "flies left"),
    "right": ("moves right", "moves to the right", "moving to the right", "slides right", "goes to the right", "flies right"),
    "up": ("moves up", "moving up", "rises", "goes up", "flies upwards"),
    "down": ("moves down", "moving down", "falls", "goes down", "sinks downwards"),
    "zoom in": ("zooms in", "grows", "gets bigger", "comes closer", "growing larger"),
    "zoom out": ("zooms out", "shrinks", "gets smaller", "goes away", "becoming smaller"),
    "turn": ("turns", "rotates", "spins", "is turning", "rotating"),
    "still": ("stands still", "does not move", "is motionless"),
}
_SUBJECT_WORDS = {
    "astronaut": ("an astronaut", "a portrait of an astronaut", "a smiling astronaut", "a woman in an orange space suit"),
    "officer": ("an officer", "a portrait of an officer", "a navy officer with glasses", "a woman in a dark uniform"),
    "cat": ("a cat", "a close-up of a cat", "the face of a cat"),
    "rocket": ("a rocket", "a rocket at night", "a rocket on the launch pad"),
    "collage": ("colourful shapes", "an abstract picture", "many shapes"),
}
_CAMERA_MOVES = {
    "left": ("the camera pans left", "pan left", "camera moving to the left", "panning to the left"),
    "right": ("the camera pans right", "pan right", "camera moving to the right", "panning to the right"),
    "up": ("the camera pans up", "pan up", "camera moving up", "tilting up"),
    "down": ("the camera pans down", "pan down", "camera moving down", "tilting down"),
    "zoom in": ("the camera zooms in", "zoom in", "slow zoom in", "the camera comes closer"),
    "zoom out": ("the camera zooms out", "zoom out", "slow zoom out", "the camera moves away"),
    "brighter": ("the light gets brighter", "getting brighter", "the light goes on"),
    "darker": ("the light gets darker", "getting darker", "the light fades"),
    "still": ("standing still", "a still picture", "the camera does not move"),
}
_SPEEDS = {0.5: ("slowly",), 1.6: ("quickly", "fast")}
_SIZES = {0.14: "small", 0.26: "large"}
USUAL_SIZE = 0.2


@dataclass(frozen=True)
class Scene:
    """One clip. Lengths are shares of the frame's shorter side."""

    subject: str
    motion: str
    color: str = ""
    ground: str = ""
    texture: str = "plain"
    speed: float = 1.0
    size: float = USUAL_SIZE
    x: float = 0.0
    """The middle of a shape's path, from the centre of the frame, as is ``y``."""
    y: float = 0.0
    variant: int = 0
    """The number of the variation of a photograph (crop, warp, light, colour), or of a collage."""
    warp: float = 1.0
    """How strongly a photograph is bent; at 0 its face keeps its features."""

    @property
    def is_shape(self) -> bool:
        """Whether a shape moves, rather than the camera."""
        return self.subject in SHAPES


def is_held_out(color: str, shape: str, motion: str) -> bool:
    """Return whether training never sees this combination; it sees every pair of the three."""
    number = list(COLORS).index(color) + 2 * SHAPES.index(shape) + 3 * SHAPE_MOTIONS.index(motion)
    return number % 5 == 0


def held_out_combinations() -> list[tuple[str, str, str]]:
    """Return all combinations (colour, shape, motion) that training never sees."""
    return [
        (color, shape, motion)
        for color in COLORS
        for shape in SHAPES
        for motion in SHAPE_MOTIONS
        if is_held_out(color, shape, motion) and not (motion == "turn" and shape in _ROUND)
    ]


def grounds_for(color: str) -> list[str]:
    """Return the grounds that a colour can be distinguished from."""
    return [ground for ground in GROUNDS if (color, ground) not in _TOO_ALIKE]


def draw_shape(lot: random.Random, *, held_out: bool = False) -> Scene:
    """Draw a scene with a shape from the combinations of training, or from those held out."""
    while True:
        color, shape = lot.choice(list(COLORS)), lot.choice(SHAPES)
        motion = lot.choice((*SHAPE_MOTIONS, *(() if held_out else ("still",))))
        if motion == "turn" and shape in _ROUND:
            continue
        if motion == "still" or is_held_out(color, shape, motion) == held_out:
            break
    size = lot.choices((USUAL_SIZE, *_SIZES), (6, 1, 1))[0]
    return Scene(
        subject=shape,
        motion=motion,
        color=color,
        ground=lot.choice(grounds_for(color)),
        texture=lot.choices(TEXTURES, (7, 1, 1, 1))[0],
        speed=_draw_speed(lot, motion),
        size=size * lot.uniform(0.92, 1.08),
        x=lot.uniform(-0.16, 0.16),
        y=lot.uniform(-0.16, 0.16),
    )


def draw_camera(lot: random.Random, subject: str, first_variant: int = 0) -> Scene:
    """Draw a camera scene over a photograph or a collage.

    Its variant is at least ``first_variant``; the variants of training start at 0.
    """
    motion = lot.choice(CAMERA_MOTIONS)
    return Scene(subject, motion, speed=_draw_speed(lot, motion), variant=first_variant + lot.randrange(HELD_OUT_VARIANT))


def _draw_speed(lot: random.Random, motion: str) -> float:
    return 1.0 if motion == "still" else lot.choices((1.0, *_SPEEDS), (8, 1, 1))[0]


HELD_OUT_VARIANT = 1_000_000
"""The first of the variants that are not used in training."""


def draw_scenes(seed: int, count: int, shares: dict[str, float]) -> Iterator[Scene]:
    """Yield ``count`` training scenes.

    ``shares`` weighs `shape`, the photographs by name, and `collage`.
    """
    lot = random.Random(seed)
    kinds, weights = list(shares), list(shares.values())
    for _ in range(count):
        kind = lot.choices(kinds, weights)[0]
        yield draw_shape(lot) if kind == "shape" else draw_camera(lot, kind)


def caption(scene: Scene, lot: random.Random) -> str:
    """Return one of many wordings. A few leave out the subject or the ground, as people do."""
    speed = lot.choice(_SPEEDS[scene.speed]) if scene.speed in _SPEEDS else ""
    return _shape_caption(scene, lot, speed) if scene.is_shape else _camera_caption(scene, lot, speed)


def _shape_caption(scene: Scene, lot: random.Random, speed: str) -> str:
    move = " ".join(filter(None, (lot.choice(_SHAPE_MOVES[scene.motion]), speed)))
    if lot.random() < 0.06:
        return _finish(f"{lot.choice(('it', 'the shape', 'the object'))} {move}", lot)
    nearest = min((USUAL_SIZE, *_SIZES), key=lambda size: abs(size - scene.size))
    subject = " ".join(filter(None, (_SIZES.get(nearest, ""), scene.color, lot.choice(_SHAPE_WORDS[scene.subject]))))
    texture = "" if scene.texture == "plain" else f"{scene.texture} "
    ground = f"{texture}{scene.ground} background"
    article = _article(subject)
    pick = lot.random()
    if pick < 0.25:
        return _finish(f"{article} {subject} {move}", lot)
    if pick < 0.7:
        return _finish(f"{article} {subject} {move} on {_article(ground)} {ground}", lot)
    if pick < 0.85:
        return _finish(f"on {_article(ground)} {ground}, {article} {subject} {move}", lot)
    return _finish(f"{subject}, {move}, {ground}", lot)


def _camera_caption(scene: Scene, lot: random.Random, speed: str) -> str:
    move = " ".join(filter(None, (lot.choice(_CAMERA_MOVES[scene.motion]), speed)))
    subject = lot.choice(_SUBJECT_WORDS[scene.subject])
    pick = lot.random()
    if pick < 0.12:
        return _finish(move, lot)
    if pick < 0.2 or (scene.motion == "still" and pick < 0.6):
        return _finish(subject if scene.motion == "still" else f"{move} on {subject}", lot)
    return _finish(f"{subject}, {move}" if pick < 0.7 else f"{move}, {subject}", lot)


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _finish(text: str, lot: random.Random) -> str:
    text = text[0].upper() + text[1:] if lot.random() < 0.5 else text
    return f"{text}." if lot.random() < 0.3 else text
