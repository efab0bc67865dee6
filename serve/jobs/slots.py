"""The queues in which jobs wait: jobs of one slot wait for the same replicas."""

from serve.models import FACE_SWAPPER
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage

IMAGE_SWAP, FILM_SWAP = "image-swap", "film-swap"
"""The slots of swaps. Images have one of their own, so that they do not wait behind films."""


def slot_of(request: PipelineRequest, model: str) -> str:
    """Return the slot of a request whose first model has the API name ``model``."""
    if isinstance(request, GenerateVideo):
        return model
    return IMAGE_SWAP if isinstance(request, SwapImage) else FILM_SWAP


def model_of(slot: str) -> str:
    """Return the API name of the first model of the jobs of a slot."""
    return FACE_SWAPPER.name if slot in (IMAGE_SWAP, FILM_SWAP) else slot
