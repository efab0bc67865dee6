"""Trains the packed models to need 4 steps and no guidance, with LoRAs in published formats.

The teacher is the model itself, as it is served: UniPC, 12 steps, guidance scale 3. From the same
noise the student takes its own four steps. At each of them, the clip that it is heading for is
compared with the teacher's result, and the gradient flows through all steps.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.checkpoints import DemoCheckpoints
from deployments.video.acceleration.distilled import EvenEuler
from deployments.video.checkpoints.experts import dequantise
from deployments.video.checkpoints.folder import (
    load_scheduler,
    load_text_encoder,
    load_tokenizer,
    load_transformer,
    load_vae,
)
from deployments.video.checkpoints.gguf import load_gguf
from deployments.video.checkpoints.lora import LoraLinear
from deployments.video.checkpoints.vace import text_model
from deployments.video.kernels.layers import with_layers
from deployments.video.sampling.solver import Solver
from training.causal import unroll
from training.gguf_file import original_name
from training.latents import BUCKETS, SHARES, Bucket, Latents, encode_bucket
from training.replay import Replay
from training.run import Run
from training.scenes import draw_scenes
from training.text import embed, tokenize, write_captions
from training.transformers import BOUNDARY, pad_text, picture_condition, vace_control

STEPS, SHIFT = 4, 5.0
TEACHER_STEPS, GUIDANCE = 12, 3.0
RANK, WRITTEN_RANK = 32, 12
"""The ranks in training and in the file.

The file has the nearest product of the lower rank, which keeps the package small.
"""
RATE = 1e-3
BATCH = 128
SHARE = 0.25
"""The share of the usual number of clips that the teacher makes."""
EARLY = 0.3
"""The weight in the loss of the steps before the last."""

Predict = Callable[[Tensor, float], Tensor]
"""Maps latents and a timestep (1000 to 0) to velocity."""
Model = Callable[[Tensor, float, Tensor, Tensor | None], Tensor]
"""Does the same, given also text embeddings and what ``Control`` returns."""
Control = Callable[[Tensor, Tensor], Tensor]
"""Maps the latents of an image and of grey (see ``Latents``) to what conditions the model."""


@dataclass
class Lesson:
    """A teacher's results for one size."""

    noise: Tensor
    """float16 ``[n, 16, t, h, w]``."""
    result: Tensor
    """The latents at which the teacher arrives, float16 ``[n, 16, t, h, w]``."""
    tokens: Tensor
    pictures: Tensor | None
    """The latents of the images, if the model has any."""
    grey: Tensor | None


class Trained(LoraLinear):
    """A LoRA layer whose product is added separately, so that gradients and autocast work."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out]`` for ``[..., in]``."""
        assert self.up is not None
        result: Tensor = self.linear(x) + F.linear(F.linear(x, self.down), self.up)
        return result


class Lora:
    """Trainable changes of the linear layers of a transformer, of this ``rank``.

    ``layers`` matches the names of those that are changed, by default all in the blocks.
    """

    def __init__(self, transformer: Any, *, rank: int = RANK, layers: str = r"blocks\..*") -> None:
        self._layers: dict[str, LoraLinear] = {}
        self._changed: dict[int, LoraLinear] = {}
        self.parameters = nn.ParameterDict()
        for name, layer in transformer.named_modules():
            if re.fullmatch(layers, name) and isinstance(layer, nn.Linear):
                down = torch.randn(rank, layer.in_features, device=layer.weight.device) / math.sqrt(layer.in_features)
                changed = Trained(layer, down, down.new_zeros(layer.out_features, rank))
                original = original_name(f"{name}.weight").removesuffix(".weight")
                self._layers[original] = self._changed[id(layer)] = changed
                for part, weight in (("down", changed.down), ("up", changed.up)):
                    assert weight is not None
                    self.parameters[f"{original}.lora_{part}.weight".replace(".", "-")] = weight.requires_grad_()

    def on(self, transformer: Any) -> Any:
        """Return a view of ``transformer``, which must have the same layers, with the changes."""
        return with_layers(transformer, lambda layer: self._changed.get(id(layer)))

    def write(self, path: Path, *, rank: int = WRITTEN_RANK, metadata: Mapping[str, str] | None = None) -> None:
        """Write a file as `lightx2v` and others do: the original release's names, with `alpha`.

        It has the nearest product of this ``rank`` for each layer.
        """
        state = {}
        for name, layer in self._layers.items():
            assert layer.up is not None
            left, scale, right = torch.linalg.svd((layer.up @ layer.down).detach(), full_matrices=False)
            root = scale[:rank].sqrt()
            state[f"diffusion_model.{name}.lora_up.weight"] = left[:, :rank] * root
            state[f"diffusion_model.{name}.lora_down.weight"] = root[:, None] * right[:rank]
            state[f"diffusion_model.{name}.alpha"] = torch.tensor(float(rank))
        save_file({name: tensor.half().cpu().contiguous() for name, tensor in state.items()}, path, dict(metadata or {}))


