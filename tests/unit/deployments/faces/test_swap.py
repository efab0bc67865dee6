"""New faces: inswapper's tiles and checks, and the swap by alignment alone."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deployments.errors import Cancelled, CheckpointRefused
from deployments.faces.swap import AlignmentSwapper, OnnxSwapper, _join, _split
from deployments.settings import FaceSettings
from deployments.wire import Face, Image, Reference
from tests.unit.deployments.faces.fake_faces import SHAPE, face

SETTINGS = FaceSettings(device="cpu", threads=1)
LANDMARKS = SHAPE * 25 + [100, 100]


def inswapper(path: Path, *, side: int = 128, identity_map: tuple[int, int] = (512, 512)) -> Path:
    """Write a model like inswapper that inverts the target; its last constant is a decoy."""
    nodes = [
        helper.make_node("ReduceSum", ["source", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Sub", ["one", "target"], ["inverted"]),
        helper.make_node("Reshape", ["nothing", "column"], ["nothings"]),
        helper.make_node("Add", ["inverted", "nothings"], ["output"]),
    ]
    constants: dict[str, Any] = {
        "axes": np.array([1]),
        "zero": np.float32(0),
        "one": np.float32(1),
        "column": np.array([-1, 1, 1, 1]),
        "buff2fs": np.eye(*identity_map, dtype=np.float32),
        "decoy": np.zeros((2, 2), np.float32),
    }
    shape = ["n", 3, side, side]
    graph = helper.make_graph(
        nodes,
        "inswapper",
        [
            helper.make_tensor_value_info("target", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("source", TensorProto.FLOAT, ["n", 512]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def person_with(pixels: Image, length: int = 512) -> Reference:
    embedding = np.zeros(length, np.float32)
    embedding[0] = 1
    box = np.array([60, 55, 140, 145], np.float32)
    return Reference(pixels, Face(box, LANDMARKS.astype(np.float32), 0.9, embedding), 0.0)


def target_of(grey: int) -> tuple[Image, Face]:
    landmarks = LANDMARKS.astype(np.float32)
    return np.full((200, 200, 3), grey, np.uint8), Face(face(100).box, landmarks, 0.9, face(100).embedding)


@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_tiles_have_every_nth_pixel_and_join_to_what_was_split(tiles: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (8 * tiles, 8 * tiles, 3), np.uint8)
    split = _split(image, tiles)
    assert split.shape == (tiles**2, 8, 8, 3)
    np.testing.assert_array_equal(split[0], image[::tiles, ::tiles])
    np.testing.assert_array_equal(_join(split, tiles), image)


@pytest.mark.parametrize("boost", [128, 256])
def test_each_target_gets_its_own_new_face_at_the_size_of_the_boost(tmp_path: Path, boost: int) -> None:
    settings = FaceSettings(device="cpu", threads=1, pixel_boost=boost)
    swapper = OnnxSwapper(inswapper(tmp_path / "inswapper.onnx"), settings, use_cuda=False)
    greys = (10, 60, 200, 120, 30)
    patches = swapper.swap([target_of(grey) for grey in greys], person_with(np.zeros((200, 200, 3), np.uint8)), lambda: None)
    for grey, patch in zip(greys, patches, strict=True):
        assert patch.pixels.shape == (boost, boost, 3)
        assert patch.mask.shape == (boost, boost)
        centre = patch.pixels[boost // 2, boost // 2].astype(int)
        assert abs(centre - (255 - grey)).max() <= 1
    # The matrix maps the middle of the face in the frame to the middle of the patch.
    middle = patches[0].matrix @ [100, 100, 1]
    assert np.abs(middle - boost / 2).max() < boost / 5


@pytest.mark.parametrize(
    ("change", "message"),
    [({"side": 64}, r"inswapper takes \[n, 3, 128, 128\]"), ({"identity_map": (8, 8)}, r"identity map has shape \[8, 8\]")],
)
def test_a_file_of_another_model_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointRefused, match=message):
        OnnxSwapper(inswapper(tmp_path / "other.onnx", **change), SETTINGS, use_cuda=False)


def test_alignment_brings_the_references_features_to_the_targets_place() -> None:
    pixels = np.full((200, 200, 3), 90, np.uint8)
    cv2.circle(pixels, (75, 75), 8, (255, 255, 255), -1)  # the left eye
    frame, found = target_of(90)
    (patch,) = AlignmentSwapper().swap([(frame, found)], person_with(pixels, 8), lambda: None)
    eye = patch.matrix @ [*found.landmarks[0], 1]
    x, y = np.round(eye).astype(int)
    mouth_x, mouth_y = np.round(patch.matrix @ [*found.landmarks[3], 1]).astype(int)
    assert patch.mask[y, x] > 0.9
    assert patch.mask[0, 0] == 0, "the corners stay as they are"
    assert patch.pixels[y, x].mean() > patch.pixels[mouth_y, mouth_x].mean() + 20


SKIN, HAIR, WALL = (205, 150, 125), (50, 35, 30), (90, 120, 200)


def head(skin_from: int, skin_to: int, brows: int = 0) -> Image:
    """Return a picture with skin between two columns, hair above a row, and a wall behind."""
    picture = np.full((200, 200, 3), WALL, np.uint8)
    picture[:, skin_from:skin_to] = SKIN
    picture[:brows] = HAIR
    return picture


def at(patch: Any, x: float, y: float) -> tuple[int, int]:
    """Return the row and the column of the patch that show a place of the frame."""
    column, row = np.round(patch.matrix @ [x, y, 1]).astype(int)
    return row, column


@pytest.mark.parametrize("whose", ["reference", "target"])
def test_what_is_no_face_beside_it_is_not_replaced(whose: str) -> None:
    """Neither a wall behind the reference's cheek nor one behind the target's is pasted over."""
    narrow, wide = head(66, 200), head(0, 200)
    pixels, frame = (narrow, wide) if whose == "reference" else (wide, narrow)
    found = Face(face(100).box, LANDMARKS.astype(np.float32), 0.9, face(100).embedding)
    (patch,) = AlignmentSwapper().swap([(frame, found)], person_with(pixels, 8), lambda: None)
    eye, mouth = found.landmarks[1], found.landmarks[4]
    behind, cheek = (at(patch, x, (eye[1] + mouth[1]) / 2) for x in (200 - eye[0] - 24, eye[0] + 2))
    assert patch.mask[cheek] > 0.9
    assert patch.mask[behind] < 0.35
    assert patch.mask[at(patch, *found.landmarks[0])] > 0.8, "eyes are replaced in any case"


def test_hair_of_the_reference_stays_away_from_the_forehead() -> None:
    found = Face(face(100).box, LANDMARKS.astype(np.float32), 0.9, face(100).embedding)
    eyes, reach = found.landmarks[:2].mean(axis=0), found.landmarks[3, 1] - found.landmarks[0, 1]
    hairline = round(float(eyes[1] - 0.7 * reach))
    (patch,) = AlignmentSwapper().swap([(head(0, 200), found)], person_with(head(0, 200, hairline), 8), lambda: None)
    assert patch.mask[at(patch, eyes[0], hairline - 6)] < 0.1
    assert patch.mask[at(patch, eyes[0], eyes[1])] > 0.9


@pytest.mark.parametrize("kind", ["inswapper", "alignment"])
def test_a_cancelled_request_ends_before_the_next_face(kind: str, tmp_path: Path) -> None:
    def cancelled() -> None:
        raise Cancelled

    swapper = (
        AlignmentSwapper()
        if kind == "alignment"
        else OnnxSwapper(inswapper(tmp_path / "inswapper.onnx"), SETTINGS, use_cuda=False)
    )
    with pytest.raises(Cancelled):
        swapper.swap([target_of(10)], person_with(np.zeros((200, 200, 3), np.uint8)), cancelled)
