"""What the demo's models are asked: held-out prompts and pictures, the engines that answer, and the true clips beside them."""

import dataclasses
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.judge import Frames
from demo.checkpoints import DemoCheckpoints
from demo.training.pictures import draw
from demo.training.scenes import (
    HELD_OUT_VARIANT,
    PORTRAITS,
    USUAL_SIZE,
    Scene,
    draw_camera,
    draw_shape,
    grounds_for,
    held_out_combinations,
)
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.engine import WanEngine
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import FrameChunk, Image, Progress, VideoRequest

FRAMES, SIDE, STEPS, CFG = 17, 128, 12, 3.0


class Collected:
    """A sink that keeps the frames."""

    def __init__(self) -> None:
        self.chunks: list[Frames] = []

    def progress(self, progress: Progress) -> None:
        """See Sink."""

    def ready(self) -> None:
        """See Sink."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""
        self.chunks.append(chunk.frames)


@dataclass(frozen=True)
class Demo:
    """Both engines over one folder of models."""

    wan26: WanEngine
    wan22: WanEngine
    checkpoints: DemoCheckpoints


def load(made: DemoCheckpoints, device: Literal["cpu", "cuda"] = "cpu") -> Demo:
    """As the replicas load them."""
    experts = Wan22Models(
        folder=str(made.a14b),
        high_noise=made.high_noise,
        low_noise=made.low_noise,
        high_noise_distilled=made.high_noise_lora,
        low_noise_distilled=made.low_noise_lora,
    )
    return Demo(
        build_wan26(
            Wan26Settings(device=device),
            Wan26Models(text=str(made.vace), text_distilled=made.vace_lora, image_distilled=made.vace_lora),
        ),
        build_wan22(Wan22Settings(device=device), experts),
        made,
    )


def make(
    engine: WanEngine, prompt: str, *, seed: int, cfg: float = CFG, image: Image | None = None, negative: str = ""
) -> Frames:
    """One video, uint8 ``[17, 128, 128, 3]``."""
    sink = Collected()
    engine.generate(VideoRequest(prompt, negative, SIDE, SIDE, FRAMES, STEPS, cfg, seed, image=image), sink)
    return np.concatenate(sink.chunks)


def picture_of(scene: Scene) -> Frames:
    """The true clip of a scene, uint8 ``[17, 128, 128, 3]``."""
    clip = draw([scene], FRAMES, SIDE, SIDE)[0].permute(1, 2, 3, 0)
    return ((clip.numpy() + 1) * 127.5).round().astype(np.uint8)


def psnr(one: Frames, other: Frames) -> float:
    """dB."""
    return float(10 * np.log10(255**2 / max(1e-9, np.square(one.astype(np.float64) - other).mean())))


def moves_as(made: Frames, truth: Frames) -> bool:
    """Whether frames 2 to 8 are nearer to those of the true clip than to its first frame standing still."""
    return psnr(made[1:8], truth[1:8]) > psnr(made[1:8], np.repeat(truth[:1], 7, axis=0))


def shape_scenes(count: int) -> list[Scene]:
    """Combinations of colour, shape and motion that training never sees, each once before any comes twice."""
    lot = random.Random(2)
    combinations = held_out_combinations()
    lot.shuffle(combinations)
    return [
        Scene(shape, motion, color=color, ground=lot.choice(grounds_for(color)))
        for color, shape, motion in (combinations * (1 + count // len(combinations)))[:count]
    ]


def ask(scene: Scene) -> str:
    """A shape's plainest prompt."""
    moves = {"turn": "turns", "zoom in": "zooms in", "zoom out": "zooms out"}
    article = "an" if scene.color[0] in "aeiou" else "a"
    return f"{article} {scene.color} {scene.subject} {moves.get(scene.motion, f'moves {scene.motion}')}"


def image_scenes(count: int) -> list[Scene]:
    """Pictures held out of training, half of them shapes, all of which move at the usual speed."""
    lot = random.Random(3)
    scenes: list[Scene] = []
    for number in range(count):
        while True:
            subject = (*PORTRAITS, "cat", "rocket", "collage")[number // 2 % 5]
            drawn = draw_shape(lot, held_out=True) if number % 2 == 0 else draw_camera(lot, subject, HELD_OUT_VARIANT)
            if drawn.motion != "still":
                break
        scenes.append(dataclasses.replace(drawn, speed=1.0, size=USUAL_SIZE))
    return scenes
