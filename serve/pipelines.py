"""How deployments compose: a request in, media out. Frames stream; nothing here waits for a whole video but the file's end.

Fields are called by our names here (``image``, ``face``, ``source``); the ingress puts those that the caller used into a problem.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Literal, TypeVar

from deployments.wire import FrameChunk, Frames, Image, Progress, Reference, SwapOptions, SwappedChunk, VideoRequest
from serve.config import Ingress, Limits
from serve.errors import FieldError, Problem, invalid
from serve.graph import Graph
from serve.media.decode import Source, SourceLimits, open_source
from serve.media.encode import Encoder, Mp4Encoder, WebpEncoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import cover, decode_image, encode_image
from serve.meter import Meter, Stopwatch
from serve.ordered import map_ordered
from serve.schemas import ImageSwapBody, SwapFields, VideoBody, VideoSwapBody

T = TypeVar("T")


@dataclass(frozen=True)
class ChunkStep:
    """Something happened to the chunk whose first frame is ``index``."""

    kind: Literal["decoded", "swap-started", "swapped", "encoded"]
    index: int


Observer = Callable[[Progress | ChunkStep], None]


@dataclass
class SwapTally:
    """What a swap found and did, over all frames."""

    frames: int = 0
    swapped: int = 0
    most_faces: int = 0
    engine: str = ""
    restorer: str = "none"

    def add(self, chunk: SwappedChunk) -> None:
        """Counts one chunk."""
        self.frames += len(chunk.faces)
        self.swapped += sum(chunk.swapped)
        self.most_faces = max(self.most_faces, *chunk.faces)
        self.engine = chunk.engine
        if chunk.restorer != "none":
            self.restorer = chunk.restorer


@dataclass
class Outcome:
    """A finished request."""

    data: bytes
    media_type: str
    frames: int
    fps: Fraction | None
    seed: int | None
    swap: SwapTally | None
    attempts: int = field(default=1)


class Pipelines:
    """The three ways through the graph. One object serves all requests of an ingress replica."""

    def __init__(self, graph: Graph, settings: Ingress, limits: Limits) -> None:
        self._graph = graph
        self._settings = settings
        self._limits = limits
        self._threads = ThreadPoolExecutor(settings.encoder_threads, thread_name_prefix="media")

    async def generate(
        self, model: str, body: VideoBody, seed: int, media_type: str, meter: Meter, observe: Observer
    ) -> Outcome:
        """A video from a text or a picture; with a face swapped in, if ``body`` has one."""
        # Everything that can be refused is, before any GPU works.
        image = None if body.image is None else await self._picture(body.image, "image")
        reference = None if body.face is None else await self._reference(body.face, meter)
        if image is not None:
            image = await self._in_thread(cover, image, body.width, body.height)
        request = VideoRequest(
            body.prompt, body.negative_prompt, body.width, body.height, body.frames, body.steps, body.cfg, seed, image
        )
        fps = body.rate
        tally = SwapTally()
        async with self._encoder("image", media_type, fps, meter) as encoder:
            async with self._graph.video(model, request, meter, observe) as video, aclosing(video.chunks) as chunks:
                made = self._decoded(chunks, observe)
                if reference is None:
                    finished: AsyncGenerator[FrameChunk | SwappedChunk, None] = made
                else:
                    finished = self._swapped(made, reference, _options(body), tally, meter, observe)
                async with aclosing(finished):
                    async for chunk in finished:
                        await encoder.add(chunk.frames, tuple((chunk.index + i) / fps for i in range(len(chunk.frames))))
                        observe(ChunkStep("encoded", chunk.index))
                        video.done_with_one()
            self._require_face(tally, body.require_face and reference is not None, "image")
            data, count = await encoder.close()
        return Outcome(data, media_type, count, fps, seed, tally if reference is not None else None)

    async def swap_image(self, body: ImageSwapBody, media_type: str, meter: Meter, observe: Observer) -> Outcome:
        """A picture with its face replaced."""
        image = await self._picture(body.source, "source")
        reference = await self._reference(body.face, meter)
        options = _options(body)
        chunk: SwappedChunk = await self._graph.call(
            "face-swapper", "swap_image", image, reference, options, "source", meter=meter
        )
        tally = SwapTally()
        tally.add(chunk)
        meter.phase("swap", chunk.seconds)
        with Stopwatch() as watch:
            data = await self._checked("source", encode_image, chunk.frames[0], media_type)
        meter.phase("encode", watch.seconds)
        return Outcome(data, media_type, 1, None, None, tally)

    async def swap_video(self, body: VideoSwapBody, media_type: str, meter: Meter, observe: Observer) -> Outcome:
        """A video with the face in each frame replaced; its audio is kept."""
        limits = SourceLimits(self._limits.max_source_frames, self._limits.max_source_seconds, self._limits.max_source_pixels)
        source = await self._checked("source", open_source, body.source, limits)
        if body.rate is not None:
            source = source.at(body.rate)
            if source.count > limits.frames:
                raise invalid("fps", f"makes {source.count} frames; at most {limits.frames} are accepted: lower it")
        reference = await self._reference(body.face, meter)
        tally = SwapTally()
        times: dict[int, tuple[Fraction, ...]] = {}
        async with self._encoder("source", media_type, source.fps, meter, source.audio) as encoder:
            frames = self._frames(source, times, observe)
            async with aclosing(self._swapped(frames, reference, _options(body), tally, meter, observe)) as swapped:
                async for chunk in swapped:
                    await encoder.add(chunk.frames, times.pop(chunk.index))
                    observe(ChunkStep("encoded", chunk.index))
            self._require_face(tally, body.require_face, "source")
            data, count = await encoder.close()
        return Outcome(data, media_type, count, source.fps, None, tally)

    async def _frames(
        self, source: Source, times: dict[int, tuple[Fraction, ...]], observe: Observer
    ) -> AsyncGenerator[FrameChunk, None]:
        """The source's chunks, decoded in a thread as they are asked for; their time stamps go to ``times``."""
        chunks = source.chunks()
        index = 0
        while (timed := await self._checked("source", next, chunks, None)) is not None:
            times[index] = timed.times
            observe(ChunkStep("decoded", index))
            yield FrameChunk(index, timed.frames)
            index += len(timed.frames)

    async def _decoded(self, chunks: AsyncIterator[FrameChunk], observe: Observer) -> AsyncGenerator[FrameChunk, None]:
        async for chunk in chunks:
            observe(ChunkStep("decoded", chunk.index))
            yield chunk

    async def _swapped(
        self,
        chunks: AsyncIterator[FrameChunk],
        reference: Reference,
        options: SwapOptions,
        tally: SwapTally,
        meter: Meter,
        observe: Observer,
    ) -> AsyncGenerator[SwappedChunk, None]:
        async def swap(chunk: FrameChunk) -> SwappedChunk:
            observe(ChunkStep("swap-started", chunk.index))
            swapped: SwappedChunk = await self._graph.call(
                "face-swapper", "swap", chunk, reference, options, meter=meter, waits=False
            )
            observe(ChunkStep("swapped", chunk.index))
            return swapped

        async with aclosing(map_ordered(chunks, swap, self._settings.swap_ahead)) as ordered:
            async for chunk in ordered:
                tally.add(chunk)
                meter.phase("swap", chunk.seconds)
                yield chunk

    async def _picture(self, data: bytes, name: str) -> Image:
        return await self._checked(name, decode_image, data, self._limits.max_image_pixels)

    async def _reference(self, data: bytes, meter: Meter) -> Reference:
        image = await self._picture(data, "face")
        reference: Reference = await self._graph.call("face-swapper", "identify", image, "face", meter=meter)
        return reference

    @asynccontextmanager
    async def _encoder(
        self, name: str, media_type: str, fps: Fraction, meter: Meter, audio: bytes | None = None
    ) -> AsyncIterator["_ThreadEncoder"]:
        """An encoder whose work is done in a thread; leaving the block frees it, once that thread is done with it."""
        if media_type == "video/mp4":
            encoder: Encoder = Mp4Encoder(fps, self._settings.h264_preset, self._settings.h264_crf, audio)
        else:
            encoder = WebpEncoder(fps, self._settings.webp_method)
        threaded = _ThreadEncoder(encoder, partial(self._checked, name), meter)
        try:
            yield threaded
        finally:
            await threaded.discard()

    def _require_face(self, tally: SwapTally, required: bool, name: str) -> None:
        if required and tally.swapped == 0:
            raise invalid(name, "no frame of the video shows a face, and `require_face` is true")

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args))

    async def _checked(self, name: str, function: Callable[..., T], *args: object) -> T:
        """Runs media code in a thread; what is wrong with the file becomes a problem that names the field."""
        try:
            return await self._in_thread(function, *args)
        except MediaTooLarge as e:
            raise Problem(413, "media-too-large", f"`{name}`: {e}", errors=[FieldError(name, str(e))]) from None
        except MediaError as e:
            raise invalid(name, str(e)) from None


class _ThreadEncoder:
    """An encoder for the event loop: one call at a time, each in a thread."""

    def __init__(self, encoder: Encoder, in_thread: Callable[..., Awaitable[Any]], meter: Meter) -> None:
        self._encoder = encoder
        self._in_thread = in_thread
        self._meter = meter
        self._call: asyncio.Future[Any] | None = None

    async def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """See Encoder."""
        await self._run(self._encoder.add, frames, times)

    async def close(self) -> tuple[bytes, int]:
        """The file, and how many frames it has."""
        data: bytes = await self._run(self._encoder.close)
        return data, self._encoder.frames

    async def discard(self) -> None:
        """See Encoder. A call that was cancelled is still running in its thread: it is waited for."""
        if self._call is not None:
            await asyncio.wait({self._call})
        self._encoder.discard()

    async def _run(self, function: Callable[..., Any], *args: object) -> Any:
        with Stopwatch() as watch:
            self._call = asyncio.ensure_future(self._in_thread(function, *args))
            result = await asyncio.shield(self._call)
        self._meter.phase("encode", watch.seconds)
        return result


def _options(body: SwapFields) -> SwapOptions:
    return SwapOptions(body.restore_face, body.face_restore_visibility, body.codeformer_weight)
