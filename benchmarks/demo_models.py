"""`python -m benchmarks.demo_models`: what the demo's models can do, compared with random weights.

All prompts and images are held out of training. Every figure is judged from pixels
(benchmarks/judge.py), or by comparison with the true clip, which the code that drew the training
data draws. `--share 0.1` asks a tenth of the questions. `--states FOLDER`, a folder of the
training, compares GGUF files with float32 too. `--device cuda` asks on a GPU, in float32 as on a
CPU; `--questions` asks some of them only.
"""

import argparse
import dataclasses
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.judge import Frames, Seen, judge
from benchmarks.questions import CFG, FRAMES, Demo, ask, image_scenes, load, make, moves_as, picture_of, psnr, shape_scenes
from demo.checkpoints import demo_checkpoints
from demo.face_models import face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.settings import FaceSettings, Wan22Settings
from deployments.video.engine import WanEngine
from deployments.video.mode import Mode
from deployments.wire import Embedding
from training.pictures import photograph
from training.scenes import (
    COLORS,
    HELD_OUT_VARIANT,
    PORTRAITS,
    Scene,
    caption,
    draw_camera,
    draw_shape,
)
from training.transformers import picture_condition

Row = tuple[str, str, str, str]
"""A figure, its target, how it is judged, and its value."""


def obedience(demo: Demo, share: float) -> Iterator[Row]:
    """Judge colour, shape and motion for held-out prompts."""
    lot = random.Random(4)
    scenes = shape_scenes(_scaled(60, share))
    prompts = [caption(scene, lot) for scene in scenes]
    prompts = [ask(scene) if scene.color not in prompt else prompt for scene, prompt in zip(scenes, prompts, strict=True)]
    questions = [(s, p, seed) for s, p in zip(scenes, prompts, strict=True) for seed in (1, 2)]
    seen = [judge(make(demo.wan26, prompt, seed=seed)) for _, prompt, seed in questions]
    rights = _rights([scene for scene, _, _ in questions], seen)
    for name, word, bar in (("color", "colour", ">= 95 %"), ("shape", "shape", ">= 85 %"), ("motion", "motion", ">= 85 %")):
        yield f"{len(scenes)} held-out prompts, 2 seeds, cfg {CFG:g}: {word} right", bar, "judge", _percent(rights[name])
    few = list(zip(scenes, prompts, strict=True))[: _scaled(30, share)]
    for cfg in (1.0, 3.0, 5.0, 6.0):
        rights = _rights([s for s, _ in few], [judge(make(demo.wan26, p, seed=3, cfg=cfg)) for _, p in few])
        text = " / ".join(_percent(rights[name]) for name in ("color", "shape", "motion"))
        yield f"{len(few)} of them at cfg {cfg:g}: colour / shape / motion", ">= 80 % of the best", "judge", text


def guidance(demo: Demo, share: float) -> Iterator[Row]:
    """Judge the effect of seeds and negative prompts."""
    prompt = "a star moves to the left on a black background"
    one, other = make(demo.wan26, prompt, seed=1), make(demo.wan26, prompt, seed=2)
    yield "two seeds differ by", "shown", "PSNR of one to the other", f"{psnr(one, other):.1f} dB"
    color = judge(one).color or "white"
    avoided = make(demo.wan26, prompt, seed=1, negative=f"a {color} star")
    now = judge(avoided).color
    yield f"negative prompt `a {color} star` where it was {color}", "another", "judge", str(now)


def images(demo: Demo, share: float) -> Iterator[Row]:
    """Judge the first frame and the motion of videos from images."""
    scenes = image_scenes(_scaled(40, share))
    lot = random.Random(5)
    for name, engine in (("Wan26", demo.wan26), ("Wan22GGUF", demo.wan22)):
        firsts, moved = [], 0
        for scene in scenes:
            truth = picture_of(scene)
            video = make(engine, caption(scene, lot), seed=1, image=truth[0])
            firsts.append(psnr(video[0], truth[0]))
            moved += moves_as(video, truth)
        first = f"{np.mean(firsts):.1f} dB (least {min(firsts):.1f})"
        yield f"{name}, {len(scenes)} held-out images: first frame", ">= 25 dB", "PSNR to the image", first
        share_moved = _percent(moved / len(scenes))
        yield (
            f"{name}: frames 2 to 8 move as asked",
            ">= 85 %",
            "PSNR to the moving image over that to the still one",
            share_moved,
        )


