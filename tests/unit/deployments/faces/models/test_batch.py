"""The number of faces at once, tried out on sessions that are functions over arrays."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.faces.models.batch import BATCH, batch_of

Rows = Any


class FakeSession:
    def __init__(self, function: Callable[[Rows], Rows], rows: int | str = "n", kind: str = "tensor(float)") -> None:
        self.function = function
        self.inputs = [SimpleNamespace(name="faces", shape=[rows, 3, 4, 4], type=kind)]
        self.batches: list[int] = []

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        self.batches.append(len(input_feed["faces"]))
        return [self.function(input_feed["faces"])]

    def get_inputs(self) -> Sequence[Any]:
        return self.inputs

    def get_outputs(self) -> Sequence[Any]:
        return []


def fails_with_two(rows: Rows) -> Rows:
    if len(rows) > 1:
        raise RuntimeError("cannot reshape")
    return rows


def test_a_graph_that_treats_rows_alike_takes_a_whole_batch() -> None:
    session = FakeSession(lambda rows: 2 * rows)
    assert batch_of(session, "alike.onnx") == BATCH
    assert session.batches == [1, 1, 2]


def test_pixels_are_tried_out_over_their_whole_range() -> None:
    seen: list[int] = []

    def watch(rows: Rows) -> Rows:
        assert rows.dtype == np.uint8
        seen.append(int(rows.max()))
        return rows

    assert batch_of(FakeSession(watch, kind="tensor(uint8)"), "pixels.onnx") == BATCH
    assert max(seen) > 200


def test_a_fixed_batch_is_not_tried_out() -> None:
    session = FakeSession(lambda rows: rows, rows=1)
    assert batch_of(session, "fixed.onnx") == 1
    assert session.batches == []


@pytest.mark.parametrize("function", [lambda rows: rows - rows.mean(axis=0), lambda rows: rows[:1], fails_with_two])
def test_a_graph_whose_rows_depend_on_each_other_takes_one_face(
    function: Callable[[Rows], Rows], caplog: pytest.LogCaptureFixture
) -> None:
    assert batch_of(FakeSession(function), "mixes.onnx") == 1
    assert "mixes.onnx: runs with one face at a time" in caplog.text
