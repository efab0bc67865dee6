"""The face engine's own work, around an analyser, a swapper and a restorer that are fakes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import Cancelled, CheckpointRefused, NoFaceFound
from deployments.faces.compositing.alignment import FFHQ
from deployments.faces.engine import FaceEngine, build_face_engine
from deployments.faces.swap import Patch, Target
from deployments.settings import AlignmentFaceModels, FaceModels, FaceSettings
from deployments.wire import Face, Frames, Image, Reference, SwapOptions
from tests.unit.deployments.faces.fake_faces import face, person

FACE = face(100, 90, size=20)
FRAME = np.full((200, 200, 3), 50, np.uint8)
INSIDE = (slice(85, 95), slice(95, 105))


class FakeAnalyser:
    """Finds the given faces in one image after the other."""

    name = "fake"

    def __init__(self, *found: list[Face]) -> None:
        self.found = list(found)
        self.references = 0

    def faces(self, images: Frames | Sequence[Image], check: Callable[[], None] = lambda: None) -> list[list[Face]]:
        check()
        if len(images) == 1:  # references come one by one
            self.references += len(images)
            return self.found[self.references - len(images) : self.references]
        return self.found[: len(images)]


class FakeSwapper:
    """Replaces each face by a white square."""

    name = "white"

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        white, mask = np.full((40, 40, 3), 255, np.uint8), np.ones((40, 40), np.float32)
        patches = []
        for _, target in targets:
            left, top = (target.box[:2] + target.box[2:]) / 2 - 20
            patches.append(Patch(white, np.array([[1.0, 0, -left], [0, 1.0, -top]]), mask))
        return patches


class FakeRestorer:
    """Makes every face black."""

    name = "black"
    size = 512
    template = FFHQ

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        return [np.zeros_like(face) for face in faces]


def never_cancelled() -> None:
    """Do nothing."""


def test_the_identity_is_the_mean_of_the_largest_faces_and_the_pixels_are_the_firsts() -> None:
    first, second, other = face(100, who=0), face(60, who=1), face(150, who=2)
    engine = FaceEngine(FakeAnalyser([first, other], [second]), FakeSwapper())
    reference = engine.identify([FRAME, 2 * FRAME], "reference_image", never_cancelled)
    np.testing.assert_allclose(reference.face.embedding, (person(0) + person(1)) / 2**0.5, atol=1e-6)
    assert (reference.pixels == 50).all()
    left, top, right, bottom = reference.face.box
    assert 0 <= left < right <= reference.pixels.shape[1]
    assert 0 <= top < bottom <= reference.pixels.shape[0]
    assert right - left == pytest.approx(first.box[2] - first.box[0])


def test_a_large_reference_is_made_smaller_with_its_landmarks() -> None:
    large = face(1000, 1000, size=500)
    engine = FaceEngine(FakeAnalyser([large]), FakeSwapper())
    reference = engine.identify([np.zeros((2000, 2000, 3), np.uint8)], "reference_image", never_cancelled)
    assert max(reference.pixels.shape) == 640
    eyes, expected = reference.face.landmarks[1] - reference.face.landmarks[0], large.landmarks[1] - large.landmarks[0]
    np.testing.assert_allclose(eyes, expected * 640 / 2000, rtol=1e-5)


def test_an_image_without_a_face_is_named() -> None:
    engine = FaceEngine(FakeAnalyser([FACE], []), FakeSwapper())
    with pytest.raises(NoFaceFound, match="image 2 of 2: no face found") as refused:
        engine.identify([FRAME, FRAME], "target_face", never_cancelled)
    assert refused.value.field == "target_face"


def test_only_the_given_faces_change_and_the_input_does_not() -> None:
    engine = FaceEngine(FakeAnalyser(), FakeSwapper())
    frames = np.stack([FRAME, FRAME])
    frames.flags.writeable = False
    swapped = engine.swap(frames, [[FACE], []], reference=Reference(FRAME, FACE), options=SwapOptions(), check=never_cancelled)
    assert (swapped[0][INSIDE] == 255).all()
    assert (swapped[0][:60] == 50).all()
    np.testing.assert_array_equal(swapped[1], FRAME)
    assert (frames == 50).all()


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (SwapOptions(), "black", 0),
        (SwapOptions(visibility=0.6), "black", 102),
        (SwapOptions(visibility=0.0), "none", 255),
        (SwapOptions(restore=False), "none", 255),
    ],
)
def test_the_restorer_runs_as_the_options_say(options: SwapOptions, name: str, value: int) -> None:
    engine = FaceEngine(FakeAnalyser(), FakeSwapper(), restorer=FakeRestorer())
    assert engine.restorer(options) == name
    swapped = engine.swap(FRAME[None], [[FACE]], reference=Reference(FRAME, FACE), options=options, check=never_cancelled)
    np.testing.assert_allclose(swapped[0][INSIDE].astype(int), value, atol=1)


@pytest.mark.slow
def test_any_number_of_faces_is_swapped_in_groups() -> None:
    sizes: list[int] = []

    class Counting(FakeSwapper):
        def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
            sizes.append(len(targets))
            return super().swap(targets, reference, check)

    faces = [face(30 + 60 * (i % 10), 30 + 60 * (i // 10), size=10) for i in range(50)]
    frame = np.full((360, 660, 3), 50, np.uint8)
    engine = FaceEngine(FakeAnalyser(), Counting(), restorer=FakeRestorer())
    swapped = engine.swap(
        np.stack([frame, frame]), [faces, []], reference=Reference(FRAME, FACE), options=SwapOptions(), check=never_cancelled
    )
    assert sum(sizes) == 50
    assert max(sizes) <= 16
    assert all(
        (swapped[0][int(y) - 2 : int(y) + 2, int(x) - 2 : int(x) + 2] == 0).all() for x, y in (f.landmarks[2] for f in faces)
    )
    np.testing.assert_array_equal(swapped[1], frame)


def test_a_cancelled_swap_ends_in_its_check() -> None:
    def cancelled() -> None:
        raise Cancelled("the result is no longer needed")

    engine = FaceEngine(FakeAnalyser(), FakeSwapper())
    with pytest.raises(Cancelled):
        engine.swap(FRAME[None], [[FACE]], reference=Reference(FRAME, FACE), options=SwapOptions(), check=cancelled)


def test_colours_are_those_of_the_original_face_if_configured() -> None:
    engine = FaceEngine(FakeAnalyser(), FakeSwapper(), colours=True)
    swapped = engine.swap(FRAME[None], [[FACE]], reference=Reference(FRAME, FACE), options=SwapOptions(), check=never_cancelled)
    np.testing.assert_allclose(swapped[0][INSIDE].astype(int), 50, atol=2)


def test_one_restorer_is_configured_at_most(tmp_path: Path) -> None:
    models = FaceModels(
        analysis=tmp_path, swapper=tmp_path / "a.onnx", gfpgan=tmp_path / "b.onnx", codeformer=tmp_path / "c.onnx"
    )
    with pytest.raises(CheckpointRefused, match="choose one restorer"):
        build_face_engine(FaceSettings(), models, use_cuda=False)


def test_the_swap_by_alignment_refuses_a_gpu_and_names_a_missing_file(tmp_path: Path) -> None:
    models = AlignmentFaceModels(detector=tmp_path / "yunet.onnx", recogniser=tmp_path / "sface.onnx")
    with pytest.raises(CheckpointRefused, match="runs on the CPU"):
        build_face_engine(FaceSettings(device="cuda"), models, use_cuda=False)
    with pytest.raises(CheckpointRefused, match=r"yunet.onnx: no such file; .*python -m demo"):
        build_face_engine(FaceSettings(), models, use_cuda=False)


def test_each_face_gets_the_reference_of_its_number() -> None:
    class Grey(FakeSwapper):
        def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
            patches = super().swap(targets, reference, check)
            return [Patch(np.full_like(patch.pixels, reference.pixels[0, 0]), patch.matrix, patch.mask) for patch in patches]

    references = tuple(Reference(np.full((4, 4, 3), grey, np.uint8), FACE) for grey in (10, 120, 240))
    faces = [replace(face(40 + 60 * i, 90, size=15), source=source) for i, source in enumerate((2, 0, 1))]
    frame = np.full((200, 240, 3), 50, np.uint8)
    engine = FaceEngine(FakeAnalyser(), Grey())
    swapped = engine.swap(frame[None], [faces], reference=references, options=SwapOptions(), check=never_cancelled)
    assert [int(swapped[0, 90, x, 0]) for x in (40, 100, 160)] == [240, 10, 120]


@pytest.mark.parametrize(("blend", "value"), [(1.0, 255), (0.5, 152), (0.0, 50)])
def test_a_face_is_blended_with_the_old_one(blend: float, value: int) -> None:
    engine = FaceEngine(FakeAnalyser(), FakeSwapper())
    options = SwapOptions(blend=blend)
    frames = np.stack([FRAME, FRAME])
    swapped = engine.swap(frames, [[FACE], []], reference=Reference(FRAME, FACE), options=options, check=never_cancelled)
    np.testing.assert_allclose(swapped[0][INSIDE].astype(int), value, atol=1)
    np.testing.assert_array_equal(swapped[1], FRAME)
    np.testing.assert_array_equal(swapped[0][:60], FRAME[:60])


def test_padding_leaves_the_edges_of_a_face_as_they_were() -> None:
    """The crop of the fake swapper has 40 pixels a side, around 100, 90."""
    engine = FaceEngine(FakeAnalyser(), FakeSwapper())
    options = SwapOptions(padding=(0.25, 0.0, 0.0, 0.45))
    swapped = engine.swap(FRAME[None], [[FACE]], reference=Reference(FRAME, FACE), options=options, check=never_cancelled)[0]
    assert [int(swapped[y, x, 0]) for y, x in ((73, 110), (90, 84), (105, 110), (90, 116))] == [50, 50, 255, 255]


def test_only_a_parser_can_tell_regions_apart() -> None:
    class Parser:
        def __init__(self, parses: bool) -> None:
            self.parses = parses
            self.regions: list[Sequence[str]] = []

        def visible(self, faces: Sequence[Image], check: Callable[[], None], regions: Sequence[str] = ()) -> list[Any]:
            self.regions.append(regions)
            return [np.zeros(face.shape[:2], np.float32) for face in faces]

    for parses in (True, False):
        parser: Any = Parser(parses)
        engine = FaceEngine(FakeAnalyser([FACE]), FakeSwapper(), occlusion=parser)
        assert engine.identify([FRAME], "face", never_cancelled).parsed is parses
        options = SwapOptions(regions=("nose", "mouth"))
        swapped = engine.swap(FRAME[None], [[FACE]], reference=Reference(FRAME, FACE), options=options, check=never_cancelled)
        assert parser.regions == [("nose", "mouth")]
        np.testing.assert_array_equal(swapped[0], FRAME)
