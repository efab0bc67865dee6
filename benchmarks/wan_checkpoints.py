"""Writes checkpoints of Wan's published sizes and formats with random weights. Needs a GPU."""

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from safetensors.torch import save_file
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from demo.checkpoints import demo_checkpoints
from deployments.settings import Wan22Models, Wan26Models
from deployments.video.checkpoints.folder import empty_transformer
from training.gguf_file import original_name
from training.pack import make_scheduler

SMALL: dict[str, Any] = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
LARGE: dict[str, Any] = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40}


def write_wan26(folder: Path, shared: Path) -> None:
    """Write a diffusers folder of Wan2.1-T2V-1.3B; shared parts are linked from ``shared``."""
    _write_folder(folder, shared, WanTransformer3DModel, **SMALL)


def write_vace(folder: Path, shared: Path) -> None:
    """Write a diffusers folder of Wan2.1-VACE-1.3B; every second block has a control block."""
    _write_folder(folder, shared, WanVACETransformer3DModel, **SMALL, vace_layers=[*range(0, SMALL["num_layers"], 2)])


def _write_folder(folder: Path, shared: Path, model_class: Any, **config: Any) -> None:
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        transformer = model_class(**config)
        torch.set_default_dtype(torch.float32)
    transformer.save_pretrained(folder / "transformer")
    make_scheduler(8.0).save_pretrained(folder / "scheduler")
    _link(folder, shared)


def write_shared(folder: Path) -> None:
    """Write UMT5-XXL's encoder, the VAE, and the demo's tokenizer, which does not affect times."""
    config = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        encoder = UMT5EncoderModel(config)
        torch.set_default_dtype(torch.float32)
        vae = AutoencoderKLWan()
    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoints().vace / "tokenizer")
    for name, part in {"tokenizer": tokenizer, "text_encoder": encoder, "vae": vae}.items():
        part.save_pretrained(folder / name)


def write_wan22(folder: Path, shared: Path) -> Wan22Models:
    """Write a diffusers folder of Wan2.2-I2V-A14B, and its experts as random Q5_K files."""
    with init_empty_weights():
        expert = WanTransformer3DModel(**LARGE, in_channels=36, out_channels=16)
    make_scheduler(5.0).save_pretrained(folder / "scheduler")
    for name in ("transformer", "transformer_2"):
        expert.save_config(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9}))
    paths = [folder / f"Wan2.2-I2V-A14B-{name}-Q5_K_S.gguf" for name in ("HighNoise", "LowNoise")]
    for path in paths:
        _write_random_gguf(path, expert)
    _link(folder, shared)
    return Wan22Models(folder=str(folder), high_noise=paths[0], low_noise=paths[1])


def write_lora(path: Path, folder: Path, rank: int) -> None:
    """Write a LoRA for every linear layer in the blocks of the transformer in ``folder``.

    Its random changes are too small to matter.
    """
    state = {}
    for name, layer in empty_transformer(folder).named_modules():
        if isinstance(layer, torch.nn.Linear) and name.startswith("blocks."):
            stem = f"diffusion_model.{original_name(f'{name}.')}"
            state[f"{stem}lora_down.weight"] = torch.randn(rank, layer.in_features, dtype=torch.bfloat16, device="cuda") * 1e-3
            state[f"{stem}lora_up.weight"] = torch.randn(layer.out_features, rank, dtype=torch.bfloat16, device="cuda") * 1e-3
            state[f"{stem}alpha"] = torch.tensor(float(rank))
    save_file(state, path)


def _link(folder: Path, shared: Path) -> None:
    for part in shared.iterdir():
        (folder / part.name).symlink_to(part)


def _write_random_gguf(path: Path, model: Any) -> None:
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_name(path.stem)
    kind = gguf.GGMLQuantizationType.Q5_K
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            blocks = torch.randint(256, (tensor.numel() // 256, 176), dtype=torch.uint8, device="cuda")
            # With these scales, weights are a few hundredths.
            scales = torch.tensor([2e-5, 3e-4], dtype=torch.float16, device="cuda")
            blocks[:, :4] = scales.view(torch.uint8)
            writer.add_tensor(original_name(name), blocks.view(tensor.shape[0], -1).cpu().numpy(), raw_dtype=kind)
        else:
            writer.add_tensor(original_name(name), (0.02 * torch.randn(tensor.shape)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Checkpoints:
    """The checkpoints in ``folder``, each written when it is first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def shared(self) -> Path:
        """The text encoder, tokenizer and VAE of all models."""
        folder = self._folder / "shared"
        if not folder.exists():
            write_shared(folder)
        return folder

    @property
    def wan26(self) -> Wan26Models:
        """The checkpoint of Wan2.1-T2V-1.3B."""
        folder = self._folder / "wan26"
        if not folder.exists():
            write_wan26(folder, self.shared)
        return Wan26Models(text=str(folder))

    @property
    def wan22(self) -> Wan22Models:
        """The checkpoint of Wan2.2-I2V-A14B."""
        folder = self._folder / "wan22"
        if not folder.exists():
            write_wan22(folder, self.shared)
        high, low = sorted(folder.glob("*.gguf"))
        return Wan22Models(folder=str(folder), high_noise=high, low_noise=low)
