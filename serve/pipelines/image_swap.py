"""Replaces the face in an image."""

from fractions import Fraction

from deployments.errors import RequestRefused
from deployments.wire import Frames
from serve.media.images import encode_image
from serve.pipelines.context import RequestContext
from serve.pipelines.decoder import Decoder, Picture
from serve.pipelines.face_swap import FaceSwaps, person_pictures
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.meter import Stopwatch
from serve.pipelines.requests import SwapImage
from serve.pipelines.result import Result, SwapTally
from serve.provenance.visible_label import VisibleLabel

_COPIES = 4
"""The source, the result, and the result as Pillow holds it, with 4 bytes a pixel."""


class ImageSwapPipeline:
    """One path through the graph: decode, swap and encode a single image."""

    def __init__(self, faces: FaceSwaps, threads: MediaThreads, decoder: Decoder) -> None:
        self._faces = faces
        self._threads = threads
        self._decoder = decoder

    async def run(self, request: SwapImage, context: RequestContext) -> Result:
        """Return the image with its face replaced; raise RequestRefused if no face was."""
        source = Picture("source", request.source, copies=_COPIES)
        pictures = [source, *person_pictures(request, request.face)]
        async with self._decoder.pictures(pictures, context.caller) as decoded:
            swap = await self._faces.begin(request, decoded, context)
            frames = await swap.image(decoded.of("source")[0][None])
            if not swap.tally.swapped:
                raise _no_face_swapped(request, swap.tally)
            with Stopwatch() as watch:
                data = await self._threads.check("source", _encode, frames, context)
        context.meter.add_phase("encode", watch.seconds)
        return Result(data, context.media_type, 1, swap=swap.tally)


def _encode(frames: Frames, context: RequestContext) -> bytes:
    """Return the file of the only frame, with its label and its mark."""
    if context.labelled:
        frames = VisibleLabel().draw(frames, (Fraction(0),))
    if context.new_mark is not None:
        frames = context.new_mark().mark(frames)
    return encode_image(frames[0], media_type=context.media_type)


def _no_face_swapped(request: SwapImage, tally: SwapTally) -> RequestRefused:
    """Return the error for an image in which none of the faces that were found was replaced."""
    found = tally.most_faces - tally.uncertain
    if tally.uncertain and not found:
        return RequestRefused(
            "source", "the features of the face cannot be told apart; send an image in which it is sharper or less turned away"
        )
    if not found:
        return RequestRefused("source", "no face was found; send an image that shows one")
    if request.faces == "map":
        field = "pairs" if request.pairs is not None else "target_face"
        return RequestRefused(
            field, f"none of the {found} faces in the image is one of these people; send other images of them"
        )
    if request.target_face is not None:
        shown = "the image does not show" if found == 1 else f"none of the {found} faces in the image is"
        return RequestRefused("target_face", f"{shown} this person; send another image of them")
    if found == 1:
        return RequestRefused("face_index", "the image shows one face; its index is 0")
    return RequestRefused("face_index", f"the image shows {found} faces, numbered from the left: 0 to {found - 1}")
