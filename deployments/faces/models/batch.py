"""The number of faces that a graph can process at once, tried out when a model is opened."""

import logging
from typing import Any

import numpy as np

from deployments.faces.models.cuda_graph import NUMPY_TYPES, Session

BATCH = 16
"""The largest batch: on an H200, 16 faces together take 0.8 ms each, a single one 2.6 ms
(inswapper)."""
SIZES = (1, 2, 4, 8, BATCH)
"""The batch sizes that CUDA graphs are captured for; other batches are padded to the next size."""
_TOLERANCE = 0.01
"""The mean relative difference that is allowed between a row in a batch and the same row alone.

It is not 0, since the arithmetic depends on the shape.
"""
_log = logging.getLogger(__name__)


def batch_of(session: Session, name: str) -> int:
    """Return ``BATCH`` if the graph gives the same result for a face in a batch as alone, else 1.

    It is also 1 if the graph's first dimension is fixed or if it fails with two rows. The graph's
    other dimensions must be fixed. ``name`` is for the log.
    """
    inputs = session.get_inputs()
    if all(not value.shape or isinstance(value.shape[0], int) for value in inputs):
        return 1
    random = np.random.default_rng(0)
    both: dict[str, Any] = {}
    for value in inputs:
        variable = value.shape and not isinstance(value.shape[0], int)
        noise = random.random((2, *value.shape[1:]) if variable else value.shape)
        both[value.name] = (noise * (255 if NUMPY_TYPES[value.type] == np.uint8 else 1)).astype(NUMPY_TYPES[value.type])
    batched = {value.name for value in inputs if both[value.name].shape != tuple(value.shape)}
    alone = [
        session.run(None, {key: rows[i : i + 1] if key in batched else rows for key, rows in both.items()})[0] for i in range(2)
    ]
    try:
        together = session.run(None, both)[0]
    except Exception as e:  # onnxruntime raises one type per status code
        _log.warning("%s: runs with one face at a time, though its first dimension is variable: %s", name, e)
        return 1
    expected = np.concatenate(alone).astype(np.float32)
    if together.shape != expected.shape or np.abs(together - expected).mean() > _TOLERANCE * np.abs(expected).mean():
        _log.warning("%s: runs with one face at a time, since the results of a batch of two differ", name)
        return 1
    return BATCH
