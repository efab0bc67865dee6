"""Classifier-free guidance: which passes a step takes, and how what they predict is combined."""

import pytest
import torch

from deployments.video.sampling.guidance import Guidance, guided_steps

PROMPT, NEGATIVE = torch.full((1, 2, 3), 4.0), torch.full((1, 2, 3), 1.0)
VELOCITY, WITHOUT = torch.full((1, 4, 2, 3, 3), 4.0), torch.full((1, 4, 2, 3, 3), 1.0)
"""What the passes with the prompt and without it predict."""


def test_without_a_negative_prompt_one_pass_is_the_result() -> None:
    guidance = Guidance(positive=PROMPT, negative=None, scale=5.0)
    (embeddings,) = guidance.passes(guided=True)
    assert torch.equal(embeddings, PROMPT)
    assert torch.equal(guidance.combine([VELOCITY]), VELOCITY)


def test_the_two_predictions_are_extrapolated() -> None:
    guidance = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0)
    with_prompt, without = guidance.passes(guided=True)
    assert torch.equal(with_prompt, PROMPT)
    assert torch.equal(without, NEGATIVE)
    assert torch.equal(guidance.combine([VELOCITY, WITHOUT]), torch.full_like(VELOCITY, 1.0 + 5.0 * 3.0))


def test_both_predictions_may_share_one_pass() -> None:
    guidance = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, batched=True)
    (embeddings,) = guidance.passes(guided=True)
    assert torch.equal(embeddings, torch.cat([PROMPT, NEGATIVE]))
    guided = guidance.combine([torch.cat([VELOCITY, WITHOUT])])
    assert guided.shape == VELOCITY.shape
    assert torch.equal(guided, torch.full_like(VELOCITY, 16.0))


@pytest.mark.parametrize("batched", [False, True])
def test_an_unguided_step_is_one_pass_with_the_prompt(batched: bool) -> None:
    guidance = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, batched=batched)
    (embeddings,) = guidance.passes(guided=False)
    assert torch.equal(embeddings, PROMPT)
    assert torch.equal(guidance.combine([VELOCITY]), VELOCITY)


def test_the_share_of_guided_steps_is_rounded_up() -> None:
    assert [guided_steps(until, 12) for until in (1e-3, 0.5, 0.51, 0.999, 1.0)] == [1, 6, 7, 12, 12]
    assert guided_steps(0.07, 100) == 7
    assert Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, until=0.5).guided_steps(5) == 3
    assert Guidance(positive=PROMPT, negative=None, scale=1.0, until=0.5).guided_steps(5) == 0