def distil_wan26(path: Path, target: DemoCheckpoints, *, device: torch.device, total: int, deadline: float) -> bool:
    """Train one LoRA for both uses of the VACE model; return True when finished."""
    torch.manual_seed(26)
    data = Data(target.vace, device)
    vace = load_transformer(target.vace / "transformer", torch.float32, device)
    text = text_model(vace)
    pad_text(vace, device)
    lora = Lora(text)

    def models_of(text_view: Any, vace_view: Any) -> dict[str, Model]:
        def from_text(x: Tensor, timestep: float, words: Tensor, _: Tensor | None) -> Tensor:
            return _call(text_view, x, timestep=timestep, words=words)

        def from_picture(x: Tensor, timestep: float, words: Tensor, control: Tensor | None) -> Tensor:
            return _call(vace_view, x, timestep=timestep, words=words, control_hidden_states=control)

        return {"text": from_text, "picture": from_picture}

    text_view, vace_view = lora.on(text), lora.on(vace)
    students = models_of(text_view, vace_view)
    _compile(vace, text_view, vace_view)
    lessons = {
        name: [data.teach(model, bucket, vace_control if name == "picture" else None) for bucket in BUCKETS]
        for name, model in models_of(text, vace).items()
    }
    finished = _train(
        path,
        loras={"lora": lora},
        students=students,
        lessons=lessons,
        data=data,
        control=vace_control,
        total=total,
        deadline=deadline,
    )
    lora.write(target.vace_lora)
    return finished


def distil_wan22(path: Path, target: DemoCheckpoints, *, device: torch.device, total: int, deadline: float) -> bool:
    """Train a LoRA for each expert; return True when finished.

    Both are trained together: each expert takes two of the four steps.
    """
    torch.manual_seed(22)
    data = Data(target.a14b, device)
    experts = {}
    for part, file in (("transformer", target.high_noise), ("transformer_2", target.low_noise)):
        experts[part] = load_gguf(file, folder=target.a14b, part=part, dtype=torch.float32, device=device)
        dequantise(experts[part])
        pad_text(experts[part], device)
    loras = {part: Lora(expert) for part, expert in experts.items()}

    def models_of(models: Mapping[str, Any]) -> dict[str, Model]:
        def from_picture(x: Tensor, timestep: float, words: Tensor, condition: Tensor | None) -> Tensor:
            assert condition is not None
            model = models["transformer" if timestep >= 1000 * BOUNDARY else "transformer_2"]
            return _call(
                model,
                torch.cat([x, condition.expand(len(x), *condition.shape[1:])], 1),
                timestep=timestep,
                words=words,
            )

        return {"picture": from_picture}

    def condition(pictures: Tensor, _: Tensor) -> Tensor:
        return picture_condition(pictures)

    views = {part: lora.on(experts[part]) for part, lora in loras.items()}
    students = models_of(views)
    _compile(*experts.values(), *views.values())
    teacher = models_of(experts)["picture"]
    lessons = {"picture": [data.teach(teacher, bucket, condition) for bucket in BUCKETS]}
    finished = _train(
        path,
        loras=loras,
        students=students,
        lessons=lessons,
        data=data,
        control=condition,
        total=total,
        deadline=deadline,
    )
    loras["transformer"].write(target.high_noise_lora)
    loras["transformer_2"].write(target.low_noise_lora)
    return finished


