"""Embeds prompts as Wan's pipelines do, and caches the embeddings of recent prompts."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from deployments.errors import PromptTooLong
from deployments.video.sampling.text_encoder import TextEncoder

MAX_TOKENS = 512
"""The length that Wan's transformers were trained with, and that every prompt is padded to."""


class PromptEmbedder:
    """A tokenizer and a UMT5 encoder that several threads may share.

    ``cache_bytes`` limits the size of the cached embeddings; 0 turns the cache off.
    """

    def __init__(self, tokenizer: Any, encoder: TextEncoder, cache_bytes: int) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self._cache_limit = cache_bytes
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._cached_bytes = 0
        self._cache_lock = threading.Lock()
        self.hits = 0
        """How many texts were in the cache."""
        self.misses = 0
        # Fast tokenizers keep padding and truncation as state.
        self._tokenizer_lock = threading.Lock()

    def embed(self, texts: dict[str, str], check: Callable[[], None]) -> list[torch.Tensor]:
        """Return the embedding ``[1, MAX_TOKENS, width]`` of each text, 0 after the text's end.

        ``texts`` maps the request's fields to their texts. ``check`` is called before each run of
        the encoder and may raise, since a run cannot be interrupted. Raises ``PromptTooLong``,
        before any run, for a text of more than ``MAX_TOKENS`` tokens.
        """
        cleaned = {field: str(prompt_clean(text)) for field, text in texts.items()}
        for field, text in cleaned.items():
            self._require_fit(field, text)
        return [self._embed(text, check) for text in cleaned.values()]

    def _require_fit(self, field: str, text: str) -> None:
        with self._tokenizer_lock:
            count = len(self.tokenizer(text).input_ids)
        if count > MAX_TOKENS:
            raise PromptTooLong(field, f"the text has {count} tokens, but the text encoder reads {MAX_TOKENS}; shorten it")

    @torch.no_grad()
    def _embed(self, text: str, check: Callable[[], None]) -> torch.Tensor:
        with self._cache_lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                self.hits += 1
                return self._cache[text]
            self.misses += 1
        check()
        with self._tokenizer_lock:
            tokens = self.tokenizer(text, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        ids, mask = (tokens[name].to(self.encoder.device) for name in ("input_ids", "attention_mask"))
        states = self.encoder(ids, mask)
        embedding = torch.where(mask[..., None] > 0, states, torch.zeros_like(states))
        self._add_to_cache(text, embedding)
        return embedding

    def _add_to_cache(self, text: str, embedding: torch.Tensor) -> None:
        with self._cache_lock:
            if text in self._cache or embedding.nbytes > self._cache_limit:
                return
            self._cache[text] = embedding
            self._cached_bytes += embedding.nbytes
            while self._cached_bytes > self._cache_limit:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
