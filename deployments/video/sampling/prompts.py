"""Prompts to embeddings, as Wan's pipelines make them; those of the latest prompts are kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from deployments.errors import PromptTooLong
from deployments.video.sampling.text_encoder import TextEncoder

MAX_TOKENS = 512
"""What Wan's transformers were trained on, and the length that every prompt is padded to."""


class Prompts:
    """A tokenizer and a UMT5 encoder for several threads. ``capacity`` bounds what is kept, in bytes; 0 keeps nothing."""

    def __init__(self, tokenizer: Any, encoder: TextEncoder, capacity: int) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._capacity = capacity
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._size = 0
        self._keeping = threading.Lock()
        self._tokenizing = threading.Lock()  # fast tokenizers keep padding and truncation as state

    def embed(self, texts: dict[str, str], check: Callable[[], None]) -> list[torch.Tensor]:
        """Embeddings ``[1, MAX_TOKENS, width]`` of ``texts`` (field of the request: text), 0 behind each text's end.

        ``check`` runs before each run of the encoder and may raise: an encoder cannot be interrupted, but it need not be started.
        Raises PromptTooLong.
        """
        cleaned = {field: str(prompt_clean(text)) for field, text in texts.items()}
        for field, text in cleaned.items():
            self._require_fit(field, text)
        return [self._embed(text, check) for text in cleaned.values()]

    def _require_fit(self, field: str, text: str) -> None:
        with self._tokenizing:
            count = len(self.tokenizer(text).input_ids)
        if count > MAX_TOKENS:
            raise PromptTooLong(field, f"{count} tokens; the text encoder reads {MAX_TOKENS}: shorten the text")

    @torch.no_grad()
    def _embed(self, text: str, check: Callable[[], None]) -> torch.Tensor:
        with self._keeping:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        check()
        with self._tokenizing:
            tokens = self.tokenizer(text, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        ids, mask = (tokens[name].to(self.encoder.device) for name in ("input_ids", "attention_mask"))
        states = self.encoder(ids, mask)
        embedding = torch.where(mask[..., None] > 0, states, torch.zeros_like(states))
        self._keep(text, embedding)
        return embedding

    def _keep(self, text: str, embedding: torch.Tensor) -> None:
        with self._keeping:
            if text in self._kept or embedding.nbytes > self._capacity:
                return
            self._kept[text] = embedding
            self._size += embedding.nbytes
            while self._size > self._capacity:
                self._size -= self._kept.popitem(last=False)[1].nbytes
