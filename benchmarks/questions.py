"""Held-out prompts and images for the demo's models, and the true clips."""

import dataclasses
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.judge import Frames
from demo.checkpoints import DemoCheckpoints
from deployments.settings import Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.wire import FrameChunk, Image, Progress, VideoRequest
from training.pictures import draw
from training.scenes import (
    HELD_OUT_VARIANT,
    PORTRAITS,
    USUAL_SIZE,
    Scene,
    draw_camera,
    draw_shape,
    grounds_for,
    held_out_combinations,
)

FRAMES, SIDE, STEPS, CFG = 17, 128, 12, 3.0


class Collected:
    """A sink that keeps the frames."""

    def __init__(self) -> None:
        self.chunks: list[Frames] = []

    def progress(self, progress: Progress) -> None:
        """See ``EventSink``."""

    def ready(self) -> None:
        """See ``EventSink``."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See ``EventSink``."""
        self.chunks.append(chunk.frames)


@dataclass(frozen=True)
class Demo:
    """Both engines, and the folder that their models come from."""

    wan26: WanEngine
    wan22: WanEngine
    checkpoints: DemoCheckpoints


def load(
    checkpoints: DemoCheckpoints, device: Literal["cpu", "cuda"] = "cpu", dtype: Literal["auto", "float32"] = "auto"
) -> Demo:
    """Load both engines as the replicas do; `auto` is float32 on a CPU and bfloat16 on a GPU."""
    lora = checkpoints.vace_lora
    wan26 = Wan26Models(text=str(checkpoints.vace), text_distilled=lora, image_distilled=lora)
    wan22 = Wan22Models(
        folder=str(checkpoints.a14b),
        high_noise=checkpoints.high_noise,
        low_noise=checkpoints.low_noise,
        high_noise_distilled=checkpoints.high_noise_lora,
        low_noise_distilled=checkpoints.low_noise_lora,
    )
    return Demo(
        wan26=build_wan26(Wan26Settings(device=device, dtype=dtype, vae_dtype=dtype), wan26),
        wan22=build_wan22(Wan22Settings(device=device, dtype=dtype, vae_dtype=dtype), wan22),
        checkpoints=checkpoints,
    )


def make(
    engine: WanEngine,
    prompt: str,
    *,
    seed: int,
    steps: int = STEPS,
    cfg: float = CFG,
    image: Image | None = None,
    negative: str = "",
) -> Frames:
    """Generate one video, uint8 ``[17, 128, 128, 3]``."""
    request = VideoRequest(
        prompt=prompt,
        negative_prompt=negative,
        width=SIDE,
        height=SIDE,
        num_frames=FRAMES,
        steps=steps,
        cfg=cfg,
        seed=seed,
        image=image,
    )
    sink = Collected()
    engine.generate(request, sink)
    return np.concatenate(sink.chunks)


def picture_of(scene: Scene) -> Frames:
    """Draw the true clip of a scene, uint8 ``[17, 128, 128, 3]``."""
    clip = draw([scene], frames=FRAMES, height=SIDE, width=SIDE)[0].permute(1, 2, 3, 0)
    return ((clip.numpy() + 1) * 127.5).round().astype(np.uint8)


def psnr(one: Frames, other: Frames) -> float:
    """Return the peak signal-to-noise ratio of two videos in dB."""
    return float(10 * np.log10(255**2 / max(1e-9, np.square(one.astype(np.float64) - other).mean())))


def moves_as(video: Frames, truth: Frames) -> bool:
    """Return whether frames 2 to 8 are nearer to the true clip's than to its first frame."""
    return psnr(video[1:8], truth[1:8]) > psnr(video[1:8], np.repeat(truth[:1], 7, axis=0))


def shape_scenes(count: int) -> list[Scene]:
    """Return scenes of colours, shapes and motions that training never combines.

    Every combination comes once before any comes twice.
    """
    lot = random.Random(2)
    combinations = held_out_combinations()
    lot.shuffle(combinations)
    return [
        Scene(shape, motion, color=color, ground=lot.choice(grounds_for(color)))
        for color, shape, motion in (combinations * (1 + count // len(combinations)))[:count]
    ]


def ask(scene: Scene) -> str:
    """Return the plainest prompt for a shape."""
    moves = {"turn": "turns", "zoom in": "zooms in", "zoom out": "zooms out"}
    article = "an" if scene.color[0] in "aeiou" else "a"
    return f"{article} {scene.color} {scene.subject} {moves.get(scene.motion, f'moves {scene.motion}')}"


def image_scenes(count: int) -> list[Scene]:
    """Return held-out scenes, half of them shapes, that all move at the usual speed."""
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
