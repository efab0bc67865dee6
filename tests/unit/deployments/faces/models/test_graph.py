"""ONNX graphs are read, and their inputs and outputs changed, as the sessions need them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deployments.errors import CheckpointRefused
from deployments.faces.models.graph import fix_shape, open_batch, read_model, take_float32, take_pixels


def negation(shape: list[int | str], constant_input: bool = False) -> onnx.ModelProto:
    """Return a graph that multiplies an image by -1.

    ``constant_input`` also declares the factor as an input, as old exports do.
    """
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    if constant_input:
        inputs.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]))
    graph = helper.make_graph(
        nodes=[helper.make_node("Mul", ["image", "factor"], ["negative"])],
        name="negation",
        inputs=inputs,
        outputs=[helper.make_tensor_value_info("negative", TensorProto.FLOAT, shape)],
        initializer=[numpy_helper.from_array(np.array([-1], np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: bytes, images: npt.NDArray[Any]) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_a_graph_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "negation.onnx"
    onnx.save(negation([1, 3, 4, 4]), path)
    assert read_model(path).graph.name == "negation"


def test_a_missing_file_and_one_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "negation.onnx"
    with pytest.raises(CheckpointRefused, match="no such file"):
        read_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointRefused, match="not an ONNX file, or a truncated one"):
        read_model(path)


@pytest.mark.parametrize("given", [["n", 3, "height", "width"], [2, 3, 8, "width"], [2, 3, 8, 6]])
def test_a_fixed_shape_is_that_of_the_first_input_and_of_all_that_is_named_like_it(given: list[int | str]) -> None:
    fixed = fix_shape(negation(given), (2, 3, 8, 6))
    session = onnxruntime.InferenceSession(fixed, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == session.get_outputs()[0].shape == [2, 3, 8, 6]
    images = np.random.default_rng(3).random((2, 3, 8, 6), np.float32)
    np.testing.assert_array_equal(run(fixed, images), -images)


@pytest.mark.parametrize("given", [[1, 3, "height", "width"], ["n", 3, "height"]])
def test_a_shape_that_a_graph_cannot_have_is_refused(given: list[int | str]) -> None:
    with pytest.raises(ValueError, match=r"^the first input has the shape .*, and cannot have \(2, 3, 8, 6\)$"):
        fix_shape(negation(given), (2, 3, 8, 6))


def test_an_open_batch_takes_any_number_of_images_and_leaves_constants_alone() -> None:
    model = negation([1, 3, 2, 2], constant_input=True)
    images = np.random.default_rng(0).random((3, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(run(open_batch(model), images), -images)
    factor = model.graph.input[1].type.tensor_type.shape.dim[0]
    assert (factor.dim_value, factor.dim_param) == (1, "")


def test_a_graph_of_float16_takes_and_returns_float32_and_others_stay() -> None:
    model = negation([1, 3, 2, 2], constant_input=True)
    before = model.SerializeToString()
    assert take_float32(model).SerializeToString() == before
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([-1], np.float16), "factor"))
    images = np.random.default_rng(0).random((1, 3, 2, 2), np.float32)
    result = run(take_float32(model).SerializeToString(), images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, -images, atol=1e-3)


def test_a_graph_that_takes_pixels_rounds_and_clips_its_result() -> None:
    """Pixels 0 to 255 are -1 to 1 in the graph; its result is rounded, as the host rounds it."""
    model = take_pixels(negation(["n", 3, 2, 4]))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 3), dtype=np.uint8)
    result = run(model, pixels)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, 255 - pixels)


def test_results_beyond_white_and_black_are_clipped() -> None:
    model = negation([1, 3, 1, 1])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([-3], np.float32), "factor"))
    taken = take_pixels(model)
    for value, expected in ((0, 255), (255, 0)):
        np.testing.assert_array_equal(run(taken, np.full((1, 1, 1, 3), value, np.uint8)), expected)
