"""Where the files of the video models are.

Those of the faces are not here: the demo's are prepared by code that needs a library for models,
which the ingress does not load.
"""

from demo.checkpoints import wan22_models, wan26_models
from deployments.settings import Wan22Models, Wan26Models
from serve.config import AppConfig
from serve.models import VIDEO_MODELS, WAN22_GGUF, WAN26, Model


def video_model_files(config: AppConfig) -> dict[Model, Wan26Models | Wan22Models]:
    """Return where the files of each video model are: those of the demo, or as configured."""
    if config.models == "demo":
        return {WAN26: wan26_models(), WAN22_GGUF: wan22_models()}
    return {model: getattr(config.models, model.files) for model in VIDEO_MODELS}
