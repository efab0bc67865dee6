"""Sessions with inputs at fixed places and padded batches.

Whether a graph is really captured needs a GPU; here every run is node by node.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deployments.faces.models.batch import batch_of
from deployments.faces.models.cuda_graph import CapturedSession
from deployments.faces.models.graph import fix_shape, open_batch, read_model
from deployments.faces.restore import OnnxRestorer
from deployments.settings import FaceSettings
from tests.engines.faces import onnx_graphs


def plain(path: Path, model: bytes | None = None) -> Any:
    return onnxruntime.InferenceSession(model or str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("graphs") / "inswapper_128.onnx"
    onnx_graphs.inswapper(path)
    return plain(path, open_batch(read_model(path)))


def feeds(session: Any, count: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {value.name: random.random((count, *value.shape[1:]), np.float32) for value in session.get_inputs()}


def test_batches_of_any_size_give_what_the_session_gives(swapper: Any) -> None:
    captured = CapturedSession(swapper)
    captured.capture((1, 4))
    batches = [feeds(swapper, count, seed) for seed, count in enumerate((1, 3, 4, 2, 7, 1))]
    results = [captured.run(None, batch)[0] for batch in batches]
    # All are compared at the end: a later run must not overwrite an earlier result.
    for batch, result in zip(batches, results, strict=True):
        (expected,) = swapper.run(None, batch)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_padding_rows_are_zeros_and_not_faces_of_an_earlier_batch(swapper: Any) -> None:
    """Otherwise images of one request would remain beside those of another."""
    captured = CapturedSession(swapper)
    captured.capture((4,))
    captured.run(None, feeds(swapper, 4, 1))
    captured.run(None, feeds(swapper, 1, 2))
    (graph,) = captured._graphs.values()
    assert all((value.numpy()[1:] == 0).all() for value in graph.inputs.values())


def test_a_model_for_images_of_any_size_is_captured_once_its_size_is_fixed(tmp_path: Path) -> None:
    shape = [1, 3, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["picture", "two"], ["doubled"])],
        "detector",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(ValueError, match="no fixed shape"):
        CapturedSession(plain(tmp_path, model.SerializeToString())).capture((1, 2))
    captured = CapturedSession(plain(tmp_path, fix_shape(model, (1, 3, 8, 8))))
    captured.capture((1, 2))
    assert len(captured._graphs) == 1
    picture = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(captured.run(["doubled"], {"picture": picture})[0], 2 * picture)


def test_batches_that_a_graph_does_not_support_are_not_captured(tmp_path: Path) -> None:
    path = onnx_graphs.save(
        tmp_path / "one.onnx",
        [helper.make_node("Reshape", ["given", "shape"], ["result"])],
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["n", 4])],
        shape=np.array([1, 4], np.int64),
    )
    captured = CapturedSession(plain(path))
    captured.capture((1, 2, 4))
    assert len(captured._graphs) == 1
    assert batch_of(captured, path.name) == 1
    row = np.arange(4, dtype=np.float32)[None]
    np.testing.assert_array_equal(captured.run(None, {"given": row})[0], row)


def test_every_face_of_a_batch_gets_codeformers_weight(tmp_path: Path) -> None:
    """The graph is an export whose dimensions are all variable; the padding must reach no face."""
    shape = ["n", 3, 512, 512]
    path = onnx_graphs.save(
        tmp_path / "codeformer.onnx",
        [
            helper.make_node("Unsqueeze", ["weight", "axes"], ["weights"]),
            helper.make_node("Mul", ["picture", "zero"], ["black"]),
            helper.make_node("Add", ["black", "weights"], ["out"]),
        ],
        [
            helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        zero=np.zeros((), np.float32),
        axes=np.array([1, 2, 3], np.int64),
    )
    restorer = OnnxRestorer("codeformer", path, FaceSettings(device="cpu"), use_cuda=False)
    captured = CapturedSession(restorer._session)
    captured.capture((1, 4))
    restorer._session = captured
    restored = restorer.restore([np.zeros((512, 512, 3), np.uint8)] * 3, 1.0, lambda: None)
    assert [int(face.min()) for face in restored] == [255] * 3
