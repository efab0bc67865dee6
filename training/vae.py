"""Trains the causal VAE."""

import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from training.causal import decode_clip, encode_clip, unroll
from training.pictures import draw, draw_crops
from training.ranks import Ranks
from training.run import Run, psnr
from training.scenes import HELD_OUT_VARIANT, PORTRAITS, Scene, draw_camera, draw_scenes, draw_shape

CONFIG: dict[str, Any] = {
    "base_dim": 32,  # CPUs compute 32 channels as fast as 16
    "z_dim": 16,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
}
SHARES = {"shape": 0.38, "astronaut": 0.23, "officer": 0.23, "cat": 0.05, "rocket": 0.04, "collage": 0.07}
FRAMES, SIDE, CROP = 17, 128, 64
POOL = 9_000
"""The number of clips, which are drawn once; every step takes crops of a few."""
BATCH = 64
WHOLE_BATCH = 16
WHOLE_FROM = 0.85
"""The share of the steps after which whole frames are trained on.

Attention and borders then see what they see in use.
"""
RATE = 1.5e-3
KL_WEIGHT = 1e-3
FACE_WEIGHT = 2.0


def make_vae() -> AutoencoderKLWan:
    """Return an untrained VAE of the demo's size."""
    return AutoencoderKLWan(**CONFIG)


def draw_pool(seed: int, count: int, device: torch.device, shares: dict[str, float] = SHARES) -> Tensor:
    """Return uint8 ``[count, 4, 17, 128, 128]``: clips, and where their faces are."""
    scenes = list(draw_scenes(seed, count, shares))
    pool = torch.empty(count, 4, FRAMES, SIDE, SIDE, dtype=torch.uint8, device=device)
    for start in range(0, count, 64):
        part = scenes[start : start + 64]
        clips, faces = draw_crops(
            part,
            frames=FRAMES,
            height=SIDE,
            width=SIDE,
            corners=torch.zeros(len(part), 2),
            crop=(SIDE, SIDE),
            device=device,
        )
        pool[start : start + len(part)] = torch.cat([(clips + 1) * 127.5, faces * 255], 1).round().to(torch.uint8)
    return pool


def held_out_clips(device: torch.device) -> dict[str, Tensor]:
    """Return clips that training never sees, for the progress report."""
    lot = random.Random(77)
    scenes: dict[str, list[Scene]] = {
        "shapes": [draw_shape(lot, held_out=True) for _ in range(8)],
        "portraits": [draw_camera(lot, name, HELD_OUT_VARIANT) for name in PORTRAITS for _ in range(4)],
    }
    return {name: draw(chosen, frames=FRAMES, height=SIDE, width=SIDE, device=device) for name, chosen in scenes.items()}


def reconstruction_loss(decoded: Tensor, clip: Tensor, weight: Tensor) -> Tensor:
    """Return the absolute and squared error, plus the error of neighbours' differences.

    The latter keeps edges sharp.
    """
    error = decoded - clip
    edges = sum((error.diff(dim=d).abs() * weight.narrow(d, 1, weight.shape[d] - 1)).mean() for d in (3, 4))
    return (weight * (error.abs() + 2 * error.square())).mean() + 0.5 * edges


def train_vae(path: Path, total: int, *, ranks: Ranks, deadline: float) -> bool:
    """Train until ``total`` steps or the deadline; return True when finished."""
    device = ranks.device
    torch.manual_seed(26)
    vae = make_vae().to(device)
    trained = list(vae.parameters())
    optimizer = torch.optim.AdamW(trained, RATE, betas=(0.9, 0.95), weight_decay=1e-4, fused=device.type == "cuda")
    run = Run(path, {"vae": vae}, optimizers=[optimizer], total=total, deadline=deadline, writes=ranks.rank == 0)
    if run.finished:
        return True
    unroll(vae)
    _channels_last(vae)
    pool = draw_pool(1000 + ranks.rank, POOL // ranks.count, device)
    tests = held_out_clips(device)

    def loss_of(batch: Tensor) -> Tensor:
        clip, face = batch[:, :3], batch[:, 3:]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mean, log_variance = encode_clip(vae, clip)
            mean, log_variance = mean.float(), log_variance.float()
            latents = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            decoded = decode_clip(vae, latents)
        loss = reconstruction_loss(decoded.float(), clip, 1 + FACE_WEIGHT * face)
        return loss + KL_WEIGHT * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()

    compiled = torch.compile(loss_of, dynamic=False) if device.type == "cuda" else loss_of
    for step in run.steps():
        torch.manual_seed(step * 64 + ranks.rank)
        compiled(_batch(pool, step >= WHOLE_FROM * total, ranks.count)).backward()  # type: ignore[no-untyped-call]
        ranks.average(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ranks.rank == 0 and (run.step + 1) % 1000 == 0:
            _report(run, vae, tests)
    if ranks.rank == 0:
        _report(run, vae, tests)
    return run.finished


def _batch(pool: Tensor, whole: bool, ranks: int) -> Tensor:
    """Return a random part of the pool: crops, or whole clips.

    It is float32, with images in [-1, 1] and faces in 0 to 1.
    """
    size = SIDE if whole else CROP
    chosen = torch.randint(len(pool), ((WHOLE_BATCH if whole else BATCH) // ranks,)).tolist()
    corners = torch.randint(0, SIDE - size + 1, (len(chosen), 2)).tolist()
    parts = [pool[i, :, :, y : y + size, x : x + size] for i, (y, x) in zip(chosen, corners, strict=True)]
    batch = torch.stack(parts).float()
    batch[:, :3] = batch[:, :3] / 127.5 - 1
    batch[:, 3:] /= 255
    return batch.contiguous(memory_format=torch.channels_last_3d)


def _channels_last(vae: AutoencoderKLWan) -> None:
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)


@torch.no_grad()
def _report(run: Run, vae: AutoencoderKLWan, tests: dict[str, Tensor]) -> None:
    run.average.swap()
    figures = []
    for name, clips in tests.items():
        decoded = torch.cat([decode_clip(vae, encode_clip(vae, clip[None])[0]).clamp(-1, 1) for clip in clips])
        figures.append(f"{name} {psnr(decoded, clips):.2f} dB, last frames {psnr(decoded[:, :, -4:], clips[:, :, -4:]):.2f} dB")
    run.average.swap()
    print(f"{run.path.stem} at {run.step + 1}: {'; '.join(figures)}", flush=True)
