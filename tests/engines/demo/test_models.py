"""The shipped models: a sample of the questions of `benchmarks.demo_models`, and the files."""

import dataclasses
import random

import gguf
import numpy as np
import pytest

from benchmarks.demo_models import embedding_of, make_analyser, reconstruct, same_person_in, shows, specialists
from benchmarks.judge import Frames, judge
from benchmarks.questions import SIDE, Collected, Demo, ask, image_scenes, load, make, moves_as, picture_of, psnr, shape_scenes
from demo.checkpoints import demo_checkpoints, wan26_models
from deployments.settings import Wan26Settings
from deployments.video.build import build_wan26
from deployments.wire import LoraChoice, VideoRequest
from tests.engines.random_models import RandomCheckpoints, write_checkpoints
from training.scenes import HELD_OUT_VARIANT, PORTRAITS, caption, draw_camera, draw_shape

STEPS = 6
"""Half of the benchmark's steps, with which these models still do what is asked here."""


@pytest.fixture(scope="module")
def trained() -> Demo:
    return load(demo_checkpoints())


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    checkpoints = RandomCheckpoints(tmp_path_factory.mktemp("untrained"))
    write_checkpoints(checkpoints)
    return load(checkpoints)


def test_prompts_that_training_never_saw_are_followed(trained: Demo) -> None:
    scenes = shape_scenes(4)
    # In turn the default guidance scale and half of it.
    videos = [
        make(trained.wan26, ask(scene), seed=seed, steps=STEPS, cfg=(6.0, 3.0)[seed % 2]) for seed, scene in enumerate(scenes)
    ]
    seen = [judge(video) for video in videos]
    right = {
        "color": sum(s.color == j.color for s, j in zip(scenes, seen, strict=True)),
        "shape": sum(s.subject == j.shape for s, j in zip(scenes, seen, strict=True)),
        "motion": sum(s.motion == j.motion for s, j in zip(scenes, seen, strict=True)),
    }
    assert right["color"] >= 3, (right, seen)
    assert right["motion"] >= 3, (right, seen)
    assert right["shape"] >= 3, (right, seen)


def test_random_weights_follow_no_prompt(untrained: Demo) -> None:
    scenes = shape_scenes(1)
    seen = [judge(make(untrained.wan26, ask(scene), seed=1, steps=STEPS)) for scene in scenes]
    whole = [(s.color, s.subject, s.motion) == (j.color, j.shape, j.motion) for s, j in zip(scenes, seen, strict=True)]
    assert not any(whole)
    truth = picture_of(image_scenes(1)[0])
    assert psnr(make(untrained.wan26, "zoom in", seed=1, steps=STEPS, image=truth[0])[0], truth[0]) < 20


@pytest.mark.parametrize("model", ["wan26", "wan22"])
def test_an_image_of_a_person_is_kept_and_moves_as_the_prompt_says(trained: Demo, model: str) -> None:
    [_, scene] = image_scenes(2)
    truth = picture_of(scene)
    generated = make(getattr(trained, model), caption(scene, random.Random(9)), seed=1, steps=STEPS, image=truth[0])
    assert psnr(generated[0], truth[0]) >= 25
    assert moves_as(generated, truth)
    faces = make_analyser().faces(list(generated))
    assert np.mean([bool(found) for found in faces]) >= 0.9


def test_a_negative_prompt_and_a_seed_change_the_video(trained: Demo) -> None:
    prompt = "a star moves to the left on a black background"
    one, other = make(trained.wan26, prompt, seed=1, steps=STEPS), make(trained.wan26, prompt, seed=2, steps=STEPS)
    assert psnr(one, other) < 25
    color = judge(one).color
    assert judge(make(trained.wan26, prompt, seed=1, steps=STEPS, negative=f"a {color} star")).color != color


def test_the_vae_keeps_shapes_and_the_identity_of_faces(trained: Demo) -> None:
    """The limits are the benchmark's, less two decibels for the variation of single clips."""
    lot = random.Random(8)
    shape, portrait = draw_shape(lot, held_out=True), draw_camera(lot, PORTRAITS[0], HELD_OUT_VARIANT)
    truth = picture_of(shape)
    assert psnr(reconstruct(trained, truth), truth) >= 30
    truth = picture_of(portrait)
    result = reconstruct(trained, truth)
    assert psnr(result, truth) >= 25
    same = list(same_person_in(make_analyser(), truth, result))
    assert len(same) >= 9, "the clip shows the face in most of its 17 frames"
    assert np.mean(same) >= 0.9


