"""How many faces go through a graph at once: as many as its file allows, which is tried when it is opened."""

import logging
from typing import Any

import numpy as np
import onnx

from deployments.faces.cuda_graph import TYPES, Session

BATCH = 16
"""Most faces at once: on an H200, 16 together take 0.8 ms each, one alone 2.6 ms (inswapper's shapes)."""
SIZES = (1, 2, 4, 8, BATCH)
"""Batches that CUDA graphs are captured for; others are filled up to the next."""
_TOLERANCE = 0.01
"""Most that a row's results may differ, on average, between a batch and alone, as a share of them: arithmetic differs with the shape."""
_log = logging.getLogger(__name__)


def let_batch(model: onnx.ModelProto) -> bytes:
    """The model with its first dimension left open, as bytes: published graphs declare a batch of 1 that nothing in them may need."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in constants and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    return bytes(model.SerializeToString())


def batch_of(session: Session, name: str) -> int:
    """``BATCH``, or 1 where a graph has that fixed, fails with two rows, or makes something else of a row in company than alone.

    The graph's other dimensions must be fixed. ``name`` is for the log.
    """
    inputs = session.get_inputs()
    if isinstance(inputs[0].shape[0], int):
        return 1
    random = np.random.default_rng(0)
    both: dict[str, Any] = {}
    for value in inputs:
        open_ = value.shape and not isinstance(value.shape[0], int)
        noise = random.random((2, *value.shape[1:]) if open_ else value.shape)
        both[value.name] = (noise * (255 if TYPES[value.type] == np.uint8 else 1)).astype(TYPES[value.type])
    batched = {value.name for value in inputs if both[value.name].shape != tuple(value.shape)}
    alone = [
        session.run(None, {key: rows[i : i + 1] if key in batched else rows for key, rows in both.items()})[0] for i in range(2)
    ]
    try:
        together = session.run(None, both)[0]
    except Exception as e:  # onnxruntime raises types of its own, one a status code
        _log.warning("%s: takes one face at a time, though its first dimension is open: %s", name, e)
        return 1
    expected = np.concatenate(alone).astype(np.float32)
    if together.shape != expected.shape or np.abs(together - expected).mean() > _TOLERANCE * np.abs(expected).mean():
        _log.warning("%s: takes one face at a time: in a batch of two it makes something else of them", name)
        return 1
    return BATCH
