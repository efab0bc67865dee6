"""Replaces the faces in every frame of a video and keeps its sound."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from serve.media.decode.source import TimedFrames
from serve.pipelines.context import ChunkStep, FrameCount, RequestContext
from serve.pipelines.decoder import Decoder
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.face_swap import FaceSwaps, person_pictures
from serve.pipelines.requests import SwapVideo
from serve.pipelines.result import Result
from serve.pipelines.source_reader import SourceReader, SourceReaders


class VideoSwapPipeline:
    """One path through the graph: decoder, then face swapper, then encoder; the stages overlap."""

    def __init__(self, faces: FaceSwaps, writers: VideoWriters, decoder: Decoder, readers: SourceReaders) -> None:
        self._faces = faces
        self._writers = writers
        self._decoder = decoder
        self._readers = readers

    async def run(self, request: SwapVideo, context: RequestContext) -> Result:
        """Return the video with its faces replaced."""
        sound = context.media_type == "video/mp4"  # the other formats have none
        async with self._readers.open("source", request.source, context.caller, rate=request.rate, sound=sound) as source:
            context.observe(FrameCount(source.count))
            # One reservation for frames and pictures: who holds one while waiting for the other
            # may wait for somebody who does the same.
            frames_bytes = source.claim_bytes(self._faces.held_chunks + 2)
            pictures = person_pictures(request, request.face)
            async with self._decoder.pictures(pictures, context.caller, beside_bytes=frames_bytes) as decoded:
                swap = await self._faces.begin(request, decoded, context)
                decoded.drop()
                async with self._writers.open(
                    "source", context, fps=source.fps, count=source.count, source=source, marked_once_changed=True
                ) as writer:
                    async with (
                        aclosing(_decode(source, context)) as chunks,
                        aclosing(swap.chunks(chunks)) as swapped,
                    ):
                        async for chunk in swapped:
                            await writer.add(chunk)
                    if request.require_face:
                        swap.require_swapped("source")
                    data, count = await writer.close()
                return Result(data, context.media_type, count, fps=source.fps, swap=swap.tally, damaged=source.damaged)


async def _decode(source: SourceReader, context: RequestContext) -> AsyncGenerator[TimedFrames, None]:
    """Yield the source's chunks, each decoded when it is asked for."""
    async with aclosing(source.chunks()) as chunks:
        async for chunk in chunks:
            context.observe(ChunkStep("decoded", chunk.index))
            yield chunk
