"""The text-to-video model inside a VACE model."""

import inspect
from typing import Any

from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel


def text_model(vace: Any) -> WanTransformer3DModel:
    """Return a ``WanTransformer3DModel`` that shares the weights of a VACE transformer.

    It returns what the VACE model returns at control scale 0, for less work: no control video is
    encoded and no control block runs.
    """
    parameters = inspect.signature(WanTransformer3DModel.__init__).parameters
    with init_empty_weights():
        model = WanTransformer3DModel(**{name: value for name, value in vace.config.items() if name in parameters})
    for name, _ in [*model.named_children()]:
        setattr(model, name, getattr(vace, name))
    model.scale_shift_table = vace.scale_shift_table
    return model.train(vace.training)
