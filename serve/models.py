"""The registry of models: one row per model, read by everything that lists models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One model of the service, with the name that each part of the system knows it by."""

    name: str
    """Its name in the API, for instance in `GET /readyz` and `POST /warm`."""
    setting: str
    """Its key in ``AppConfig``."""
    files: str
    """The key of its model files in ``AppConfig.models``."""
    deployment: str
    """The name of its Ray Serve deployment."""
    accelerator: str
    """Ray's accelerator type of the GPU that production runs it on."""


WAN26 = Model("wan26", "wan26", "wan26", "Wan26", "L40S")
WAN22_GGUF = Model("wan22-gguf", "wan22_gguf", "wan22_gguf", "Wan22GGUF", "A100-80G")
FACE_SWAPPER = Model("face-swapper", "face_swapper", "faces", "FaceSwapper", "L40S")

MODELS = (WAN26, WAN22_GGUF, FACE_SWAPPER)
"""Every model, in the order in which lists show them."""


def find_model(name: str) -> Model | None:
    """The model that the API knows by ``name``, or None."""
    return next((model for model in MODELS if model.name == name), None)
