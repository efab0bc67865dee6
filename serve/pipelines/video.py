"""Generates a video from a prompt or an image, with a face swapped in if the request sends one."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from fractions import Fraction

from deployments.wire import FrameChunk, Image, LoraChoice, VideoRequest
from serve.media.decode.source import TimedFrames
from serve.media.images import cover
from serve.pipelines.context import ChunkStep, RequestContext
from serve.pipelines.decoder import Decoder, Picture
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.face_swap import FaceSwap, FaceSwaps, person_pictures
from serve.pipelines.given_frames import GivenFrames
from serve.pipelines.handles import VideoHandle
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.requests import GenerateVideo
from serve.pipelines.result import Result

_COPIES = 4
"""The decoded image and Pillow's copy of it, with 4 bytes a pixel and room to scale it."""


class VideoPipeline:
    """One path through the graph: video model, then face swapper, then encoder.

    The stages overlap: a chunk is swapped and encoded while the next one is being decoded.
    """

    def __init__(
        self, faces: FaceSwaps, writers: VideoWriters, threads: MediaThreads, decoder: Decoder, given: GivenFrames
    ) -> None:
        self._faces = faces
        self._writers = writers
        self._threads = threads
        self._decoder = decoder
        self._given = given

    async def run(self, model: VideoHandle, request: GenerateVideo, context: RequestContext) -> Result:
        """Return the video. Everything that can be refused is refused before a GPU works."""
        given = await self._given.read(request, context.caller)
        first, last, swap = await self._read_pictures(request, context)
        asked = VideoRequest(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.width,
            height=request.height,
            num_frames=request.frames,
            steps=request.steps,
            cfg=request.cfg,
            seed=context.seed,
            image=first,
            last_image=last,
            lead=given if request.extend else None,
            source=None if request.extend else given,
            acceleration=request.acceleration,
            cache_every=request.cache_every,
            guidance_until=request.guidance_until,
            strength=request.strength,
            loras=tuple(LoraChoice(name, scale) for name, scale in request.loras),
        )
        held_chunks = 0 if swap is None else swap.held_chunks
        async with self._writers.open("image", context, fps=request.rate, count=request.frames) as writer:
            # Denoising and decoding: the model yields chunks as it decodes them.
            async with (
                model.generate(asked, context, held_chunks) as video,
                aclosing(video.chunks) as decoded,
                aclosing(_with_times(decoded, request.rate, context)) as timed,
                aclosing(timed if swap is None else swap.chunks(timed)) as finished,
            ):
                async for chunk in finished:
                    await writer.add(chunk)
                    video.release()
            if swap is not None and request.require_face:
                swap.require_swapped("image")
            data, count = await writer.close()
        return Result(
            data,
            context.media_type,
            count,
            fps=request.rate,
            seed=context.seed,
            swap=None if swap is None else swap.tally,
            adjusted=request.adjusted,
        )

    async def _read_pictures(
        self, request: GenerateVideo, context: RequestContext
    ) -> tuple[Image | None, Image | None, FaceSwap | None]:
        """Return the first and the last frame, cropped to the video's size, and the face swap."""
        frames = {"image": request.image, "last_image": request.last_image}
        pictures = [Picture(field, data, copies=_COPIES) for field, data in frames.items() if data is not None]
        if request.face is not None:
            pictures += person_pictures(request, request.face)
        if not pictures:
            return None, None, None
        async with self._decoder.pictures(pictures, context.caller) as decoded:
            swap = None if request.face is None else await self._faces.begin(request, decoded, context)
            first, last = [
                None
                if data is None
                else await self._threads.run(cover, decoded.of(field)[0], width=request.width, height=request.height)
                for field, data in frames.items()
            ]
            return first, last, swap


async def _with_times(
    chunks: AsyncIterator[FrameChunk], fps: Fraction, context: RequestContext
) -> AsyncGenerator[TimedFrames, None]:
    """Give each frame the time at which it is shown."""
    async for chunk in chunks:
        context.observe(ChunkStep("decoded", chunk.index, chunk.frames[-1]))
        times = tuple((chunk.index + i) / fps for i in range(len(chunk.frames)))
        yield TimedFrames(chunk.index, chunk.frames, times)
