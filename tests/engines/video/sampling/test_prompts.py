"""Prompt embeddings: as the pipelines make them, kept within bounds."""

from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from deployments.errors import Cancelled, PromptTooLong
from deployments.video.engine import WanEngine
from deployments.video.sampling.prompts import MAX_TOKENS, Prompts


def nothing() -> None:
    """A check that lets go on."""


class Counting:
    """An encoder that counts its runs."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.device = encoder.device
        self.runs = 0

    def __call__(self, *arguments: Any) -> Any:
        self.runs += 1
        return self._encoder(*arguments)


def make(engine: WanEngine, capacity: int) -> tuple[Prompts, Counting]:
    counting = Counting(engine.prompts.encoder)
    return Prompts(engine.prompts.tokenizer, counting, capacity), counting


def test_they_are_what_diffusers_pipeline_makes(wan26: WanEngine) -> None:
    pipeline = WanPipeline(wan26.prompts.tokenizer, wan26.prompts.encoder._model, wan26.vae, None, None)
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt("a  cat &amp; a dog", do_classifier_free_guidance=False, max_sequence_length=512)
    [ours] = make(wan26, 0)[0].embed({"prompt": "a  cat &amp; a dog"}, nothing)
    assert ours.shape == (1, MAX_TOKENS, theirs.shape[2])
    assert torch.equal(ours, theirs)


def test_what_comes_again_is_not_encoded_again_and_the_oldest_go_first(wan26: WanEngine) -> None:
    [one] = make(wan26, 0)[0].embed({"prompt": "one"}, nothing)
    prompts, encoder = make(wan26, 2 * one.nbytes)
    prompts.embed({"prompt": "one", "negative_prompt": "two"}, nothing)
    assert torch.equal(prompts.embed({"prompt": "one"}, nothing)[0], one)
    assert encoder.runs == 2
    prompts.embed({"prompt": "three"}, nothing)  # "two" was used longest ago
    prompts.embed({"prompt": "one"}, nothing)
    assert encoder.runs == 3
    prompts.embed({"prompt": "two"}, nothing)
    assert encoder.runs == 4


def test_without_room_nothing_is_kept(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 1000)
    for _ in range(2):
        prompts.embed({"prompt": "one"}, nothing)
    assert encoder.runs == 2


def test_a_cancelled_request_starts_no_encoder(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 2**20)

    def cancelled() -> None:
        raise Cancelled("gone")

    with pytest.raises(Cancelled):
        prompts.embed({"prompt": "one"}, cancelled)
    assert encoder.runs == 0


def test_no_encoder_runs_before_all_texts_are_seen_to_fit(wan26: WanEngine) -> None:
    prompts, encoder = make(wan26, 0)
    with pytest.raises(PromptTooLong) as refused:
        prompts.embed({"prompt": "one", "negative_prompt": "word " * 600}, nothing)
    assert refused.value.field == "negative_prompt"
    assert encoder.runs == 0