def experts(demo: Demo, share: float) -> Iterator[Row]:
    """Compare both experts with either one alone, and with the two swapped."""
    mode = _image_mode(demo.wan22)
    high, low = mode.transformers["transformer"], mode.transformers["transformer_2"]
    scenes = image_scenes(_scaled(16, share))
    lot = random.Random(6)
    prompts = [caption(scene, lot) for scene in scenes]
    both: list[float] = []
    for name, first, second in (
        ("both", high, low),
        ("the high-noise one alone", high, high),
        ("the low-noise one alone", low, low),
        ("swapped", low, high),
    ):
        transformers = {"transformer": first, "transformer_2": second}
        engine = dataclasses.replace(demo.wan22, image_mode=dataclasses.replace(mode, transformers=transformers))
        scores = []
        for scene, prompt in zip(scenes, prompts, strict=True):
            truth = picture_of(scene)
            scores.append(psnr(make(engine, prompt, seed=1, image=truth[0]), truth))
        value = f"{np.mean(scores):.2f} dB"
        if both:
            value += f"; both is better in {sum(b > s for b, s in zip(both, scores, strict=True))}"
        both = both or scores
        yield f"experts, {name}: {len(scenes)} videos", "both is best", "mean PSNR to the true clip", value


def specialists(demo: Demo, share: float) -> Iterator[Row]:
    """Compare the experts' errors at the noise levels on either side of the boundary."""
    mode = _image_mode(demo.wan22)
    assert mode.boundary is not None
    scenes = image_scenes(_scaled(40, share))
    lot = random.Random(10)
    clips = [picture_of(scene) for scene in scenes]
    encoded = [(_encode(demo, clip), _encode(demo, clip[:1], frames=FRAMES)) for clip in clips]
    for side, low, high in (("noise", mode.boundary, 1.0), ("detail", 0.0, mode.boundary)):
        errors: dict[str, list[float]] = {"transformer": [], "transformer_2": []}
        generator = torch.Generator().manual_seed(10)
        for number, (scene, (clip, image)) in enumerate(zip(scenes, encoded, strict=True)):
            [text] = demo.wan22.prompts.embed({"prompt": caption(scene, lot)}, lambda: None)
            time = low + (high - low) * (number + 0.5) / len(scenes)
            noise = torch.randn(clip.shape, generator=generator).to(clip.device)
            inputs = torch.cat([(1 - time) * clip + time * noise, picture_condition(image)], dim=1)
            for part, values in errors.items():
                with torch.no_grad():
                    velocity = mode.transformers[part](
                        inputs, torch.tensor([1000 * time], device=clip.device), text, return_dict=False
                    )[0]
                values.append(float((velocity - (noise - clip)).square().mean()))
        own, other = ("transformer", "transformer_2") if side == "noise" else ("transformer_2", "transformer")
        better = sum(a < b for a, b in zip(errors[own], errors[other], strict=True))
        yield (
            f"velocity error at {low:g} to {high:g} of noise: its expert / the other",
            "its expert is better",
            f"mean over {len(scenes)} held-out images, one level each",
            f"{np.mean(errors[own]):.4f} / {np.mean(errors[other]):.4f}; better in {better}",
        )


def _image_mode(engine: WanEngine) -> Mode:
    assert engine.image_mode is not None
    return engine.image_mode


