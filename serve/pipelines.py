"""How deployments compose: a request in, media out. Frames stream; nothing here waits for a whole video but the file's end.

Fields are called by our names here (``image``, ``face``, ``source``); the ingress puts those that the caller used into a problem.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from deployments.wire import Choice, FrameChunk, Frames, Image, Reference, SwapOptions, VideoRequest
from serve.config import Ingress, Limits
from serve.errors import FieldError, Problem, invalid
from serve.face_swap import ChunkStep, FaceSwap, Observer, SwapTally
from serve.graph import Graph
from serve.media.decode import Source, SourceLimits, TimedFrames, open_source
from serve.media.encode import Encoder, Mp4Encoder, WebpEncoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import cover, decode_image, encode_image
from serve.media.spool import Media
from serve.meter import Meter, Stopwatch
from serve.schemas import ImageSwapBody, SwapFields, VideoBody, VideoSwapBody

T = TypeVar("T")


@dataclass
class Outcome:
    """A finished request."""

    data: Media
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
        swap = None if body.face is None else await self._swap(body, body.face, meter, observe)
        if image is not None:
            image = await self._in_thread(cover, image, body.width, body.height)
        request = VideoRequest(
            *(body.prompt, body.negative_prompt, body.width, body.height, body.frames, body.steps, body.cfg, seed),
            image=image,
            acceleration=body.acceleration,
        )
        fps = body.rate
        held = 0 if swap is None else swap.held
        async with self._encoder("image", media_type, fps, body.frames, meter) as encoder:
            async with self._graph.video(model, request, meter, observe, held) as video, aclosing(video.chunks) as chunks:
                made = self._decoded(chunks, fps, observe)
                async with aclosing(made if swap is None else swap.chunks(made)) as finished:
                    async for chunk in finished:
                        await encoder.add(chunk.frames, chunk.times)
                        observe(ChunkStep("encoded", chunk.index))
                        video.done_with_one()
            self._require_face(swap, body.require_face, "image")
            data, count = await encoder.close()
        return Outcome(data, media_type, count, fps, seed, None if swap is None else swap.tally)

    async def swap_image(self, body: ImageSwapBody, media_type: str, meter: Meter, observe: Observer) -> Outcome:
        """A picture with its face replaced."""
        image = await self._picture(body.source, "source")
        swap = await self._swap(body, body.face, meter, observe)
        frames = await swap.image(image[None])
        if not swap.tally.swapped:
            raise _nobody(body, swap.tally.most_faces)
        with Stopwatch() as watch:
            data = await self._checked("source", encode_image, frames[0], media_type)
        meter.phase("encode", watch.seconds)
        return Outcome(data, media_type, 1, None, None, swap.tally)

    async def swap_video(self, body: VideoSwapBody, media_type: str, meter: Meter, observe: Observer) -> Outcome:
        """A video with the face in each frame replaced; its audio is kept."""
        limits = SourceLimits(self._limits.max_source_frames, self._limits.max_source_seconds, self._limits.max_source_pixels)
        source = await self._checked("source", open_source, body.source, limits)
        if body.rate is not None:
            source = source.at(body.rate)
            if source.count > limits.frames:
                raise invalid("fps", f"makes {source.count} frames; at most {limits.frames} are accepted: lower it")
        swap = await self._swap(body, body.face, meter, observe)
        async with self._encoder("source", media_type, source.fps, source.count, meter, source) as encoder:
            async with aclosing(swap.chunks(self._frames(source, observe))) as swapped:
                async for chunk in swapped:
                    await encoder.add(chunk.frames, chunk.times)
                    observe(ChunkStep("encoded", chunk.index))
            self._require_face(swap, body.require_face, "source")
            data, count = await encoder.close()
        return Outcome(data, media_type, count, source.fps, None, swap.tally)

    async def _frames(self, source: Source, observe: Observer) -> AsyncGenerator[TimedFrames, None]:
        """The source's chunks, decoded in a thread as they are asked for."""
        chunks = source.chunks()
        while (chunk := await self._checked("source", next, chunks, None)) is not None:
            observe(ChunkStep("decoded", chunk.index))
            yield chunk

    async def _decoded(
        self, chunks: AsyncIterator[FrameChunk], fps: Fraction, observe: Observer
    ) -> AsyncGenerator[TimedFrames, None]:
        async for chunk in chunks:
            observe(ChunkStep("decoded", chunk.index))
            yield TimedFrames(chunk.index, chunk.frames, tuple((chunk.index + i) / fps for i in range(len(chunk.frames))))

    async def _swap(self, body: SwapFields, pictures: Sequence[bytes], meter: Meter, observe: Observer) -> FaceSwap:
        """The swap that ``body`` asks for; raises Problem if one of its pictures shows no face."""
        reference = await self._reference(pictures, "face", meter)
        target = None if body.target_face is None else await self._reference(body.target_face, "target_face", meter)
        choice = Choice(body.faces, body.face_index, None if target is None else target.face.embedding)
        options = SwapOptions(body.restore_face, body.face_restore_visibility, body.codeformer_weight)
        return FaceSwap(self._graph, self._settings, reference, choice, options, meter, observe)

    async def _picture(self, data: bytes, name: str) -> Image:
        return await self._checked(name, decode_image, data, self._limits.max_image_pixels)

    async def _reference(self, pictures: Sequence[bytes], field: str, meter: Meter) -> Reference:
        images = []
        for i, data in enumerate(pictures):
            try:
                images.append(await self._picture(data, field))
            except Problem as e:
                raise e if len(pictures) == 1 else e.about(f"picture {i + 1} of {len(pictures)}") from None
        reference: Reference = await self._graph.call("face-swapper", "identify", images, field, meter=meter)
        return reference

    @asynccontextmanager
    async def _encoder(
        self, name: str, media_type: str, fps: Fraction, count: int, meter: Meter, source: Source | None = None
    ) -> AsyncIterator["_ThreadEncoder"]:
        """An encoder whose work is done in a thread; leaving the block frees it, once that thread is done with it."""
        audio, seconds = (None, None) if source is None else (source.audio, source.duration)
        if media_type == "video/mp4":
            encoder: Encoder = Mp4Encoder(fps, self._settings.h264_preset, self._settings.h264_crf, audio, seconds)
        else:
            encoder = WebpEncoder(fps, self._settings.webp_method, count, seconds)
        threaded = _ThreadEncoder(encoder, partial(self._checked, name), meter)
        try:
            yield threaded
        finally:
            await threaded.discard()

    def _require_face(self, swap: FaceSwap | None, required: bool, name: str) -> None:
        if swap is not None and required and swap.tally.swapped == 0:
            raise invalid(name, "no frame of the video shows a face that is to be replaced, and `require_face` is true")

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

    async def close(self) -> tuple[Media, int]:
        """The file, and how many frames it has."""
        data: Media = await self._run(self._encoder.close)
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


def _nobody(body: SwapFields, found: int) -> Problem:
    """Why nobody in a picture was to be replaced."""
    if not found:
        return invalid("source", "no face found to be replaced; send a picture that shows one")
    if body.target_face is not None:
        return invalid(
            "target_face", f"none of the {found} faces in the picture is this person's; send another picture of them"
        )
    return invalid("face_index", f"the picture shows {found} faces, numbered from the left: 0 to {found - 1}")
