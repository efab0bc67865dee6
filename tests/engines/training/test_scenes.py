"""The scenes of training, and the judge that recognises what a clip shows."""

import dataclasses
import random
from collections import Counter

import numpy as np
from transformers import AutoTokenizer

from benchmarks.judge import judge
from benchmarks.questions import picture_of
from demo.checkpoints import demo_checkpoints
from training.latents import SHARES
from training.scenes import (
    COLORS,
    HELD_OUT_VARIANT,
    SHAPE_MOTIONS,
    SHAPES,
    Scene,
    caption,
    draw_camera,
    draw_scenes,
    draw_shape,
    held_out_combinations,
)
from training.text import LENGTH


def test_training_never_draws_held_out_combinations_but_every_pair_in_them() -> None:
    drawn = [scene for scene in draw_scenes(1, 20_000, SHARES) if scene.is_shape]
    seen = {(s.color, s.subject, s.motion) for s in drawn}
    held_out = set(held_out_combinations())
    assert len(held_out) >= 60
    assert not seen & held_out
    for pick in ((0, 1), (0, 2), (1, 2)):
        assert {tuple(c[i] for i in pick) for c in held_out} <= {tuple(c[i] for i in pick) for c in seen}
    assert {s.variant for s in draw_scenes(2, 2000, SHARES)} & set(range(HELD_OUT_VARIANT, 2 * HELD_OUT_VARIANT)) == set()
    lot = random.Random(1)
    assert all(draw_camera(lot, "cat", HELD_OUT_VARIANT).variant >= HELD_OUT_VARIANT for _ in range(50))


def test_the_judge_is_right_about_true_clips() -> None:
    lot = random.Random(11)
    wrong: Counter[str] = Counter()
    for _ in range(60):
        scene = dataclasses.replace(draw_shape(lot), texture="plain", speed=1.0)
        seen = judge(picture_of(scene))
        wrong.update(
            name
            for name, one, other in (
                ("color", seen.color, scene.color),
                ("shape", seen.shape, scene.subject),
                ("motion", seen.motion, scene.motion),
            )
            if one != other
        )
    assert wrong.total() <= 3, wrong


def test_the_judge_finds_no_shape_in_noise() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (17, 128, 128, 3), dtype=np.uint8)
    ground = np.full((17, 128, 128, 3), 100, np.uint8)
    assert judge(ground) == judge(np.ascontiguousarray(ground[::-1]))
    assert judge(ground).shape is None
    assert judge(noise).motion in (None, "still", "turn")


def test_a_shape_moves_as_its_name_says() -> None:
    for motion in SHAPE_MOTIONS:
        clip = picture_of(Scene("star", motion, color="red", ground="black"))
        assert judge(clip).motion == motion
        assert judge(np.ascontiguousarray(clip[::-1])).motion != motion or motion == "turn"


def test_captions_vary_fit_the_model_and_name_what_is_shown() -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoints().vace / "tokenizer", local_files_only=True)
    unknown = tokenizer.unk_token_id
    lot = random.Random(5)
    scenes = list(draw_scenes(3, 3000, SHARES))
    captions = [caption(scene, lot) for scene in scenes]
    tokens = tokenizer(captions).input_ids
    assert max(map(len, tokens)) < LENGTH
    assert not any(unknown in ids for ids in tokens)
    assert len(set(captions)) > 1500
    named = [(s, c.lower()) for s, c in zip(scenes, captions, strict=True) if s.is_shape]
    assert np.mean([s.color in c for s, c in named]) > 0.9
    one = Scene("circle", "left", color="red", ground="black")
    assert len({caption(one, lot) for _ in range(200)}) > 40
    assert set(COLORS) == {s.color for s, _ in named}
    assert set(SHAPES) == {s.subject for s, _ in named}
