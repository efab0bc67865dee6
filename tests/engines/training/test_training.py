"""Training is exact where it must be, can be resumed, and makes models that engines load."""

import copy
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn

import training.__main__
import training.distil
import training.latents
import training.stages
import training.transformers
import training.vae
from benchmarks.questions import Collected, load
from demo.checkpoints import DemoCheckpoints
from deployments.wire import VideoRequest
from training.causal import decode_clip, encode_clip, unroll
from training.latents import BUCKETS, ENCODED, LARGE, Bucket
from training.run import Run, load_average
from training.text import LENGTH, PADDED_LENGTH, PaddedText
from training.transformers import Times, bucket_of


def test_a_whole_clip_at_once_gives_what_diffusers_computes_in_chunks() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=16, num_res_blocks=1).eval().double()
    clip, latents = torch.randn(2, 3, 13, 32, 48).double(), torch.randn(2, 16, 4, 4, 6).double()
    unrolled = copy.deepcopy(vae)
    unroll(unrolled)
    with torch.no_grad():
        torch.testing.assert_close(encode_clip(unrolled, clip)[0], vae.encode(clip).latent_dist.mean, rtol=1e-9, atol=1e-9)
        decoded = decode_clip(unrolled, latents).clamp(-1, 1)
        torch.testing.assert_close(decoded, vae.decode(latents, return_dict=False)[0], rtol=1e-9, atol=1e-9)


def test_short_text_stands_for_the_padded_one() -> None:
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "attention_head_dim": 32, "text_dim": 64, "freq_dim": 64, "ffn_dim": 64, "num_layers": 2}
    model = WanTransformer3DModel(**small).eval()
    video, time = torch.randn(2, 16, 2, 4, 4), torch.tensor([500.0, 900.0])
    text = torch.randn(2, LENGTH, 64)
    text[0, 9:], text[1, 20:] = 0, 0
    padded = torch.cat([text, torch.zeros(2, PADDED_LENGTH - LENGTH, 64)], dim=1)
    with torch.no_grad():
        expected = model(video, time, padded, return_dict=False)[0]
        for name, module in model.named_modules():
            if name.endswith("attn2"):
                module.set_processor(PaddedText(torch.device("cpu")))
        torch.testing.assert_close(model(video, time, text, return_dict=False)[0], expected, rtol=1e-4, atol=1e-5)


def train(path: Path, stop_after: int | None = None) -> nn.Linear:
    torch.manual_seed(3)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    run = Run(path, {"model": model}, optimizers=[optimizer], total=12, warm_up=3)
    for step in run.steps():
        torch.manual_seed(step)
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if stop_after is not None and run.step + 1 == stop_after:
            run._deadline = 0.0  # what --minutes does
    return model


def test_a_resumed_stage_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole.pt")
    stopped = train(tmp_path / "parts.pt", stop_after=5)
    assert not torch.equal(stopped.weight, whole.weight)
    resumed = train(tmp_path / "parts.pt")
    assert torch.equal(resumed.weight, whole.weight)
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    load_average(tmp_path / "whole.pt", {"model": one})
    load_average(tmp_path / "parts.pt", {"model": other})
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, whole.weight)  # the average lags behind


def test_each_expert_draws_times_on_its_own_side() -> None:
    torch.manual_seed(1)
    everywhere, low, high = (Times(*edges).draw(4000, torch.device("cpu")) for edges in ((0.0, 1.0), (0.0, 0.9), (0.9, 1.0)))
    assert 0 < low.min() < 0.3
    assert low.max() <= 0.9 <= high.min()
    assert 0.97 < high.max() <= 1
    # Both sides together have the whole distribution: below the boundary the medians agree.
    below = everywhere[everywhere < 0.9]
    assert abs(below.median() - low.median()) < 0.02


def test_text_and_images_both_have_clips_of_every_size() -> None:
    for large in (False, True):
        sizes = LARGE if large else ()
        seen = {(bucket_of(step, large=large), step % 3 == 2) for step in range(360)}
        expected = [*range(len(BUCKETS)), *(ENCODED.index(bucket) for bucket in sizes)]
        assert seen == {(number, is_image) for number in expected for is_image in (False, True)}
        counts = Counter(bucket_of(step, large=large) for step in range(360))
        assert sum(counts[ENCODED.index(bucket)] for bucket in sizes) == (180 if large else 0)


def test_the_stages_make_models_that_the_engines_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.vae, "POOL", 4)
    monkeypatch.setattr(training.vae, "BATCH", 1)
    monkeypatch.setattr(training.vae, "WHOLE_FROM", 2.0)
    monkeypatch.setattr(training.vae, "held_out_clips", lambda device: {})
    buckets = (Bucket(frames=9, height=32, width=32, count=4), Bucket(frames=5, height=32, width=48, count=4))
    for module in (training.latents, training.transformers, training.distil):
        monkeypatch.setattr(module, "BUCKETS", buckets)
    photographs = Bucket(frames=9, height=32, width=32, count=4, shares={"cat": 1.0}, warp=0.0)
    large = (replace(photographs, width=48), replace(photographs, height=48))
    monkeypatch.setattr(training.transformers, "PHOTOGRAPHS", photographs)
    monkeypatch.setattr(training.transformers, "LARGE", large)
    for module in (training.transformers, training.stages):
        monkeypatch.setattr(module, "ENCODED", (*buckets, photographs, *large))
    for module in (training.transformers, training.distil):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(training.distil, "SHARE", 1)
    monkeypatch.setattr(training.distil, "TEACHER_STEPS", 2)
    monkeypatch.setattr(training.__main__, "STEPS", dict.fromkeys(training.stages.STEPS, 2))
    target = tmp_path / "models"
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "states"), "--target", str(target)])
    training.__main__.main()
    models = DemoCheckpoints(target)
    assert all(file.is_symlink() for file in (models.a14b / "vae").iterdir())
    demo = load(models)
    picture = np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for engine in (demo.wan26, demo.wan22):
        sink = Collected()
        request = VideoRequest(
            prompt="a cat",
            negative_prompt="",
            width=32,
            height=32,
            num_frames=5,
            steps=2,
            cfg=3.0,
            seed=1,
            image=picture,
        )
        engine.generate(request, sink)
        assert np.concatenate(sink.chunks).shape == (5, 32, 32, 3)
        latents = []
        for acceleration in ("none", "distilled"):
            accelerated = replace(request, steps=4, cfg=1.0, acceleration=acceleration)
            latents.append(engine.sample(engine.start(accelerated, Collected())))
        exact, distilled = latents
        assert not torch.equal(exact, distilled)