@pytest.mark.parametrize("person", PORTRAITS)
def test_a_portrait_from_a_prompt_shows_the_person(trained: Demo, person: str) -> None:
    """The limit leaves room for the small sample: the benchmark's bar is 80 % of 24 videos.

    It holds for each person alone, so that a model that always shows the same one misses it.
    """
    analyser = make_analyser()
    seed = 100 + PORTRAITS.index(person)
    video = make(trained.wan26, f"a portrait of an {person}, the camera zooms in", seed=seed, steps=STEPS)
    assert np.mean([bool(faces) for faces in analyser.faces(list(video))]) >= 0.9
    assert np.mean(shows(analyser, video, embedding_of(analyser, person))) >= 0.5


def test_the_files_have_published_formats_and_are_small() -> None:
    shipped = demo_checkpoints()
    files = [file for file in shipped.folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    for path in (shipped.high_noise, shipped.low_noise):
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
        assert kinds["blocks.0.self_attn.q.weight"] == "Q8_0"
        assert kinds["head.modulation"] == "F32"
        assert kinds["patch_embedding.weight"] == "F16"
    for folder in (shipped.vace, shipped.a14b):
        card = (folder / "README.md").read_text()
        for part in ("license:", "## Data", "## Training", "## What it can", "## What it cannot"):
            assert part in card, (folder, part)
    assert not list(shipped.folder.rglob("*.pt"))


def test_each_expert_is_needed_on_its_own_side(trained: Demo) -> None:
    """Images are far worse if the experts are swapped, or with the high-noise expert alone.

    With the low-noise expert alone they are a little worse; see the benchmark.
    """
    mode = trained.wan22.image_mode
    assert mode is not None
    high, low = mode.transformers["transformer"], mode.transformers["transformer_2"]
    swapped = dataclasses.replace(mode, transformers={"transformer": low, "transformer_2": high})
    alone = dataclasses.replace(mode, transformers={"transformer": high, "transformer_2": high})
    lot = random.Random(6)
    scores: dict[str, list[float]] = {"both": [], "swapped": [], "high alone": []}
    for scene in image_scenes(1):
        truth, prompt = picture_of(scene), caption(scene, lot)
        for name, variant in (("both", mode), ("swapped", swapped), ("high alone", alone)):
            engine = dataclasses.replace(trained.wan22, image_mode=variant)
            scores[name].append(psnr(make(engine, prompt, seed=1, steps=STEPS, image=truth[0]), truth))
    for name in ("swapped", "high alone"):
        assert all(both > other + 1 for both, other in zip(scores["both"], scores[name], strict=True)), scores


def test_each_expert_is_better_at_its_own_noise_levels(trained: Demo, untrained: Demo) -> None:
    for _, _, _, value in specialists(trained, 0.05):
        assert int(value.split()[-1]) == 2, value  # of two
    for _, _, _, value in specialists(untrained, 0.03):
        assert float(value.split()[0]) > 1, value  # random weights predict nothing


def test_its_styles_change_the_video_more_with_a_larger_scale_and_can_be_stacked() -> None:
    """A blue ground becomes brown by `sepia` and light grey by `ink`; both make another one."""
    engine = build_wan26(Wan26Settings(), wan26_models())

    def shown(**scales: float) -> Frames:
        request = VideoRequest(
            prompt="a red star moves right on a dark blue background",
            negative_prompt="",
            width=SIDE,
            height=SIDE,
            num_frames=5,
            steps=8,
            cfg=3.0,
            seed=1,
            loras=tuple(LoraChoice(name, scale) for name, scale in scales.items()),
        )
        sink = Collected()
        engine.generate(request, sink)
        return np.concatenate(sink.chunks)

    plain, half, sepia, ink, both = (shown(**s) for s in ({}, {"sepia": 0.5}, {"sepia": 1}, {"ink": 1}, {"sepia": 1, "ink": 1}))
    ground = {
        name: frames[:, :8, :8].mean(axis=(0, 1, 2)) for name, frames in (("plain", plain), ("sepia", sepia), ("ink", ink))
    }
    assert ground["plain"].argmax() == 2, "blue"
    assert ground["sepia"].argmax() == 0, "brown"
    assert ground["ink"].min() > ground["plain"].max(), "a wash on paper"
    assert np.ptp(ground["ink"]) < np.ptp(ground["plain"]) / 2, "grey"
    assert psnr(half, plain) > psnr(sepia, plain)
    assert psnr(both, sepia) < 35
    assert psnr(both, ink) < 35
