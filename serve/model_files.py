"""Where the files of the video models are.

Those of the faces are not here: the demo's are prepared by code that needs a library for models,
which the ingress does not load.
"""

import json
from pathlib import Path

from demo.checkpoints import wan22_models, wan26_models
from deployments.settings import Wan22Models, Wan26Models
from serve.config import AppConfig
from serve.models import VIDEO_MODELS, WAN22_GGUF, WAN26, Model


def video_model_files(config: AppConfig) -> dict[Model, Wan26Models | Wan22Models]:
    """Return where the files of each video model are: those of the demo, or as configured."""
    if config.models == "demo":
        return {WAN26: wan26_models(), WAN22_GGUF: wan22_models()}
    return {model: getattr(config.models, model.files) for model in VIDEO_MODELS}


def transformer_counts(files: Wan26Models | Wan22Models) -> frozenset[int]:
    """Return how many transformers the checkpoints of a video model have, 1 or 2 each.

    A checkpoint that this process cannot read may have either number.
    """
    if isinstance(files, Wan22Models):
        return frozenset({2})
    checkpoints = [(files.text, files.text_weights_low_noise), (files.image, files.image_weights_low_noise)]
    counts = [
        {2} if low_noise is not None else _transformer_counts(Path(folder))
        for folder, low_noise in checkpoints
        if folder is not None
    ]
    return frozenset().union(*counts)


def _transformer_counts(folder: Path) -> set[int]:
    try:
        second = json.loads((folder / "model_index.json").read_bytes()).get("transformer_2")
        return {2} if second is not None and any(part is not None for part in second) else {1}
    except (OSError, ValueError, TypeError, AttributeError):
        return {1, 2}