class Data:
    """The questions for a folder's models, and their answers."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.vae = load_vae(folder / "vae", torch.float32, device)
        mean, std = (self.vae.config[name] for name in ("latents_mean", "latents_std"))
        self._mean, self._std = (torch.tensor(v, device=device).view(1, -1, 1, 1, 1) for v in (mean, std))
        unroll(self.vae)
        self.encoder = load_text_encoder(folder / "text_encoder", torch.float32, device)
        self.tokenizer = load_tokenizer(folder)
        self._scheduler = load_scheduler(folder, None)
        self._clips: dict[int, Latents] = {}

    def normalise(self, latents: Tensor) -> Tensor:
        """Normalise to the mean and deviation that the transformers expect; float32."""
        return (latents.float() - self._mean) / self._std

    @torch.no_grad()
    def teach(self, model: Model, bucket: Bucket, control: Control | None) -> Lesson:
        """Return the teacher's results for one size; without ``control``, from captions alone."""
        number, count = BUCKETS.index(bucket), int(bucket.count * SHARE)
        pictures = grey = None
        if control is not None:
            if number not in self._clips:
                part_of_bucket = Bucket(bucket.frames, bucket.height, bucket.width, count=count)
                self._clips[number] = encode_bucket(
                    self.vae, part_of_bucket, number=20 + number, rank=0, ranks=1, device=self.device
                )
            clips = self._clips[number]
            captions, pictures, grey = clips.captions, self.normalise(clips.pictures).half(), self.normalise(clips.grey)
        else:
            captions = write_captions(list(draw_scenes(7_500 + number, count, SHARES)), 7_600 + number, 1)
        tokens = tokenize(self.tokenizer, [texts[0] for texts in captions]).to(self.device)
        shape = (len(tokens), 16, 1 + (bucket.frames - 1) // 4, bucket.height // 8, bucket.width // 8)
        noise = torch.randn(shape, device=self.device, dtype=torch.float16)
        result = torch.empty_like(noise)
        start = time.monotonic()
        nothing = embed(self.encoder, tokenize(self.tokenizer, [""]).to(self.device))
        for part in torch.arange(len(tokens), device=self.device).split(_batch(bucket)):  # type: ignore[no-untyped-call]
            words = embed(self.encoder, tokens[part])
            seen = None
            if control is not None and pictures is not None and grey is not None:
                seen = control(pictures[part].float(), grey)

            def predict(x: Tensor, timestep: float, words: Tensor = words, seen: Tensor | None = seen) -> Tensor:
                without = model(x, timestep, nothing.expand_as(words), seen)
                return without + GUIDANCE * (model(x, timestep, words, seen) - without)

            result[part] = _walk(Solver(self._scheduler, TEACHER_STEPS), noise[part].float(), predict).half()
        print(f"{len(tokens)} of {bucket.width}x{bucket.height}x{bucket.frames}: {time.monotonic() - start:.0f} s", flush=True)
        return Lesson(noise=noise, result=result, tokens=tokens, pictures=pictures, grey=grey)


def _walk(solver: Solver, noise: Tensor, predict: Predict) -> Tensor:
    latents = solver.start(noise)
    for timestep in solver.timesteps:
        latents = solver.step(predict(latents, timestep))
    return latents


def _train(
    path: Path,
    *,
    loras: Mapping[str, Lora],
    students: Mapping[str, Model],
    lessons: Mapping[str, list[Lesson]],
    data: Data,
    control: Control,
    total: int,
    deadline: float,
) -> bool:
    parameters: dict[str, nn.Module] = {name: lora.parameters for name, lora in loras.items()}
    flat = [weight for module in parameters.values() for weight in module.parameters()]
    cuda = data.device.type == "cuda"
    # A graph reads the rate again in every step.
    rate = torch.tensor(RATE, device=data.device) if cuda else RATE
    optimizer = torch.optim.AdamW(flat, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=cuda, capturable=cuda)
    run = Run(path, parameters, optimizers=[optimizer], total=total, decay=0.999, warm_up=100, deadline=deadline)
    losses: list[Tensor] = []
    names = sorted(students)

    def learn(name: str, noise: Tensor, result: Tensor, words: Tensor, *seen: Tensor) -> Tensor:
        loss = _loss(students[name], noise, result, words, *seen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(flat, 1.0)
        optimizer.step()
        return loss.detach()

    replay = Replay(learn)
    for step in run.steps():
        torch.manual_seed(step)
        name = names[step % len(names)]
        usual = (step // len(names)) % 10 < 9
        number = 0 if usual else 1 + (step // (10 * len(names))) % (len(BUCKETS) - 1)
        lesson = lessons[name][number]
        chosen = torch.randint(len(lesson.noise), (_batch(BUCKETS[number]),), device=data.device)
        with torch.no_grad():
            words = embed(data.encoder, lesson.tokens[chosen])
        seen = []
        if lesson.pictures is not None and lesson.grey is not None:
            seen = [control(lesson.pictures[chosen].float(), lesson.grey)]
        losses.append(replay(name, lesson.noise[chosen].float(), lesson.result[chosen].float(), words, *seen))
        if len(losses) == 200:
            run.loss = torch.stack(losses).mean().item()
            print(f"{path.stem} {step + 1}: loss {run.loss:.4f}", flush=True)
            losses.clear()
    run.average.swap()
    return run.finished


def _loss(model: Model, noise: Tensor, result: Tensor, words: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return the mean squared error of the clips that the steps head for.

    The clip of the last step is the student's result.
    """
    scheduler = EvenEuler(shift=SHIFT)
    scheduler.set_timesteps(STEPS)
    losses, x = [], noise
    for now, then, timestep in _steps(scheduler):
        velocity = model(x, timestep, words, seen)
        losses.append((x - now * velocity - result).square().mean())
        x = x + (then - now) * velocity
    return losses[-1] + EARLY * torch.stack(losses[:-1]).mean()


def _steps(scheduler: Any) -> Iterator[tuple[float, float, float]]:
    sigmas = scheduler.sigmas.tolist()
    yield from zip(sigmas[:-1], sigmas[1:], scheduler.timesteps.tolist(), strict=True)


def _call(model: Any, x: Tensor, *, timestep: float, words: Tensor, **more: Any) -> Tensor:
    times = torch.full((len(x),), timestep, device=x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda, cache_enabled=False):
        result = model(x, times, words, return_dict=False, **more)[0]
    assert isinstance(result, Tensor)
    return result.float()


def _compile(*models: Any) -> None:
    """Compile the blocks on a GPU.

    Views must exist before: a copy would call what the original block was compiled to.
    """
    for model in models:
        for block in (*model.blocks, *getattr(model, "vace_blocks", ())):
            if model.scale_shift_table.is_cuda:
                block.compile(dynamic=True)


def _batch(bucket: Bucket) -> int:
    usual = BUCKETS[0]
    return BATCH * usual.frames * usual.height * usual.width // (bucket.frames * bucket.height * bucket.width)
