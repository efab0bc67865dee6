"""Replaces the faces in every frame of a video and keeps its sound."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from deployments.errors import RequestRefused
from serve.config import Limits
from serve.media.decode import open_source
from serve.media.source import Source, SourceLimits, TimedFrames
from serve.pipelines.context import ChunkStep, RequestContext
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.face_swap import FaceSwaps
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.requests import SwapVideo
from serve.pipelines.result import Result


class VideoSwapPipeline:
    """One path through the graph: decoder, then face swapper, then encoder; the stages overlap."""

    def __init__(self, faces: FaceSwaps, writers: VideoWriters, threads: MediaThreads, *, limits: Limits) -> None:
        self._faces = faces
        self._writers = writers
        self._threads = threads
        self._limits = SourceLimits(
            frames=limits.max_source_frames,
            seconds=limits.max_source_seconds,
            pixels=limits.max_source_pixels,
        )

    async def run(self, request: SwapVideo, context: RequestContext) -> Result:
        """Return the video with its faces replaced."""
        source = await self._open(request)
        swap = await self._faces.begin(request, request.face, context)
        async with self._writers.open("source", context, fps=source.fps, count=source.count, source=source) as writer:
            async with (
                aclosing(self._decode(source, context)) as decoded,
                aclosing(swap.chunks(decoded)) as swapped,
            ):
                async for chunk in swapped:
                    await writer.add(chunk)
            if request.require_face:
                swap.require_swapped("source")
            data, count = await writer.close()
        return Result(data, context.media_type, count, fps=source.fps, swap=swap.tally)

    async def _open(self, request: SwapVideo) -> Source:
        source = await self._threads.check("source", open_source, request.source, limits=self._limits)
        if request.rate is None:
            return source
        source = source.at_fps(request.rate)
        if source.count > self._limits.frames:
            raise RequestRefused(
                "fps", f"results in {source.count} frames; at most {self._limits.frames} are accepted: lower it"
            )
        return source

    async def _decode(self, source: Source, context: RequestContext) -> AsyncGenerator[TimedFrames, None]:
        """Yield the source's chunks, each decoded in a thread when it is asked for."""
        chunks = source.chunks()
        while (chunk := await self._threads.check("source", _next_chunk, chunks)) is not None:
            context.observe(ChunkStep("decoded", chunk.index))
            yield chunk


def _next_chunk(chunks: Iterator[TimedFrames]) -> TimedFrames | None:
    return next(chunks, None)
