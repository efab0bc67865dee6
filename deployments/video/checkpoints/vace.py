"""The text-to-video model that is inside every VACE model."""

import inspect
from typing import Any

from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel


def text_model(vace: Any) -> WanTransformer3DModel:
    """A ``WanTransformer3DModel`` over the very weights of a ``WanVACETransformer3DModel``, without its control blocks.

    It gives what the VACE model gives at control scale 0, for less work: no control video is encoded, no control block runs.
    """
    known = inspect.signature(WanTransformer3DModel.__init__).parameters
    with init_empty_weights():
        model = WanTransformer3DModel(**{name: value for name, value in vace.config.items() if name in known})
    for name, _ in [*model.named_children()]:
        setattr(model, name, getattr(vace, name))
    model.scale_shift_table = vace.scale_shift_table
    return model.train(vace.training)
