"""Small Wan checkpoints with seeded random weights: diffusers folders and a pair of GGUF files.

Their files have the formats of published models, and they are smaller than the demo's. Their videos
show noise, so they are for tests of loaders and engines.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from demo.checkpoints import DemoCheckpoints
from deployments.settings import Wan22Models
from training.gguf_file import Quantization, write_wan_gguf

TEXT_WIDTH = 256
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "ffn_dim": 512,
    "num_layers": 4,
    "rope_max_seq_len": 128,
}


class RandomCheckpoints(DemoCheckpoints):
    """The same files as the demo's, a text-to-video folder, and the low-noise expert as Q5_K."""

    @property
    def text(self) -> Path:
        """The text-to-video model, a diffusers folder."""
        return self.folder / "wan2.1-t2v"

    @property
    def low_noise(self) -> Path:
        """The low-noise expert, a GGUF file."""
        return self.folder / "Wan2.2-I2V-LowNoise-Q5_K.gguf"


def write_checkpoints(checkpoints: RandomCheckpoints) -> None:
    """Write all files of ``checkpoints``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(26)
        shared = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder(), "vae": make_vae()}
        text = WanTransformer3DModel(**TRANSFORMER)
        WanPipeline(transformer=text, scheduler=make_scheduler(8.0), **shared).save_pretrained(checkpoints.text)
        vace = WanVACETransformer3DModel(**TRANSFORMER, vace_layers=[0, 2])
        # Like the published VACE model, this one is the text model with control blocks added.
        vace.load_state_dict({**vace.state_dict(), **text.state_dict()})
        WanVACEPipeline(transformer=vace, scheduler=make_scheduler(8.0), **shared).save_pretrained(checkpoints.vace)

        high, low = (WanTransformer3DModel(**TRANSFORMER, in_channels=36) for _ in range(2))
        a14b = WanImageToVideoPipeline(
            transformer=high, transformer_2=low, scheduler=make_scheduler(5.0), boundary_ratio=0.9, **shared
        )
        a14b.save_pretrained(checkpoints.a14b)
        experts: tuple[tuple[str, Any, Path, Quantization], ...] = (
            ("transformer", high, checkpoints.high_noise, "Q8_0"),
            ("transformer_2", low, checkpoints.low_noise, "Q5_K"),
        )
        for part, expert, path, quantization in experts:
            for weights in (checkpoints.a14b / part).glob("*.safetensors*"):
                weights.unlink()  # only the GGUF files hold the experts' weights
            write_wan_gguf(path, expert.state_dict(), quantization=quantization, name=path.stem)
        loras = ((vace, checkpoints.vace_lora), (high, checkpoints.high_noise_lora), (low, checkpoints.low_noise_lora))
        for model, path in loras:
            save_file({f"transformer.{name}": tensor for name, tensor in make_lora(model).items()}, path)


def wan22_models(checkpoints: RandomCheckpoints, *, high: Path | None = None, low: Path | None = None) -> Wan22Models:
    """Return the settings of both experts; ``high`` and ``low`` replace their files."""
    return Wan22Models(
        folder=str(checkpoints.a14b), high_noise=high or checkpoints.high_noise, low_noise=low or checkpoints.low_noise
    )


def make_lora(model: torch.nn.Module, rank: int = 4) -> dict[str, torch.Tensor]:
    """Return random low-rank changes of every linear layer in the blocks of ``model``.

    They are large enough to change its output, and use its own names.
    """
    return {
        f"{name}.lora_{part}.weight": torch.randn(shape) * 0.15
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and "blocks." in name
        for part, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank)))
    }


def make_scheduler(flow_shift: float) -> UniPCMultistepScheduler:
    """Return UniPC on the flow schedule, as the published Wan folders configure it."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift, num_train_timesteps=1000
    )


def make_vae() -> AutoencoderKLWan:
    """Return a narrow causal Wan VAE with 16 latent channels."""
    return AutoencoderKLWan(base_dim=16, num_res_blocks=1).eval()


def make_text_encoder() -> UMT5EncoderModel:
    """Return a UMT5 encoder of two layers."""
    config = UMT5Config(
        vocab_size=512, d_model=TEXT_WIDTH, d_kv=32, d_ff=512, num_layers=2, num_heads=8, tie_word_embeddings=False
    )
    return UMT5EncoderModel(config).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a Unigram tokenizer over characters, with byte fallback, that appends ``</s>``."""
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    special = ["<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in special] + [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [(letter, -5.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
