"""Writes the trained models in published formats: diffusers folders, and experts as GGUF files."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from torch import Tensor, nn

from demo.checkpoints import DemoCheckpoints
from training.gguf_file import write_wan_gguf
from training.run import load_average
from training.text import make_text_encoder
from training.transformers import BOUNDARY, CONFIG, VACE_LAYERS
from training.vae import make_vae

FLOW_SHIFT = 3.0


def make_scheduler(flow_shift: float) -> UniPCMultistepScheduler:
    """Return UniPC on the flow schedule, configured as in the published Wan folders."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift, num_train_timesteps=1000
    )


def pack(states: Path, target: Path) -> None:
    """Write the averaged weights of the states in ``states`` to ``target``.

    Older files in ``target`` are deleted, except for the model cards (README.md).
    """
    for old in target.rglob("*"):
        if (old.is_file() or old.is_symlink()) and old.name != "README.md":
            old.unlink()
    target_files = DemoCheckpoints(target)
    data = torch.load(states / "statistics.pt", weights_only=False)
    vae = make_vae()
    load_average(states / "vae.pt", {"vae": vae})
    vae.register_to_config(latents_mean=data["mean"], latents_std=data["std"])
    shared: dict[str, Any] = {
        "tokenizer": data["tokenizer"],
        "vae": vae.to(torch.float16),
        "scheduler": make_scheduler(FLOW_SHIFT),
    }

    vace = WanVACETransformer3DModel(**CONFIG, vace_layers=VACE_LAYERS)
    text = _load(states / "large.pt", vace)
    WanVACEPipeline(transformer=vace.to(torch.bfloat16), text_encoder=text, **shared).save_pretrained(target_files.vace)

    high, low = (WanTransformer3DModel(**CONFIG, in_channels=36) for _ in range(2))
    text = _load(states / "large-low.pt", low)
    _load(states / "large-high.pt", high)
    pipeline = WanImageToVideoPipeline(
        transformer=high,
        transformer_2=low,
        text_encoder=text,
        boundary_ratio=BOUNDARY,
        image_encoder=None,
        image_processor=None,
        **shared,
    )
    pipeline.save_pretrained(target_files.a14b)
    for file in (target_files.a14b / "vae").iterdir():  # both folders share one VAE
        file.unlink()
        file.symlink_to(Path("..", "..", target_files.vace.name, "vae", file.name))
    for part, expert, path in (("transformer", high, target_files.high_noise), ("transformer_2", low, target_files.low_noise)):
        for weights in (target_files.a14b / part).glob("*.safetensors*"):
            weights.unlink()  # only the GGUF files hold the experts' weights
        write_wan_gguf(path, _rounded(expert.state_dict()), quantization="Q8_0", name=path.stem)


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round what is not quantised to float16, as which the file then holds it without an error."""
    kept = {name for name, weight in state.items() if weight.ndim == 2 or "scale_shift_table" in name}
    return {name: weight if name in kept else weight.half().float() for name, weight in state.items()}


def _load(path: Path, transformer: nn.Module) -> Any:
    encoder = make_text_encoder()
    load_average(path, {"transformer": transformer, "text_encoder": encoder})
    return encoder.to(torch.bfloat16).eval()


def write_statistics(states: Path, *, mean: list[float], std: list[float], tokenizer: Any) -> None:
    """Save what packing needs besides weights."""
    torch.save({"mean": mean, "std": std, "tokenizer": tokenizer}, states / "statistics.pt")
