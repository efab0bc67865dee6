"""The queues in which jobs wait: jobs of one slot wait for the same replicas."""

from collections.abc import Mapping

from serve.models import VIDEO_MODELS
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage

IMAGE_SWAP, FILM_SWAP = "image-swap", "film-swap"
SLOTS = (*(model.name for model in VIDEO_MODELS), IMAGE_SWAP, FILM_SWAP)
"""All slots. Images have one of their own, so that they do not wait behind films."""


def slot_of(request: PipelineRequest, model: str) -> str:
    """Return the slot of a request whose first model is ``model``."""
    if isinstance(request, GenerateVideo):
        return model
    return IMAGE_SWAP if isinstance(request, SwapImage) else FILM_SWAP


def sizes(max_running: Mapping[str, int]) -> dict[str, int]:
    """Return how many jobs of each slot run at a time, as ``max_running`` has it."""
    return {slot: max_running[slot] for slot in SLOTS}
