"""What hides a face, by models of one node whose answer is in the picture itself."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from deployments.errors import Cancelled, CheckpointRefused
from deployments.faces.occlusion import OcclusionMask
from deployments.settings import FaceSettings
from tests.unit.deployments.faces.onnx_files import write

SETTINGS = FaceSettings(device="cpu", threads=1)
XSEG: tuple[list[int | str], list[int | str]] = (["n", 256, 256, 3], ["n", 256, 256, 1])
PARSER: tuple[list[int | str], list[int | str]] = (["n", 3, 512, 512], ["n", 19, 512, 512])


@pytest.fixture(scope="module")
def xseg(tmp_path_factory: pytest.TempPathFactory) -> OcclusionMask:
    """A model of XSeg's shape for which bright pixels are visible."""
    node = helper.make_node("ReduceMean", ["given"], ["result"], axes=[3], keepdims=1)
    path = write(tmp_path_factory.mktemp("models") / "xseg.onnx", [node], given=XSEG[0], result=XSEG[1])
    return OcclusionMask(path, SETTINGS, use_cuda=False)


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> OcclusionMask:
    """A model of a parser's shape that takes bright pixels for skin, and dark ones for background.

    The class 0 gets the score 0, the class 1 (skin) that of the brightness, and 17 (hair) that of
    the darkness less a bit, so that hair wins where it is dark.
    """
    nodes = [
        helper.make_node("ReduceMean", ["given"], ["skin"], axes=[1], keepdims=1),
        helper.make_node("Neg", ["skin"], ["hair"]),
        helper.make_node("Sub", ["skin", "skin"], ["none"]),
        helper.make_node("Concat", ["none", "skin", *["none"] * 15, "hair", "none"], ["result"], axis=1),
    ]
    path = write(tmp_path_factory.mktemp("models") / "parser.onnx", nodes, given=PARSER[0], result=PARSER[1])
    return OcclusionMask(path, SETTINGS, use_cuda=False)


def half(side: int, *, dark_half: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    face = np.full((side, side, 3), 255, np.uint8)
    face[:, : side // 2] = 0
    return face if dark_half == "left" else np.ascontiguousarray(face[:, ::-1])


@pytest.mark.parametrize("kind", ["xseg", "parser"])
@pytest.mark.parametrize("side", [128, 600])
def test_the_mask_has_the_crops_size_and_is_0_where_the_face_is_hidden(
    kind: str, side: int, request: pytest.FixtureRequest
) -> None:
    model: OcclusionMask = request.getfixturevalue(kind)
    (mask,) = model.visible([half(side, dark_half="left")], lambda: None)
    assert mask.shape == (side, side)
    assert mask.dtype == np.float32
    assert mask[:, : side // 4].max() < 0.01
    assert mask[:, -side // 4 :].min() > 0.99
    edge = mask[side // 2]
    assert (np.diff(edge) >= -1e-6).all(), "the edge is soft, from hidden to visible"
    assert ((edge > 0.1) & (edge < 0.9)).any()


@pytest.mark.parametrize("kind", ["xseg", "parser"])
def test_faces_of_a_batch_are_not_mixed_up(kind: str, request: pytest.FixtureRequest) -> None:
    model: OcclusionMask = request.getfixturevalue(kind)
    halves = ["left", "right", "right"]
    masks = model.visible([half(128, dark_half=dark) for dark in halves], lambda: None)
    assert ["left" if mask[64, 10] < 0.5 else "right" for mask in masks] == halves
    assert model.visible([], lambda: None) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "colour"), [("xseg", 2), ("parser", 0)])
def test_xseg_is_given_bgr_and_a_parser_rgb(tmp_path: Path, kind: str, colour: int) -> None:
    """The graph calls its first channel visible, which is blue to XSeg and red to a parser."""
    if kind == "xseg":
        axis, (given, result) = 3, XSEG
        nodes = [helper.make_node("Split", ["given"], ["result", "b", "c"], axis=axis, num_outputs=3)]
    else:
        axis, (given, result) = 1, PARSER
        nodes = [
            helper.make_node("Split", ["given"], ["skin", "b", "c"], axis=axis, num_outputs=3),
            helper.make_node("Sub", ["skin", "skin"], ["none"]),
            helper.make_node("Concat", ["none", "skin", *["none"] * 17], ["result"], axis=1),
        ]
    path = write(tmp_path / "model.onnx", nodes, given=given, result=result, opset=18)
    model = OcclusionMask(path, SETTINGS, use_cuda=False)
    for channel in range(3):
        face = np.zeros((128, 128, 3), np.uint8)
        face[..., channel] = 255
        (mask,) = model.visible([face], lambda: None)
        assert mask.mean() == pytest.approx(1.0 if channel == colour else 0.0, abs=0.01)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_an_occlusion_model_may_be_of_float16(tmp_path: Path, kind: int) -> None:
    node = helper.make_node("ReduceMean", ["given"], ["result"], axes=[3], keepdims=1)
    path = write(tmp_path / "xseg.onnx", [node], given=XSEG[0], result=XSEG[1], kind=kind)
    (mask,) = OcclusionMask(path, SETTINGS, use_cuda=False).visible([half(128, dark_half="left")], lambda: None)
    assert mask.dtype == np.float32
    assert (mask[64, 10], mask[64, -10]) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def test_a_parser_shows_the_regions_that_are_asked_for(parser: OcclusionMask, xseg: OcclusionMask) -> None:
    """Its bright pixels are skin."""
    (skin,), (nose,) = (parser.visible([half(128, dark_half="left")], lambda: None, [region]) for region in ("skin", "nose"))
    assert skin[64, -10] > 0.99
    assert nose.max() == 0
    assert (parser.parses, xseg.parses) == (True, False)


def test_a_cancelled_request_ends_before_the_model_runs(xseg: OcclusionMask) -> None:
    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        xseg.visible([half(128, dark_half="left")], cancelled)


def test_a_model_of_another_shape_is_refused_with_both_kinds_named(tmp_path: Path) -> None:
    node = helper.make_node("Neg", ["given"], ["result"])
    path = write(tmp_path / "other.onnx", [node], given=["n", 3, 64, 64], result=["n", 3, 64, 64])
    with pytest.raises(CheckpointRefused, match=r"maps \['n', 3, 64, 64\].*XSeg.*face parser"):
        OcclusionMask(path, SETTINGS, use_cuda=False)
