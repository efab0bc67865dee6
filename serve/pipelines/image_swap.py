"""Replaces the face in an image."""

from deployments.errors import RequestRefused
from serve.config import Limits
from serve.media.images import encode_image
from serve.pipelines.context import RequestContext
from serve.pipelines.face_swap import FaceSwaps
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.meter import Stopwatch
from serve.pipelines.requests import SwapImage
from serve.pipelines.result import Result


class ImageSwapPipeline:
    """One path through the graph: decode, swap and encode a single image."""

    def __init__(self, faces: FaceSwaps, threads: MediaThreads, limits: Limits) -> None:
        self._faces = faces
        self._threads = threads
        self._limits = limits

    async def run(self, request: SwapImage, context: RequestContext) -> Result:
        """Return the image with its face replaced; raise RequestRefused if no face was."""
        image = await self._threads.decode_image("source", request.source, self._limits.max_image_pixels)
        swap = await self._faces.begin(request, request.face, context)
        frames = await swap.image(image[None])
        if not swap.tally.swapped:
            raise _no_face_swapped(request, swap.tally.most_faces)
        with Stopwatch() as watch:
            data = await self._threads.check("source", encode_image, frames[0], media_type=context.media_type)
        context.meter.add_phase("encode", watch.seconds)
        return Result(data, context.media_type, 1, swap=swap.tally)


def _no_face_swapped(request: SwapImage, found: int) -> RequestRefused:
    """Return the error for an image in which none of the ``found`` faces was replaced."""
    if not found:
        return RequestRefused("source", "no face was found; send an image that shows one")
    if request.target_face is not None:
        return RequestRefused(
            "target_face", f"none of the {found} faces in the image is this person; send another image of them"
        )
    return RequestRefused("face_index", f"the image shows {found} faces, numbered from the left: 0 to {found - 1}")
