"""Encodes the clips that the transformers are trained on, once.

The files hold latents, latents of the first frame alone, and captions.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from training.causal import encode_clip
from training.pictures import draw
from training.scenes import draw_scenes
from training.text import write_captions

SHARES = {"shape": 0.6, "astronaut": 0.1, "officer": 0.1, "cat": 0.04, "rocket": 0.04, "collage": 0.12}
WORDINGS = 3
GREY = 128 / 127.5 - 1
"""The grey that stands for the frames to generate in VACE's control video."""


@dataclass(frozen=True)
class Bucket:
    """A number of clips of one size."""

    frames: int
    height: int
    width: int
    count: int
    shares: dict[str, float] = field(default_factory=lambda: SHARES)
    """How often each kind of scene is drawn; see ``draw_scenes``."""
    warp: float = 1.0
    """How strongly photographs are bent."""


BUCKETS = (
    Bucket(frames=17, height=128, width=128, count=36_000),
    Bucket(frames=33, height=128, width=128, count=2_000),
    Bucket(frames=17, height=192, width=128, count=1_500),
    Bucket(frames=17, height=128, width=192, count=1_500),
    Bucket(frames=17, height=256, width=256, count=1_500),
)
"""The buckets of training; the first has the usual size."""
PHOTOGRAPHS = Bucket(
    frames=17,
    height=128,
    width=128,
    count=16_000,
    shares={"astronaut": 0.48, "officer": 0.26, "cat": 0.17, "rocket": 0.09},
    warp=0.0,
)
"""Photographs as they are, of the usual size.

Bent ones show people that resemble each other, from which a small model learns a blurred face.
"""
LARGE = tuple(
    Bucket(
        frames=17,
        height=height,
        width=width,
        count=count,
        shares={"shape": 0.4, "astronaut": 0.28, "officer": 0.17, "cat": 0.1, "rocket": 0.05},
        warp=0.0,
    )
    for width, height, count in ((256, 144, 8_000), (144, 256, 4_000))
)
"""Shapes and photographs as they are, wide and tall.

To the first size the demo lowers a video of 832x480. With photographs alone, shapes of all sizes
got worse.
"""
ENCODED = (*BUCKETS, PHOTOGRAPHS, *LARGE)
"""All buckets, in the order by which the files of their latents are numbered."""


@dataclass
class Latents:
    """One encoded bucket. The latents are bfloat16 ``[n, 16, t, h, w]`` and not normalised."""

    clips: Tensor
    pictures: Tensor
    """The first frame of each clip followed by zeros, which is how image-to-video gets an image."""
    grey: Tensor
    """One clip of what stands in VACE's control video for the frames to generate."""
    captions: list[list[str]]


@torch.no_grad()
def encode_bucket(
    vae: AutoencoderKLWan, bucket: Bucket, *, number: int, rank: int, ranks: int, device: torch.device
) -> Latents:
    """Return this process's share of a bucket. ``vae`` must be unrolled.

    ``rank`` is the number of the process, of ``ranks`` in all.
    """
    count = bucket.count // ranks
    drawn = draw_scenes(5_000 + 100 * number + rank, count, bucket.shares)
    scenes = [replace(scene, warp=bucket.warp) for scene in drawn]
    step = max(4, 64 * 17 * 128 * 128 // (bucket.frames * bucket.height * bucket.width))
    clips: list[Tensor] = []
    pictures: list[Tensor] = []
    for start in range(0, count, step):
        clip = draw(scenes[start : start + step], frames=bucket.frames, height=bucket.height, width=bucket.width, device=device)
        clip = ((clip + 1) * 127.5).round() / 127.5 - 1  # rounded to eight bits
        picture = torch.cat([clip[:, :, :1], torch.zeros_like(clip[:, :, 1:])], dim=2)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for source, out in ((clip, clips), (picture, pictures)):
                out.append(encode_clip(vae, source)[0].to(torch.bfloat16))
    grey = torch.full((1, 3, bucket.frames, bucket.height, bucket.width), GREY, device=device)
    grey[:, :, 0] = 0
    hidden = encode_clip(vae, grey)[0].to(torch.bfloat16)
    return Latents(
        clips=torch.cat(clips),
        pictures=torch.cat(pictures),
        grey=hidden,
        captions=write_captions(scenes, 9_000 + 100 * number + rank, WORDINGS),
    )


def save(folder: Path, latents: Latents, *, number: int, rank: int) -> None:
    """Write one process's share of a bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vars(latents), folder / f"{number}-{rank}.pt")


def load(folder: Path, number: int, device: torch.device) -> Latents:
    """Read all shares of a bucket."""
    parts: list[dict[str, Any]] = [torch.load(file, map_location=device) for file in sorted(folder.glob(f"{number}-*.pt"))]
    return Latents(
        clips=torch.cat([part["clips"] for part in parts]),
        pictures=torch.cat([part["pictures"] for part in parts]),
        grey=parts[0]["grey"],
        captions=[texts for part in parts for texts in part["captions"]],
    )


def statistics(latents: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, over a sample."""
    sample = latents[:8000].float().transpose(0, 1).flatten(1)
    return sample.mean(1).tolist(), sample.std(1).tolist()
