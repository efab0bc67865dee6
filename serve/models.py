"""The registry of models: one row per model, read by everything that lists models."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of the service, with the name that each part of the system knows it by."""

    name: str
    """Its name in the API, for instance in `GET /readyz` and `POST /warm`."""
    setting: str
    """Its key in ``AppConfig``."""
    files: str
    """The key of its model files in ``AppConfig.models``."""
    defaults: str | None
    """The key of its request defaults in ``AppConfig``; None if it does not generate videos."""
    requires_prompt: bool = False
    """Whether a request must have a prompt, because the model can work from a prompt alone."""
    deployment: str
    """The name of its Ray Serve deployment."""
    accelerator: str
    """Ray's accelerator type of the GPU that production runs it on."""


WAN26 = Model(
    name="wan26",
    setting="wan26",
    files="wan26",
    defaults="wan26_defaults",
    requires_prompt=True,
    deployment="Wan26",
    accelerator="L40S",
)
WAN22_GGUF = Model(
    name="wan22-gguf",
    setting="wan22_gguf",
    files="wan22_gguf",
    defaults="wan22_defaults",
    deployment="Wan22GGUF",
    accelerator="A100-80G",
)
FACE_SWAPPER = Model(
    name="face-swapper",
    setting="face_swapper",
    files="faces",
    defaults=None,
    deployment="FaceSwapper",
    accelerator="L40S",
)

MODELS = (WAN26, WAN22_GGUF, FACE_SWAPPER)
"""Every model, in the order in which lists show them."""

VIDEO_MODELS = tuple(model for model in MODELS if model.defaults is not None)
"""The models that generate videos."""

INGRESS = "Ingress"
"""The name of the ingress's Ray Serve deployment."""
RUNNER = "Runner"
"""The name of the Ray Serve deployment that runs jobs."""


def find_model(name: str) -> Model | None:
    """Return the model that the API knows by ``name``, or None."""
    return next((model for model in MODELS if model.name == name), None)
