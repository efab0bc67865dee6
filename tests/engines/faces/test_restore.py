"""Face restorers: their inputs, their outputs, and how many faces run at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from deployments.errors import CheckpointRefused
from deployments.faces.models.files import check_files
from deployments.faces.restore import OnnxRestorer
from deployments.settings import FaceSettings
from tests.engines.faces import onnx_graphs

SETTINGS = FaceSettings(device="cpu")


def never_cancelled() -> None:
    """Do nothing: these tests do not cancel the work."""


def graph_of(path: Path, *nodes: Any, **constants: Any) -> Path:
    """Write a restorer whose file declares a variable first dimension."""
    shape = ["n", 3, 512, 512]
    given, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("picture", "out"))
    return onnx_graphs.save(path, [*nodes], [given], [result], **constants)


def test_faces_run_in_a_batch_only_if_the_graph_gives_the_same_results(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Published files declare a first dimension that their nodes do not always support."""
    true = graph_of(tmp_path / "true.onnx", helper.make_node("Neg", ["picture"], ["out"]))
    fails = graph_of(
        tmp_path / "fails.onnx", helper.make_node("Reshape", ["picture", "one"], ["out"]), one=np.array([1, 3, 512, 512])
    )
    mixes = graph_of(
        tmp_path / "mixes.onnx",
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["picture", "mean"], ["difference"]),
        helper.make_node("Sub", ["mean", "difference"], ["out"]),
    )
    faces = [np.full((512, 512, 3), value, np.uint8) for value in (10, 200)]
    runs: list[int] = []
    for path in (true, fails, mixes):
        restorer = OnnxRestorer("gfpgan", path, SETTINGS, use_cuda=False)
        alone = [restorer.restore([face], 0.5, never_cancelled)[0] for face in faces]
        runs.clear()
        together = restorer.restore(faces, 0.5, lambda: runs.append(1))
        np.testing.assert_array_equal(together, alone)
        assert len(runs) == (1 if path is true else 2)
    assert [message.split(":")[0] for message in caplog.messages if "one face at a time" in message] == [
        "fails.onnx",
        "mixes.onnx",
    ]


def test_a_restorer_converts_pixels_to_the_range_that_the_graph_expects(tmp_path: Path) -> None:
    """The graph itself converts; here it doubles the contrast of red and inverts blue."""
    shape = [1, 3, 512, 512]
    path = onnx_graphs.save(
        tmp_path / "GFPGANv1.4.onnx",
        [helper.make_node("Mul", ["picture", "strength"], ["out"])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        strength=np.array([[[[2]], [[1]], [[-1]]]], np.float32),
    )
    restorer = OnnxRestorer("gfpgan", path, SETTINGS, use_cuda=False)
    faces = [np.random.default_rng(seed).integers(0, 256, (512, 512, 3), dtype=np.uint8) for seed in range(2)]
    for face, restored in zip(faces, restorer.restore(faces, 0.5, never_cancelled), strict=True):
        red, green, blue = (face[:, :, i].astype(int) for i in range(3))
        np.testing.assert_allclose(restored[:, :, 0], np.clip(2 * red - 127.5, 0, 255), atol=0.51)
        np.testing.assert_array_equal(restored[:, :, 1], green)
        np.testing.assert_array_equal(restored[:, :, 2], 255 - blue)


def test_codeformers_weight_reaches_the_graph(tmp_path: Path) -> None:
    path = onnx_graphs.restorer(tmp_path / "codeformer.onnx", codeformer=True)
    restorer = OnnxRestorer("codeformer", path, SETTINGS, use_cuda=False)
    face = np.zeros((512, 512, 3), np.uint8)
    assert {w: int(restorer.restore([face], w, never_cancelled)[0][0, 0, 0]) for w in (0.0, 0.5, 1.0)} == {
        0.0: 0,
        0.5: 128,
        1.0: 255,
    }
    with pytest.raises(CheckpointRefused, match="GFPGAN has one"):
        OnnxRestorer("gfpgan", path, SETTINGS, use_cuda=False)


@pytest.mark.parametrize("weight", [(), (1,)], ids=["scalar", "vector"])
@pytest.mark.parametrize("first", [False, True], ids=["image first", "weight first"])
@pytest.mark.parametrize("setting", ["codeformer", "restorer"])
def test_codeformer_in_every_form_of_its_weight(tmp_path: Path, weight: tuple[int, ...], first: bool, setting: str) -> None:
    path = onnx_graphs.restorer(tmp_path / "codeformer.onnx", codeformer=True, weight=weight, weight_first=first)
    restorer = OnnxRestorer(setting, path, SETTINGS, use_cuda=False)
    assert restorer.name == "codeformer"
    faces = [np.zeros((512, 512, 3), np.uint8)] * 2
    assert [int(face.min()) for face in restorer.restore(faces, 1.0, never_cancelled)] == [255, 255]
    assert [report.faults for report in check_files(tmp_path, {}) if report.path] == [()]


@pytest.mark.parametrize(
    ("file", "size", "name"),
    [
        ("gpen_bfr_256", 256, "gpen"),
        ("gpen_bfr_512", 512, "gpen"),
        ("gpen_bfr_1024", 1024, "gpen"),
        ("gpen_bfr_2048", 2048, "gpen"),
        ("restoreformer_plus_plus", 512, "restoreformer"),
        ("gfpgan_1.4", 512, "gfpgan"),
    ],
)
def test_restorers_of_every_size(tmp_path: Path, file: str, size: int, name: str) -> None:
    path = onnx_graphs.restorer(tmp_path / f"{file}.onnx", codeformer=False, size=size)
    restorer = OnnxRestorer("restorer", path, SETTINGS, use_cuda=False)
    assert (restorer.name, restorer.size) == (name, size)
    # GPEN of 256 pixels cuts faces as inswapper does, the others as FFHQ.
    eye = (0.36167656, 0.40387734) if size == 256 else (0.37691676, 0.46864664)
    np.testing.assert_allclose(restorer.template[0] / size, eye, atol=1e-5)
    (restored,) = restorer.restore([np.zeros((size, size, 3), np.uint8)], 0.5, never_cancelled)
    assert restored.shape == (size, size, 3)
    assert restored.min() == 255
    assert [report.faults for report in check_files(tmp_path, {}) if report.path] == [()]


def test_a_restorer_over_float16_converts_at_its_edges(tmp_path: Path) -> None:
    shape = [1, 3, 512, 512]
    path = onnx_graphs.save(
        tmp_path / "GFPGANv1.4.onnx",
        [helper.make_node("Neg", ["picture"], ["out"])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, shape)],
    )
    face = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    (restored,) = OnnxRestorer("gfpgan", path, SETTINGS, use_cuda=False).restore([face], 0.5, never_cancelled)
    np.testing.assert_allclose(restored, 255 - face.astype(int), atol=1)
