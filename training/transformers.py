"""Trains the transformers by flow matching.

They are the VACE model of Wan26 and the two experts of Wan22GGUF.
"""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor, nn

from deployments.video.checkpoints.vace import text_model
from training.latents import BUCKETS, ENCODED, LARGE, PHOTOGRAPHS, SHARES, Latents, load, statistics
from training.replay import Replay
from training.run import Run, load_average
from training.scenes import draw_scenes
from training.text import LENGTH, PaddedText, embed, make_text_encoder, make_tokenizer, tokenize, write_captions

CONFIG: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 64,
    "text_dim": 256,
    "freq_dim": 256,
    "ffn_dim": 512,
    "num_layers": 6,
    "rope_max_seq_len": 128,
}
VACE_LAYERS = [0, 3]
BATCH = 128
RATE = 1.5e-3
BOUNDARY = 0.9
SHIFT = 3.0
DROPPED_CAPTIONS = 0.1


Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Normalised latents of clips and pictures, ``[n, 16, t, h, w]``, and of grey (n = 1), and tokens.

The tokens are ``[n, LENGTH]``. See ``Latents``.
"""


class Data:
    """All buckets on the device; latents are normalised when they are drawn."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self._buckets = [load(folder, number, device) for number in range(len(ENCODED))]
        self.mean, self.std = statistics(self._buckets[0].clips)
        self._mean, self._std = (torch.tensor(v, device=device).view(1, -1, 1, 1, 1) for v in (self.mean, self.std))
        scenes = list(draw_scenes(4, 12_000, SHARES))
        self.tokenizer = make_tokenizer([text for texts in write_captions(scenes, 4, 1) for text in texts])
        self._tokens = [self._tokenize(bucket) for bucket in self._buckets]
        self._none = tokenize(self.tokenizer, [""]).to(device)

    def _tokenize(self, bucket: Latents) -> Tensor:
        flat = [text for texts in bucket.captions for text in texts]
        return tokenize(self.tokenizer, flat).view(len(bucket.captions), -1, LENGTH).to(self.device)

    def normalise(self, latents: Tensor) -> Tensor:
        """Normalise each channel to zero mean and unit deviation; float32."""
        return (latents.float() - self._mean) / self._std

    def draw(self, step: int, photographs: float = 0.0, *, large: bool = False) -> Batch:
        """Return the batch of one step.

        Of the usual size, the share ``photographs`` of the clips is from ``PHOTOGRAPHS``. In every
        fiftieth step the clips have fewer frames. See ``bucket_of`` for their sizes.
        """
        number = bucket_of(step, large=large)
        usual = BUCKETS[0]
        spec = ENCODED[number]
        count = BATCH * usual.frames * usual.height * usual.width // (spec.frames * spec.height * spec.width)
        further = 0 if number else round(count * photographs)
        drawn = [self._choose(number, count - further)]
        if further:
            drawn.append(self._choose(ENCODED.index(PHOTOGRAPHS), further))
        clips, pictures, tokens = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        dropped = torch.rand(count, device=self.device) < DROPPED_CAPTIONS
        tokens = torch.where(dropped[:, None], self._none, tokens)
        length = 3 if step % 50 == 25 else clips.shape[2]
        parts = (clips, pictures, self._buckets[number].grey)
        clips, pictures, grey = (self.normalise(part[:, :, :length]) for part in parts)
        return clips, pictures, grey, tokens

    def _choose(self, number: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return clips of a bucket at random, their first frames and the tokens of a caption."""
        bucket, tokens = self._buckets[number], self._tokens[number]
        chosen = torch.randint(len(bucket.clips), (count,), device=self.device)
        wording = torch.randint(tokens.shape[1], (count,), device=self.device)
        return bucket.clips[chosen], bucket.pictures[chosen], tokens[chosen, wording]


def bucket_of(step: int, *, large: bool) -> int:
    """Return the number of the bucket in ``ENCODED`` from which a step has its clips.

    It is mostly that of the usual size, in every tenth step another one of ``BUCKETS``, and with
    ``large`` in every second step one of ``LARGE``. Each of them stays for six steps, so that text
    and images, which alternate, both have it.
    """
    if large and step % 2:
        return ENCODED.index(LARGE[step // 6 % 3 == 2])
    return 0 if step % 10 else 1 + (step // 10) % (len(BUCKETS) - 1)


class Times:
    """Draws times in ``[low, high]``: logit-normal, and shifted towards noise.

    The schedulers shift theirs in the same way (Esser et al. 2024).
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        edges = (max(low, 1e-4), min(high, 1 - 1e-4))
        unshifted = [edge / (SHIFT - (SHIFT - 1) * edge) for edge in edges]
        self._low, self._high = (NormalDist().cdf(math.log(u / (1 - u))) for u in unshifted)

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Return float32 ``[count]``."""
        uniform = torch.rand(count, device=device, dtype=torch.float64)
        time = torch.sigmoid(torch.special.ndtri(self._low + uniform * (self._high - self._low)))
        return (SHIFT * time / (1 + (SHIFT - 1) * time)).float()


def flow_loss(predict: Callable[[Tensor, Tensor], Tensor], clips: Tensor, times: Times) -> Tensor:
    """Return the mean squared error of the velocity.

    Half of the samples show the clip too strongly, as guidance does in the first steps of a
    sampler; the target velocity leads back to the clip itself. Without that, a guidance scale of 5
    over-saturates models as small as these.
    """
    count, device = len(clips), clips.device
    time = times.draw(count, device)
    noise = torch.randn_like(clips)
    most = 0.5 * torch.minimum((1 - time) / 0.1, time / 0.9)
    excess = most * torch.rand(count, device=device).square() * (torch.rand(count, device=device) < 0.5)
    t, e = time.view(-1, 1, 1, 1, 1), excess.view(-1, 1, 1, 1, 1)
    noisy = (1 - t + e) * clips + t * noise
    target = noise - clips + e / t.clamp(min=1e-3) * clips
    return F.mse_loss(predict(noisy, time * 1000).float(), target)


def vace_control(pictures: Tensor, grey: Tensor) -> Tensor:
    """Return VACE's 96 channels: the given frames, the frames to generate, and the mask.

    The mask is 1 wherever something is to be generated. The pipeline shrinks it to one value for
    four frames by their middle, so even the first value is 1.
    """
    mask = torch.ones(len(pictures), 64, *pictures.shape[2:], device=pictures.device)
    return torch.cat([pictures, grey.expand_as(pictures), mask], dim=1)


def picture_condition(pictures: Tensor) -> Tensor:
    """Return the 20 channels of image-to-video: four of mask and the image's latents.

    The mask is 1 in the first latent frame.
    """
    mask = torch.zeros(len(pictures), 4, *pictures.shape[2:], device=pictures.device)
    mask[:, :, 0] = 1
    return torch.cat([mask, pictures], dim=1)


def pad_text(model: Any, device: torch.device) -> None:
    """Set padded text and float32 positions in ``model``."""
    processor = PaddedText(device)
    for name, module in model.named_modules():
        if name.endswith("attn2"):
            module.set_processor(processor)
    model.rope.float()  # in float64 the rotation takes a quarter of a step


def prepare(model: Any, device: torch.device) -> None:
    """Set padded text and float32 positions, and compile the blocks one by one.

    Compiling takes a few seconds for all sizes.
    """
    pad_text(model, device)
    if device.type == "cuda":
        for block in (*model.blocks, *getattr(model, "vace_blocks", ())):
            block.compile(dynamic=True)


def begin(transformer: nn.Module, encoder: nn.Module, start: Path | None) -> dict[str, nn.Module]:
    """Return the modules of a stage, with the averaged weights of the state ``start`` if given."""
    modules = {"transformer": transformer, "text_encoder": encoder}
    if start is not None:
        load_average(start, modules)
    return modules


def train_vace(
    path: Path,
    data: Data,
    *,
    total: int,
    deadline: float,
    start: Path | None = None,
    photographs: float = 0.0,
    large: bool = False,
    rate: float = RATE,
) -> bool:
    """Train text- and image-to-video in one VACE model; return True when finished.

    Two steps of three are text-to-video, in which ``photographs`` is the share of ``PHOTOGRAPHS``.
    ``large`` is explained at ``bucket_of``. With ``start``, the state of another stage, training
    continues from there. ``rate`` is the highest learning rate.
    """
    torch.manual_seed(2026)
    vace = WanVACETransformer3DModel(**CONFIG, vace_layers=VACE_LAYERS).to(data.device)
    encoder = make_text_encoder().to(data.device)
    modules = begin(vace, encoder, start)
    base = text_model(vace)
    times = Times()

    def loss_of(kind: str, clips: Tensor, pictures: Tensor, grey: Tensor, tokens: Tensor) -> Tensor:
        text = embed(encoder, tokens)
        if kind == "text":
            return flow_loss(lambda x, t: base(x, t, text, return_dict=False)[0], clips, times)
        control = vace_control(pictures, grey)
        return flow_loss(lambda x, t: vace(x, t, text, control_hidden_states=control, return_dict=False)[0], clips, times)

    def kind_of(step: int) -> str:
        return "image" if step % 3 == 2 else "text"

    training = Training(path, modules, total=total, deadline=deadline, rate=rate)
    prepare(vace, data.device)
    return training.run(
        lambda step: data.draw(step, photographs if kind_of(step) == "text" else 0.0, large=large), loss_of, kind_of
    )


def train_image_model(
    path: Path,
    data: Data,
    *,
    total: int,
    deadline: float,
    start: Path | None,
    low: float,
    high: float,
    large: bool = False,
) -> bool:
    """Train a 36-channel model for times in ``[low, high]``; return True when finished.

    With ``start``, the state of another model, it continues from there and keeps its text encoder.
    ``large`` is explained at ``bucket_of``.
    """
    torch.manual_seed(22)
    model = WanTransformer3DModel(**CONFIG, in_channels=36).to(data.device)
    encoder = make_text_encoder().to(data.device)
    modules = begin(model, encoder, start)
    encoder.requires_grad_(start is None)
    times = Times(low, high)

    def loss_of(kind: str, clips: Tensor, pictures: Tensor, grey: Tensor, tokens: Tensor) -> Tensor:
        text, condition = embed(encoder, tokens), picture_condition(pictures)
        return flow_loss(lambda x, t: model(torch.cat([x, condition], 1), t, text, return_dict=False)[0], clips, times)

    training = Training(path, modules, total=total, deadline=deadline)
    prepare(model, data.device)
    return training.run(lambda step: data.draw(step, large=large), loss_of, lambda step: "image")


class Training:
    """Trains ``modules`` with AdamW; on a GPU a whole step is a CUDA graph."""

    def __init__(self, path: Path, modules: dict[str, nn.Module], *, total: int, deadline: float, rate: float = RATE) -> None:
        self._parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self._device = self._parameters[0].device
        cuda = self._device.type == "cuda"
        # On a GPU the rate is a tensor, since a graph reads it again in every step.
        given = torch.tensor(rate, device=self._device) if cuda else rate
        self._optimizer = torch.optim.AdamW(
            self._parameters, given, betas=(0.9, 0.98), weight_decay=0.01, fused=cuda, capturable=cuda
        )
        self._run = Run(path, modules, optimizers=[self._optimizer], total=total, decay=0.9995, warm_up=500, deadline=deadline)

    def run(self, draw: Callable[[int], Batch], loss_of: Callable[..., Tensor], kind_of: Callable[[int], str]) -> bool:
        """Train until the last step or the deadline; return True when finished."""

        def step(kind: str, *inputs: Tensor) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda", cache_enabled=False):
                loss = loss_of(kind, *inputs)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            return loss.detach()

        replay = Replay(step)
        losses: list[Tensor] = []
        for number in self._run.steps():
            torch.manual_seed(number)
            losses.append(replay(kind_of(number), *draw(number)))
            if len(losses) == 1000:
                self._run.loss = torch.stack(losses).mean().item()
                print(f"{self._run.path.stem} {number + 1}: loss {self._run.loss:.4f}", flush=True)
                losses.clear()
        return self._run.finished
