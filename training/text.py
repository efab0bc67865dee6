"""The text side: a tokenizer made from captions and a small UMT5 encoder.

It also has the attention with which transformers see padded text in training.
"""

import math
import random
from collections import Counter
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from training.scenes import Scene, caption

WIDTH = 256
VOCABULARY = 512
LENGTH = 32
"""The number of tokens of a caption in training; the last one is always padding."""
PADDED_LENGTH = 512
"""The number of tokens to which the pipelines pad a prompt."""


def make_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """Return a Unigram tokenizer of the words in ``captions`` and of single letters.

    It ends a text with ``</s>`` as UMT5's does. Other characters fall back to bytes.
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    counts = Counter(
        word for text in captions for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)) if len(word) > 1
    )
    total = counts.total()
    table = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    table += [(chr(code), -12.0) for code in range(33, 127)] + [("▁", -12.0)]
    words = [(word, math.log(count / total)) for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    table += words[: VOCABULARY - 256 - len(table)]
    table += [(f"<0x{byte:02X}>", -30.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(table, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=PADDED_LENGTH
    )


def make_text_encoder() -> UMT5EncoderModel:
    """Return an untrained UMT5 encoder of two layers."""
    config = UMT5Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=8,
        dropout_rate=0.0,
        tie_word_embeddings=False,
    )
    return UMT5EncoderModel(config)


def write_captions(scenes: list[Scene], seed: int, wordings: int) -> list[list[str]]:
    """Return ``wordings`` captions for each scene."""
    lot = random.Random(seed)
    return [[caption(scene, lot) for _ in range(wordings)] for scene in scenes]


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Return int64 ``[n, LENGTH]``, padded with 0.

    Raises ValueError for a text that is too long.
    """
    ids = tokenizer(texts).input_ids
    longest = max(len(i) for i in ids)
    if longest > LENGTH - 1:
        raise ValueError(f"a caption has {longest} tokens, more than {LENGTH - 1}")
    return torch.tensor([i + [0] * (LENGTH - len(i)) for i in ids])


def embed(encoder: nn.Module, tokens: Tensor) -> Tensor:
    """Return the encoder's states as the pipelines do: ``[n, LENGTH, WIDTH]``, 0 at the padding."""
    mask = tokens.ne(0)
    states = encoder(tokens, mask.long()).last_hidden_state
    assert isinstance(states, Tensor)
    return states * mask[..., None]


class PaddedText(WanAttnProcessor):  # type: ignore[misc]  # diffusers is untyped
    """Cross-attention over LENGTH tokens with the result of PADDED_LENGTH tokens.

    The last token, which is padding, stands for all the others.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.bias = torch.zeros(1, 1, 1, LENGTH, device=device)
        self.bias[..., -1] = math.log(PADDED_LENGTH - LENGTH + 1)

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any) -> Any:
        count, length = hidden_states.shape[:2]
        bias = self.bias.to(hidden_states.dtype).expand(count, attn.heads, length, LENGTH)
        return super().__call__(attn, hidden_states, encoder_hidden_states, bias, None)
