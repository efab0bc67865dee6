"""Prompt embeddings equal those of the pipelines, and the cache has a limit."""

import pytest
import torch
from diffusers import WanPipeline

from deployments.errors import Cancelled, PromptTooLong
from deployments.video.engine import WanEngine
from deployments.video.sampling.prompts import MAX_TOKENS, PromptEmbedder
from deployments.video.sampling.text_encoder import TextEncoder


def go_on() -> None:
    """A check that does not raise."""


class CountingEncoder(TextEncoder):
    """An encoder that counts its runs."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.device = encoder.device
        self.runs = 0

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self._encoder(ids, mask)


def make(engine: WanEngine, cache_bytes: int) -> tuple[PromptEmbedder, CountingEncoder]:
    encoder = CountingEncoder(engine.prompts.encoder)
    return PromptEmbedder(engine.prompts.tokenizer, encoder, cache_bytes), encoder


def test_embeddings_equal_those_of_diffusers_pipeline(wan26: WanEngine) -> None:
    pipeline = WanPipeline(wan26.prompts.tokenizer, wan26.prompts.encoder._model, wan26.vae, None, None)
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt("a  cat &amp; a dog", do_classifier_free_guidance=False, max_sequence_length=512)
    [ours] = make(wan26, 0)[0].embed({"prompt": "a  cat &amp; a dog"}, go_on)
    assert ours.shape == (1, MAX_TOKENS, theirs.shape[2])
    assert torch.equal(ours, theirs)


def test_a_repeated_prompt_is_not_encoded_again_and_the_oldest_is_dropped_first(wan26: WanEngine) -> None:
    [one] = make(wan26, 0)[0].embed({"prompt": "one"}, go_on)
    prompts, encoder = make(wan26, 2 * one.nbytes)
    prompts.embed({"prompt": "one", "negative_prompt": "two"}, go_on)
    assert torch.equal(prompts.embed({"prompt": "one"}, go_on)[0], one)
    assert encoder.runs == 2
    prompts.embed({"prompt": "three"}, go_on)  # this drops "two", which was used longest ago
    prompts.embed({"prompt": "one"}, go_on)
    assert encoder.runs == 3
    prompts.embed({"prompt": "two"}, go_on)
    assert encoder.runs == 4


def test_an_embedding_larger_than_the_cache_is_not_kept(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 1000)
    for _ in range(2):
        prompts.embed({"prompt": "one"}, go_on)
    assert encoder.runs == 2


def test_a_cancelled_request_starts_no_encoder(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 2**20)

    def cancelled() -> None:
        raise Cancelled("gone")

    with pytest.raises(Cancelled):
        prompts.embed({"prompt": "one"}, cancelled)
    assert encoder.runs == 0


def test_no_encoder_runs_before_all_texts_were_checked(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 0)
    with pytest.raises(PromptTooLong) as refused:
        prompts.embed({"prompt": "one", "negative_prompt": "word " * 600}, go_on)
    assert refused.value.field == "negative_prompt"
    assert encoder.runs == 0