def _encode(demo: Demo, clip: Frames, frames: int = 0) -> torch.Tensor:
    """Return the normalised latents of ``clip``, padded with grey frames to ``frames``."""
    pixels = torch.from_numpy(clip.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    if frames:
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, frames - len(clip)))
    vae = demo.wan22.vae
    pixels = pixels.to(vae.device)
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean, std = (
        torch.tensor(values, device=vae.device).view(shape) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    with torch.no_grad():
        latents = (vae.encode(pixels).latent_dist.mode() - mean) / std
    assert isinstance(latents, torch.Tensor)
    return latents


def portraits(demo: Demo, share: float) -> Iterator[Row]:
    """Judge whether videos of portraits show a face."""
    analyser = make_analyser()
    lot = random.Random(7)
    scenes = [draw_camera(lot, PORTRAITS[i % 2], HELD_OUT_VARIANT) for i in range(_scaled(12, share))]
    sources: tuple[tuple[str, Callable[[Scene, str, int], Frames]], ...] = (
        ("prompts", lambda scene, prompt, seed: make(demo.wan26, prompt, seed=seed)),
        ("images, Wan26", lambda scene, prompt, seed: make(demo.wan26, prompt, seed=seed, image=picture_of(scene)[0])),
        ("images, Wan22GGUF", lambda scene, prompt, seed: make(demo.wan22, prompt, seed=seed, image=picture_of(scene)[0])),
    )
    for name, generate in sources:
        found = []
        for seed, scene in enumerate(scenes):
            prompt = f"a portrait of an {scene.subject}, the camera zooms in"
            found += [bool(analyser.faces([np.ascontiguousarray(frame)])[0]) for frame in generate(scene, prompt, seed)]
        yield f"portrait {name}: frames with a face", ">= 90 %", "YuNet", _percent(float(np.mean(found)))


MOVES = ("zooms in", "zooms out", "does not move", "pans up", "pans left", "pans right")


def resemblance(demo: Demo, share: float) -> Iterator[Row]:
    """Judge whether portraits from prompts show the person."""
    analyser = make_analyser()
    persons = {name: embedding_of(analyser, name) for name in PORTRAITS}
    alike: dict[str, list[bool]] = {name: [] for name in PORTRAITS}
    for number in range(_scaled(24, share)):
        name, move = PORTRAITS[number % 2], MOVES[number // 2 % len(MOVES)]
        video = make(demo.wan26, f"a portrait of an {name}, the camera {move}", seed=100 + number)
        alike[name] += shows(analyser, video, persons[name])
    each = ", ".join(f"{name} {_percent(float(np.mean(frames)))}" for name, frames in alike.items())
    value = f"{_percent(float(np.mean([right for frames in alike.values() for right in frames])))} ({each})"
    yield "portrait prompts: frames with the person", ">= 80 %", "SFace cosine >= 0.4", value


def shows(analyser: OpenCVAnalyser, video: Frames, person: Embedding) -> list[bool]:
    """Say of each frame whether it shows the person."""
    return [any(float(face.embedding @ person) >= 0.4 for face in faces) for faces in analyser.faces(list(video))]


def embedding_of(analyser: OpenCVAnalyser, name: str) -> Embedding:
    """Return the embedding of the only face in a training photograph."""
    picture = (photograph(name)[:3].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    [[face]] = analyser.faces([picture])
    return face.embedding


def reconstruction(demo: Demo, share: float) -> Iterator[Row]:
    """Judge the VAE alone."""
    analyser = make_analyser()
    lot = random.Random(8)
    count = _scaled(20, share)
    sets = {
        "held-out shapes": [draw_shape(lot, held_out=True) for _ in range(count)],
        "moving portraits": [draw_camera(lot, PORTRAITS[i % 2], HELD_OUT_VARIANT) for i in range(count)],
        "another photograph, panned": [Scene("coffee", motion, variant=HELD_OUT_VARIANT + 1) for motion in ("left", "down")],
    }
    bars = {"held-out shapes": ">= 32 dB", "moving portraits": ">= 27 dB", "another photograph, panned": "printed"}
    same_person: list[bool] = []
    for name, scenes in sets.items():
        scores = []
        for scene in scenes:
            truth = picture_of(scene)
            result = reconstruct(demo, truth)
            scores.append(psnr(result, truth))
            if name == "moving portraits":
                same_person += list(same_person_in(analyser, truth, result))
        value = f"{np.mean(scores):.1f} dB (least {min(scores):.1f})"
        yield f"VAE, {len(scenes)} {name}", bars[name], "mean PSNR", value
    yield (
        "identity through the VAE: frames with the same person",
        ">= 90 %",
        "SFace cosine >= 0.5",
        _percent(float(np.mean(same_person))),
    )


def reconstruct(demo: Demo, clip: Frames) -> Frames:
    """Encode and decode ``clip`` with the VAE."""
    vae = demo.wan26.vae
    pixels = torch.from_numpy(clip.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pixels.to(vae.device)).latent_dist.mode(), return_dict=False)[0]
    return np.asarray(((decoded[0].permute(1, 2, 3, 0).cpu().numpy() + 1) * 127.5).round().clip(0, 255), np.uint8)


def make_analyser() -> OpenCVAnalyser:
    """Return the demo's face analyser, which judges faces and persons."""
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


def same_person_in(analyser: OpenCVAnalyser, truth: Frames, result: Frames) -> Iterator[bool]:
    """Say of each frame with a face whether the result shows the same person there."""
    for one, other in zip(truth, result, strict=True):
        before, after = analyser.faces([np.ascontiguousarray(one), np.ascontiguousarray(other)])
        if before:
            yield bool(after) and float(before[0].embedding @ after[0].embedding) >= 0.5


def quantisation(demo: Demo, states: Path | None, settings: Wan22Settings) -> Iterator[Row]:
    """Compare GGUF files of several precisions."""
    from benchmarks.requantise import build_engines

    scenes = image_scenes(4)
    with tempfile.TemporaryDirectory() as folder:
        engines = build_engines(demo.checkpoints, Path(folder), states, settings)
        exact = engines.pop("float32", None)
        name, reference = ("Q8_0", engines.pop("Q8_0")) if exact is None else ("float32", exact)
        for kind, engine in engines.items():
            scores = []
            for scene in scenes:
                image = picture_of(scene)[0]
                prompt = ask(scene) if scene.is_shape else "zoom in"
                one, other = (make(e, prompt, seed=1, image=image) for e in (reference, engine))
                scores.append(psnr(one, other))
            bar = ">= 35 dB" if kind == "Q8_0" else "printed"
            yield f"{kind} against {name}, {len(scenes)} videos", bar, "PSNR, same seeds", f"{np.mean(scores):.1f} dB"


def speed() -> Iterator[Row]:
    """Measure calls through the service, including HTTP, Ray and encoding."""
    from serve.cli.presets import find_preset
    from serve.cli.service import running
    from serve.http.examples import payload

    with running(find_preset("demo")) as client:
        for name, bar in (("wan2.6", "<= 10 s"), ("wan2.6-i2v", "<= 10 s"), ("wan22-i2v", "<= 10 s")):
            yield f"/{name}, 128x128x17, 12 steps", bar, "median of 3 calls", _median(client, name, payload(name))
        for name in ("wan2.6-i2v-faceswap", "wan22-i2v-faceswap"):
            yield f"/{name}, the same size", "<= 15 s", "median of 3 calls", _median(client, name, payload(name))


def _median(client: Any, name: str, body: dict[str, Any]) -> str:
    client.call(name, body)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        client.call(name, body)
        seconds.append(time.perf_counter() - begun)
    return f"{sorted(seconds)[1]:.1f} s"


def _scaled(count: int, share: float) -> int:
    return max(2, round(count * share))


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _rights(scenes: list[Scene], seen: list[Seen]) -> dict[str, float]:
    assert all(scene.color in COLORS for scene in scenes)
    answers = [one.right(scene) for scene, one in zip(scenes, seen, strict=True)]
    return dict(zip(("color", "shape", "motion"), np.mean(answers, axis=0).tolist(), strict=True))


QUESTIONS: dict[str, Callable[[Demo, float], Iterator[Row]]] = {
    question.__name__: question
    for question in (obedience, guidance, images, experts, specialists, portraits, resemblance, reconstruction)
}


def main() -> None:
    """Print the table."""
    from tests.engines.random_models import RandomCheckpoints, write_checkpoints

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the questions to ask")
    parser.add_argument("--states", type=Path, help="folder with the states of the training")
    parser.add_argument("--no-service", action="store_true", help="do not measure the service")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--questions", nargs="+", choices=[*QUESTIONS, "quantisation"], default=[*QUESTIONS, "quantisation"])
    options = parser.parse_args()
    console = Console(width=180)
    table = Table("figure", "target", "judged by", "demo's models", "random weights")

    def add(row: Row, by_chance: str = "") -> None:
        table.add_row(*row, by_chance)
        console.print(f"{row[0]}: {row[3]}", highlight=False)

    trained = load(demo_checkpoints(), options.device, "float32")
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(RandomCheckpoints(Path(folder)))
        noise = load(RandomCheckpoints(Path(folder)), options.device, "float32")
    for name, question in QUESTIONS.items():
        if name not in options.questions:
            continue
        begun = time.perf_counter()
        by_chance = {row[2] + str(i): row[3] for i, row in enumerate(question(noise, min(options.share, 0.1)))}
        for i, row in enumerate(question(trained, options.share)):
            add(row, by_chance.get(row[2] + str(i), ""))
        console.print(f"{name}: {time.perf_counter() - begun:.0f} s")
    if "quantisation" in options.questions:
        for row in quantisation(
            trained, options.states, Wan22Settings(device=options.device, dtype="float32", vae_dtype="float32")
        ):
            add(row)
    if not options.no_service:
        for row in speed():
            add(row)
    console.print(table)


if __name__ == "__main__":
    main()
