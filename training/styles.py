"""Fits small LoRAs that give the demo's videos another style: `python -m training.styles`.

A style is a function of pixels. The LoRA changes the last projection alone, which turns the
features of each token into the velocity of its latents: the change by which it leads to the styled
clip is a linear regression on the features, with a closed solution, and takes a CPU minutes. Half
of the clips are noised after they were styled, as a sampler sees them that already has the style,
and half before.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo.checkpoints import DemoCheckpoints, demo_checkpoints
from deployments.video.checkpoints.folder import load_text_encoder, load_tokenizer, load_transformer, load_vae
from deployments.video.checkpoints.vace import text_model
from training.causal import encode_clip, unroll
from training.pictures import draw
from training.scenes import draw_scenes
from training.text import embed, tokenize, write_captions
from training.transformers import Times, prepare

SHARES = {"shape": 0.8, "astronaut": 0.1, "officer": 0.1}
FRAMES, SIDE, BATCH = 9, 128, 8
CLIPS = 192
ROUNDS = 4
"""Times of noise that each clip is seen at."""
RIDGE = 1e-3
"""The weight of the change's size, relative to the mean square of the features."""
RANK = 24

Style = Callable[[Tensor], Tensor]
"""Maps clips ``[n, 3, t, h, w]`` in -1..1 to styled ones."""


def sepia(clips: Tensor) -> Tensor:
    """Return ``clips`` in the tones of an old photograph, from dark brown to cream."""
    dark, light = (torch.tensor(tone).view(1, 3, 1, 1, 1) / 127.5 - 1 for tone in ([38.0, 22.0, 12.0], [246.0, 228.0, 188.0]))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)
    luma = ((clips + 1) / 2 * weights).sum(1, keepdim=True)
    return dark + (light - dark) * luma


def ink(clips: Tensor) -> Tensor:
    """Return ``clips`` as drawings: dark lines where brightness or colour changes, on paper."""
    across = torch.nn.functional.pad(clips, (1, 1, 1, 1, 0, 0), mode="replicate")
    dx = (across[..., 1:-1, 2:] - across[..., 1:-1, :-2]).abs()
    dy = (across[..., 2:, 1:-1] - across[..., :-2, 1:-1]).abs()
    edge = (1.6 * (dx + dy).amax(1, keepdim=True) - 0.15).clamp(0, 1)
    n, _, t, h, w = edge.shape
    # Lines are two pixels wide, so that the VAE keeps them.
    edge = (
        torch.nn.functional.max_pool2d(edge.transpose(1, 2).reshape(n * t, 1, h, w), 3, 1, 1)
        .view(n, t, 1, h, w)
        .transpose(1, 2)
    )
    paper = torch.tensor([247.0, 243.0, 232.0]).view(1, 3, 1, 1, 1) / 127.5 - 1
    line = torch.tensor([30.0, 30.0, 46.0]).view(1, 3, 1, 1, 1) / 127.5 - 1
    return paper + (line - paper) * edge


STYLES: Mapping[str, tuple[Style, str]] = {
    "sepia": (sepia, "an old photograph"),
    "ink": (ink, "a line drawing"),
}
"""The styles by the names of their files, with the words that the files list for them."""


class Features:
    """Records what goes into the last projection of ``transformer``."""

    def __init__(self, transformer: Any) -> None:
        self.seen: Tensor | None = None
        transformer.proj_out.register_forward_pre_hook(self._record)

    def _record(self, _: object, inputs: tuple[Tensor]) -> None:
        self.seen = inputs[0].flatten(0, 1)


def patches(latents: Tensor) -> Tensor:
    """Return latents ``[n, c, t, h, w]`` as the last projection's outputs, ``[tokens, 4 c]``."""
    n, c, t, h, w = latents.shape
    return latents.view(n, c, t, 1, h // 2, 2, w // 2, 2).permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(n * t * h * w // 4, 4 * c)


@torch.no_grad()
def fit(target: DemoCheckpoints, style: Style, clips: int = CLIPS) -> dict[str, Tensor]:
    """Return the LoRA of a style for the VACE model in ``target``."""
    torch.manual_seed(5)
    cpu = torch.device("cpu")
    vae = load_vae(target.vace / "vae", torch.float32, cpu)
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    unroll(vae)
    encoder = load_text_encoder(target.vace / "text_encoder", torch.float32, cpu)
    tokenizer = load_tokenizer(target.vace)
    model = text_model(load_transformer(target.vace / "transformer", torch.float32, cpu))
    prepare(model, cpu)
    features, times = Features(model), Times()
    width, out = model.proj_out.in_features, model.proj_out.out_features
    gram, moment = torch.zeros(width + 1, width + 1, dtype=torch.float64), torch.zeros(width + 1, out, dtype=torch.float64)
    scenes = list(draw_scenes(77, clips, SHARES))
    captions = [texts[0] for texts in write_captions(scenes, 78, 1)]
    for start in range(0, clips, BATCH):
        part = slice(start, start + BATCH)
        drawn = draw(scenes[part], frames=FRAMES, height=SIDE, width=SIDE)
        plain, styled = ((encode_clip(vae, clip)[0] - mean) / std for clip in (drawn, style(drawn)))
        words = embed(encoder, tokenize(tokenizer, captions[part]))
        for number in range(ROUNDS):
            time = times.draw(len(plain), cpu)
            t = time.view(-1, 1, 1, 1, 1)
            noise = torch.randn_like(plain)
            seen = styled if number % 2 else plain
            noisy = (1 - t) * seen + t * noise
            velocity = model(noisy, time * 1000, words, return_dict=False)[0]
            # Whatever the model sees, it has to lead to the styled clip.
            wanted = (noisy - styled) / t.clamp(min=0.05)
            assert features.seen is not None
            rows = torch.cat([features.seen, torch.ones(len(features.seen), 1)], 1).double()
            weight = t.clamp(min=0.05).expand_as(plain)
            weights = patches(weight)[:, :1].double()
            gram += (rows * weights).T @ rows
            moment += (rows * weights).T @ patches(wanted - velocity).double()
    scale = gram.diagonal()[:-1].mean()
    change = torch.linalg.solve(gram + RIDGE * scale * torch.eye(width + 1, dtype=torch.float64), moment).float()
    left, size, right = torch.linalg.svd(change[:-1].T, full_matrices=False)
    root = size[:RANK].sqrt()
    return {
        "diffusion_model.head.head.lora_up.weight": left[:, :RANK] * root,
        "diffusion_model.head.head.lora_down.weight": root[:, None] * right[:RANK],
        "diffusion_model.head.head.alpha": torch.tensor(float(min(RANK, len(size)))),
        "diffusion_model.head.head.diff_b": change[-1],
    }


def main() -> None:
    """Parse the command line and fit the styles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=STYLES, action="append", help="fit only this style; may be given several times")
    parser.add_argument("--target", type=Path, help="folder that the LoRAs are written to. Default: that of the demo's")
    options = parser.parse_args()
    folder = options.target or demo_checkpoints().loras
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.style or STYLES:
        style, words = STYLES[name]
        state = {key: tensor.half().contiguous() for key, tensor in fit(demo_checkpoints(), style).items()}
        save_file(state, folder / f"{name}.safetensors", {"format": "pt", "modelspec.trigger_phrase": words})
        print(f"{name}: {sum(tensor.nbytes for tensor in state.values())} bytes", flush=True)


if __name__ == "__main__":
    main()
