"""Classifier-free guidance: which predictions a step takes, and how they are combined."""

import torch

from deployments.video.sampling.guidance import Guidance, guided_steps

PROMPT, NEGATIVE = torch.full((1, 2, 3), 4.0), torch.full((1, 2, 3), 1.0)


class Recorder:
    """A predictor that returns the embeddings, and records the passes: rows and number."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, int]] = []

    def predict(self, *embeddings: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.passes += [(len(embedding), branch) for branch, embedding in enumerate(embeddings)]
        return embeddings


def test_without_a_negative_prompt_one_pass_is_the_result() -> None:
    predictor = Recorder()
    assert torch.equal(Guidance(positive=PROMPT, negative=None, scale=5.0).velocity(predictor), PROMPT)
    assert predictor.passes == [(1, 0)]


def test_the_two_predictions_are_extrapolated() -> None:
    predictor = Recorder()
    guided = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0).velocity(predictor)
    assert torch.equal(guided, torch.full_like(PROMPT, 1.0 + 5.0 * 3.0))
    assert predictor.passes == [(1, 0), (1, 1)]


def test_both_predictions_may_share_one_pass() -> None:
    predictor = Recorder()
    guided = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, batched=True).velocity(predictor)
    assert torch.equal(guided, torch.full_like(PROMPT, 16.0))
    assert predictor.passes == [(2, 0)]


def test_an_unguided_step_is_one_pass_with_the_prompt() -> None:
    for batched in (False, True):
        predictor = Recorder()
        guidance = Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, batched=batched)
        assert torch.equal(guidance.velocity(predictor, guided=False), PROMPT)
        assert predictor.passes == [(1, 0)]


def test_the_share_of_guided_steps_is_rounded_up() -> None:
    assert [guided_steps(until, 12) for until in (1e-3, 0.5, 0.51, 0.999, 1.0)] == [1, 6, 7, 12, 12]
    assert guided_steps(0.07, 100) == 7
    assert Guidance(positive=PROMPT, negative=NEGATIVE, scale=5.0, until=0.5).guided_steps(5) == 3
    assert Guidance(positive=PROMPT, negative=None, scale=1.0, until=0.5).guided_steps(5) == 0
