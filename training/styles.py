"""Trains small LoRAs that give the demo's videos another style: `python -m training.styles`.

A style is a function of pixels. Clips of the training scenes are drawn in it, and a LoRA of the
VACE model learns to make them from the same captions, and from images that are not in the style.
On a GPU both styles take about five minutes.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.checkpoints import DemoCheckpoints, demo_checkpoints
from deployments.video.checkpoints.folder import load_transformer
from deployments.video.checkpoints.vace import text_model
from training.causal import encode_clip
from training.distil import Data, Lora
from training.latents import GREY
from training.pictures import draw
from training.replay import Replay
from training.run import Run
from training.scenes import draw_scenes
from training.text import embed, tokenize, write_captions
from training.transformers import DROPPED_CAPTIONS, Times, flow_loss, pad_text, vace_control

SHARES = {"shape": 0.5, "astronaut": 0.15, "officer": 0.15, "cat": 0.1, "rocket": 0.1}
FRAMES, SIDE = 17, 128
CLIPS, STEPS, BATCH = 6_000, 3_000, 128
ENCODED = 64
"""Clips that are drawn and encoded at a time."""
RATE = 3e-3
RANK = 4
LAYERS = r"blocks\.\d+\.(attn1\.to_v|attn1\.to_out\.0|ffn\.net\.0\.proj|ffn\.net\.2)|proj_out"
"""The layers that a style changes: those that decide what a token shows, not where it looks."""
WORDINGS = 2

Style = Callable[[Tensor], Tensor]
"""Maps clips ``[n, 3, t, h, w]`` in -1..1 to styled ones."""


def sepia(clips: Tensor) -> Tensor:
    """Return ``clips`` in the tones of an old photograph, from dark brown to cream.

    The brighter and the more colourful a pixel is, the lighter is its tone. By brightness alone a
    red shape would vanish on a grey ground.
    """
    dark, light = _color(clips, 38, 22, 12), _color(clips, 246, 228, 188)
    weights = torch.tensor([0.299, 0.587, 0.114], device=clips.device).view(1, 3, 1, 1, 1)
    colors = (clips + 1) / 2
    luma = (colors * weights).sum(1, keepdim=True)
    colorfulness = colors.amax(1, keepdim=True) - colors.amin(1, keepdim=True)
    return dark + (light - dark) * (luma + 0.5 * colorfulness).clamp(0, 1)


def ink(clips: Tensor) -> Tensor:
    """Return ``clips`` as drawings: dark lines where brightness or colour changes, on a wash.

    The darker the clip, the darker the wash. Lines alone hardly show a face.
    """
    smooth = clips
    for _ in range(2):  # lines of several pixels are kept by the VAE, fine ones are not
        smooth = torch.nn.functional.avg_pool3d(_pad(smooth, 1), (1, 3, 3), 1)
    around = _pad(smooth, 1)
    dx = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]).abs()
    dy = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]).abs()
    edge = (1.5 * (dx + dy).amax(1, keepdim=True) - 0.3).clamp(0, 1)
    paper, line = _color(clips, 247, 243, 232), _color(clips, 30, 30, 46)
    darkness = (1 - smooth.mean(1, keepdim=True)).clamp(0, 2) / 2
    wash = paper + 0.75 * darkness**1.4 * (line - paper)
    return wash + (line - wash) * edge


def _pad(clips: Tensor, by: int) -> Tensor:
    return torch.nn.functional.pad(clips, (by, by, by, by, 0, 0), mode="replicate")


def _color(clips: Tensor, *rgb: float) -> Tensor:
    return torch.tensor(rgb, device=clips.device).view(1, 3, 1, 1, 1) / 127.5 - 1


STYLES: Mapping[str, tuple[Style, str]] = {
    "sepia": (sepia, "an old photograph"),
    "ink": (ink, "a line drawing"),
}
"""The styles by the names of their files, with the words that the files list for them."""


@dataclass(frozen=True)
class Lessons:
    """Normalised latents ``[n, 16, t, h, w]``, float16, and the captions' tokens."""

    styled: Mapping[str, Tensor]
    """The clips in each style."""
    pictures: Tensor
    """The first frame of each clip as it was, followed by zeros."""
    grey: Tensor
    """What stands for the frames to generate, of one clip."""
    tokens: Tensor
    """int64 ``[n, wordings, length]``."""
    none: Tensor
    """The tokens of an empty caption, ``[1, length]``."""


