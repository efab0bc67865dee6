"""The types that cross between replicas."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from deployments import wire
from deployments.wire import Choice, Face, Finished, FrameChunk, Progress, SwapOptions, VideoRequest


def face(left: float, top: float, right: float, bottom: float) -> Face:
    box = np.asarray([left, top, right, bottom], np.float32)
    return Face(box=box, landmarks=np.zeros((5, 2), np.float32), score=0.9, embedding=np.asarray([1.0, 0.0], np.float32))


@pytest.mark.parametrize(
    ("box", "area"), [((10, 20, 30, 50), 600.0), ((-5, 0, 5, 10), 100.0), ((30, 20, 10, 50), 0.0), ((10, 50, 30, 20), 0.0)]
)
def test_the_area_of_a_face_is_never_negative(box: tuple[float, float, float, float], area: float) -> None:
    assert face(*box).area == area


def test_arrays_and_values_survive_pickling() -> None:
    chunk = FrameChunk(4, np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3))
    copy = pickle.loads(pickle.dumps(chunk))
    assert copy.index == 4
    np.testing.assert_array_equal(copy.frames, chunk.frames)
    for event in (
        Progress("denoise", 3, 12),
        Finished({"denoise": 1.5}, "cache; reused=40%"),
        Choice("index", 2),
        SwapOptions(),
    ):
        assert pickle.loads(pickle.dumps(event)) == event


def test_the_types_are_immutable() -> None:
    types: list[Any] = [t for t in vars(wire).values() if dataclasses.is_dataclass(t) and isinstance(t, type)]
    assert len(types) == 11
    assert all(t.__dataclass_params__.frozen for t in types)


def test_a_request_is_exact_and_without_an_image_by_default() -> None:
    request = VideoRequest("a cat", "", width=64, height=64, num_frames=5, steps=2, cfg=4.0, seed=1)
    assert (request.image, request.acceleration) == (None, "none")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.seed = 2  # type: ignore[misc]
