"""Noise and image conditions of each kind of model, as its transformer gets them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)

from deployments.video.sampling.conditions import Conditions, prepare_conditions
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import TRANSFORMER, make_scheduler, make_vae

CPU = torch.device("cpu")
LATENTS = (1, 16, 2, 8, 8)
ONE_BLOCK = {**TRANSFORMER, "num_layers": 1}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    """A pipeline of each kind over tiny random models, without a text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        shared = {"tokenizer": None, "text_encoder": None, "vae": make_vae(), "scheduler": make_scheduler(5.0)}
        return {
            "text": WanPipeline(transformer=WanTransformer3DModel(**ONE_BLOCK), **shared),
            "vace": WanVACEPipeline(transformer=WanVACETransformer3DModel(**ONE_BLOCK, vace_layers=[0]), **shared),
            "a14b": WanImageToVideoPipeline(
                transformer=WanTransformer3DModel(**ONE_BLOCK, in_channels=36),
                image_encoder=None,
                image_processor=None,
                **shared,
            ),
        }


@pytest.fixture
def prepare(pipelines: dict[str, Any], small: VideoRequest, image: Image) -> Callable[..., Conditions]:
    def conditions(kind: str, **changes: Any) -> Conditions:
        request = small if kind == "text" else replace(small, image=image)
        return prepare_conditions(pipelines[kind], replace(request, **changes), CPU)

    return conditions


@pytest.mark.parametrize("kind", ["text", "vace", "a14b"])
def test_the_noise_depends_on_the_seed_alone(prepare: Callable[..., Conditions], kind: str) -> None:
    first, again, other = prepare(kind), prepare(kind), prepare(kind, seed=2)
    assert (first.noise.shape, first.noise.dtype) == (LATENTS, torch.float32)
    assert torch.equal(first.noise, again.noise)
    assert not torch.allclose(first.noise, other.noise)
    assert torch.equal(first.noise, prepare(kind, prompt="a dog", steps=9).noise)


def test_a_video_from_text_has_no_other_condition(prepare: Callable[..., Conditions]) -> None:
    conditions = prepare("text")
    assert (conditions.channels, conditions.arguments) == (None, {})


def test_the_first_frame_is_in_channels_behind_a_mask_of_the_frames_that_are_given(
    prepare: Callable[..., Conditions], image: Image
) -> None:
    conditions = prepare("a14b")
    assert conditions.arguments == {}, "the model has no image encoder"
    assert conditions.channels is not None
    assert conditions.channels.shape == (1, 20, 2, 8, 8)
    mask, encoded = conditions.channels[:, :4], conditions.channels[:, 4:]
    assert (mask[:, :, 0] == 1).all()
    assert (mask[:, :, 1:] == 0).all()
    other = prepare("a14b", image=255 - image).channels
    assert other is not None
    assert not torch.allclose(encoded[:, :, 0], other[:, 4:, 0]), "the image decides what is encoded"


def test_vaces_control_video_has_the_image_and_a_mask_of_the_frames_that_are_made(
    prepare: Callable[..., Conditions], image: Image
) -> None:
    conditions = prepare("vace")
    assert conditions.channels is None
    control = conditions.arguments["control_hidden_states"]
    assert control.shape == (1, 96, 2, 8, 8), "what is kept, what is made, and the mask of 8 x 8 pixels"
    assert (control[:, 32:, 1:] == 1).all()
    other = prepare("vace", image=np.zeros_like(image)).arguments["control_hidden_states"]
    assert not torch.allclose(control[:, :32], other[:, :32]), "the image decides what is encoded"
    assert torch.equal(control[:, 32:], other[:, 32:]), "the mask depends on the size alone"