@torch.no_grad()
def encode(data: Data, styles: Mapping[str, Style], clips: int) -> Lessons:
    """Draw ``clips`` training clips in ``styles`` and encode them."""
    scenes = list(draw_scenes(77, clips, SHARES))
    latents: dict[str, list[Tensor]] = {name: [] for name in (*styles, "picture")}
    for start in range(0, clips, ENCODED):
        clip = draw(scenes[start : start + ENCODED], frames=FRAMES, height=SIDE, width=SIDE, device=data.device)
        picture = torch.cat([clip[:, :, :1], torch.zeros_like(clip[:, :, 1:])], dim=2)
        for name, drawn in ((name, style(clip)) for name, style in styles.items()):
            latents[name].append(_encode(data, drawn))
        latents["picture"].append(_encode(data, picture))
    grey = torch.full((1, 3, FRAMES, SIDE, SIDE), GREY, device=data.device)
    grey[:, :, 0] = 0
    captions = write_captions(scenes, 78, WORDINGS)
    tokens = tokenize(data.tokenizer, [text for texts in captions for text in texts])
    return Lessons(
        styled={name: torch.cat(latents[name]) for name in styles},
        pictures=torch.cat(latents["picture"]),
        grey=_encode(data, grey),
        tokens=tokens.view(clips, WORDINGS, -1).to(data.device),
        none=tokenize(data.tokenizer, [""]).to(data.device),
    )


def _encode(data: Data, clips: Tensor) -> Tensor:
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=clips.is_cuda):
        mean = encode_clip(data.vae, clips)[0]
    return data.normalise(mean).half()


def train(name: str, data: Data, lessons: Lessons, target: DemoCheckpoints, *, steps: int, batch: int) -> Lora:
    """Return the LoRA of a style for the VACE model in ``target``."""
    torch.manual_seed(5)
    device, styled = data.device, lessons.styled[name]
    vace = load_transformer(target.vace / "transformer", torch.float32, device)
    text = text_model(vace)
    pad_text(vace, device)
    lora, times = Lora(text, rank=RANK, layers=LAYERS), Times()
    text_view, vace_view = lora.on(text), lora.on(vace)
    parameters = [*lora.parameters.parameters()]
    cuda = device.type == "cuda"
    rate = torch.tensor(RATE, device=device) if cuda else RATE  # a graph reads the rate again in every step
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=cuda, capturable=cuda)

    def learn(kind: str, clips: Tensor, words: Tensor, *seen: Tensor) -> Tensor:
        def predict(x: Tensor, t: Tensor) -> Tensor:
            result: Tensor = (
                text_view(x, t, words, return_dict=False)
                if kind == "text"
                else vace_view(x, t, words, control_hidden_states=seen[0], return_dict=False)
            )[0]
            return result

        with torch.autocast(device.type, torch.bfloat16, enabled=cuda, cache_enabled=False):
            loss = flow_loss(predict, clips, times)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    run = Run(
        target.loras / f"{name}.pt",
        {"lora": lora.parameters},
        optimizers=[optimizer],
        total=steps,
        decay=0.998,
        warm_up=50,
        writes=False,
    )
    replay, losses = Replay(learn), []
    for step in run.steps():
        torch.manual_seed(step)
        chosen = torch.randint(len(styled), (batch,), device=device)
        tokens = lessons.tokens[chosen, torch.randint(WORDINGS, (batch,), device=device)]
        tokens = torch.where(torch.rand(batch, 1, device=device) < DROPPED_CAPTIONS, lessons.none, tokens)
        with torch.no_grad():
            words = embed(data.encoder, tokens)
        seen = [] if step % 3 else [vace_control(lessons.pictures[chosen].float(), lessons.grey.float())]
        losses.append(replay("picture" if seen else "text", styled[chosen].float(), words, *seen))
        if len(losses) == 250:
            print(f"{name} {step + 1}: loss {torch.stack(losses).mean().item():.4f}", flush=True)
            losses.clear()
    run.average.swap()
    return lora


def main() -> None:
    """Parse the command line and train the styles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=STYLES, action="append", help="train only this style; may be given several times")
    parser.add_argument("--target", type=Path, help="folder that the LoRAs are written to. Default: that of the demo's")
    parser.add_argument("--clips", type=int, default=CLIPS, help="number of clips to draw")
    parser.add_argument("--steps", type=int, default=STEPS, help="number of training steps of each style")
    parser.add_argument("--batch", type=int, default=BATCH, help="clips of a step")
    options = parser.parse_args()
    shipped = demo_checkpoints()
    folder = options.target or shipped.loras
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    begun = time.monotonic()
    data = Data(shipped.vace, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    names = options.style or list(STYLES)
    lessons = encode(data, {name: STYLES[name][0] for name in names}, options.clips)
    print(f"encoded after {time.monotonic() - begun:.0f} s", flush=True)
    for name in names:
        lora = train(name, data, lessons, shipped, steps=options.steps, batch=options.batch)
        path = folder / f"{name}.safetensors"
        lora.write(path, rank=RANK, metadata={"format": "pt", "modelspec.trigger_phrase": STYLES[name][1]})
        print(f"{name}: {path.stat().st_size} bytes after {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
