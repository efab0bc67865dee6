"""Small Wan checkpoints with seeded random weights, in the true formats: diffusers folders and a pair of GGUF files.

They show noise, and are smaller than the demo's: for tests of loaders and engines.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
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
from demo.gguf_file import Quantization, write_wan_gguf
from demo.training.pack import make_scheduler

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
    """As the demo's, and a text-to-video folder; the low-noise expert is Q5_K."""

    @property
    def text(self) -> Path:
        """Text to video, diffusers folder."""
        return self.folder / "wan2.1-t2v"

    @property
    def low_noise(self) -> Path:
        """GGUF of the low-noise expert."""
        return self.folder / "Wan2.2-I2V-LowNoise-Q5_K.gguf"


def write_checkpoints(made: RandomCheckpoints) -> None:
    """Writes all checkpoints into ``made.folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(26)
        shared = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder(), "vae": make_vae()}
        text = WanTransformer3DModel(**TRANSFORMER)
        WanPipeline(transformer=text, scheduler=make_scheduler(8.0), **shared).save_pretrained(made.text)
        vace = WanVACETransformer3DModel(**TRANSFORMER, vace_layers=[0, 2])
        # As in the published pair, the VACE model is the text model with control blocks beside it.
        vace.load_state_dict({**vace.state_dict(), **text.state_dict()})
        WanVACEPipeline(transformer=vace, scheduler=make_scheduler(8.0), **shared).save_pretrained(made.vace)

        high, low = (WanTransformer3DModel(**TRANSFORMER, in_channels=36) for _ in range(2))
        a14b = WanImageToVideoPipeline(
            transformer=high, transformer_2=low, scheduler=make_scheduler(5.0), boundary_ratio=0.9, **shared
        )
        a14b.save_pretrained(made.a14b)
        experts: tuple[tuple[str, Any, Path, Quantization], ...] = (
            ("transformer", high, made.high_noise, "Q8_0"),
            ("transformer_2", low, made.low_noise, "Q5_K"),
        )
        for part, expert, path, quantization in experts:
            for weights in (made.a14b / part).glob("*.safetensors*"):
                weights.unlink()  # the experts' weights are in the GGUF files alone
            write_wan_gguf(path, expert.state_dict(), quantization, path.stem)
        for model, path in ((vace, made.vace_lora), (high, made.high_noise_lora), (low, made.low_noise_lora)):
            save_file({f"transformer.{name}": tensor for name, tensor in make_lora(model).items()}, path)


def make_lora(model: torch.nn.Module, rank: int = 4) -> dict[str, torch.Tensor]:
    """Random low-rank changes of every linear layer in the blocks of ``model``, by its own names, as large as to matter."""
    return {
        f"{name}.lora_{part}.weight": torch.randn(shape) * 0.15
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and "blocks." in name
        for part, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank)))
    }


def make_vae() -> AutoencoderKLWan:
    """A causal Wan VAE of small widths: 16 latent channels, 8x8x4."""
    return AutoencoderKLWan(base_dim=16, num_res_blocks=1).eval()


def make_text_encoder() -> UMT5EncoderModel:
    """A UMT5 encoder of two layers."""
    config = UMT5Config(
        vocab_size=512, d_model=TEXT_WIDTH, d_kv=32, d_ff=512, num_layers=2, num_heads=8, tie_word_embeddings=False
    )
    return UMT5EncoderModel(config).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer over characters with byte fallback, closing with ``</s>`` as UMT5's does."""
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
