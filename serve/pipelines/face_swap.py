"""A face swap over a stream of frames, in four stages: find cuts, look, follow, swap.

Looking and swapping are calls to whichever replica is free, several chunks at a time. Following
needs the frames in order and happens here, in the request, so any number of replicas can work on
one video and the result does not depend on how many they are.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from fractions import Fraction

from deployments.errors import NoFaceFound, RequestRefused
from deployments.faces.tracking.choice import Chooser
from deployments.faces.tracking.cuts import CutFinder
from deployments.faces.tracking.tracks import Tracker
from deployments.wire import Choice, Embedding, Face, FrameChunk, Frames, Image, Reference, References, SwapOptions
from serve.config import RunnerSettings
from serve.media.decode.source import CHUNK, TimedFrames
from serve.pipelines.context import ChunkStep, RequestContext
from serve.pipelines.decoder import DecodedPictures, Picture
from serve.pipelines.handles import FaceSwapperHandle
from serve.pipelines.ordered import map_ordered
from serve.pipelines.requests import SwapFields
from serve.pipelines.result import SwapTally

PERSON_SIDE = 2048
"""The longest side in pixels with which images of persons are decoded.

Faces are found in the image scaled to 640 pixels, and cut out with 112 to 512 pixels.
"""


@dataclass(frozen=True)
class _CutChunk:
    """A chunk, and for each frame whether a scene begins with it."""

    chunk: TimedFrames
    cuts: tuple[bool, ...]


@dataclass(frozen=True)
class _AnalysedChunk(_CutChunk):
    """A chunk, and the faces in each frame that was looked at (None for the others)."""

    faces: tuple[tuple[Face, ...] | None, ...]


@dataclass(frozen=True)
class _FollowedChunk:
    """A chunk, and the faces to replace in each frame."""

    chunk: TimedFrames
    faces: tuple[tuple[Face, ...], ...]


class FaceSwap:
    """The face swap of one request. ``tally`` counts the frames that have come out so far."""

    def __init__(
        self,
        swapper: FaceSwapperHandle,
        settings: RunnerSettings,
        context: RequestContext,
        *,
        references: tuple[Reference, ...],
        choice: Choice,
        options: SwapOptions,
    ) -> None:
        self._swapper = swapper
        self._settings = settings
        self._context = context
        self._references = references
        self._options = options
        self._tracker = Tracker(settings.tracking, Chooser(choice, settings.tracking.match_threshold))
        self._cuts = CutFinder()
        self.tally = SwapTally()

    @property
    def held_chunks(self) -> int:
        """The most chunks of four frames that are held back before the first one comes out."""
        return _held_chunks(self._settings, self._tracker)

    async def chunks(self, source: AsyncIterator[TimedFrames]) -> AsyncGenerator[TimedFrames, None]:
        """Yield the chunks of ``source``, in order, with the faces replaced."""
        ahead = self._settings.swap_ahead
        async with (
            aclosing(self._find_cuts(source)) as cut,
            aclosing(map_ordered(cut, self._look, ahead)) as analysed,
            aclosing(self._follow(analysed)) as followed,
            aclosing(map_ordered(followed, self._swap, ahead)) as swapped,
        ):
            async for chunk in swapped:
                yield chunk

    async def image(self, pixels: Frames) -> Frames:
        """Return a single image, given as a chunk of one frame, with the faces replaced."""

        async def single() -> AsyncIterator[TimedFrames]:
            yield TimedFrames(0, pixels, (Fraction(0),))

        async with aclosing(self.chunks(single())) as chunks:
            return (await anext(chunks)).frames

    def require_swapped(self, field: str) -> None:
        """Raise RequestRefused, which names ``field``, if no face was replaced in any frame."""
        if not self.tally.swapped:
            raise RequestRefused(field, "no frame of the video shows a face that is to be replaced, and `require_face` is true")

    async def _find_cuts(self, source: AsyncIterator[TimedFrames]) -> AsyncGenerator[_CutChunk, None]:
        async for chunk in source:
            # In a thread, like all work of milliseconds: the requests share the event loop.
            yield _CutChunk(chunk, await asyncio.to_thread(self._scene_starts, chunk))

    def _scene_starts(self, chunk: TimedFrames) -> tuple[bool, ...]:
        return tuple(self._cuts.starts_scene(frame) for frame in chunk.frames)

    async def _look(self, cut: _CutChunk) -> _AnalysedChunk:
        chunk, cuts = cut.chunk, cut.cuts
        every = self._settings.tracking.detect_every
        wanted = [i for i, starts in enumerate(cuts) if starts or (chunk.index + i) % every == 0]
        faces: list[tuple[Face, ...] | None] = [None] * len(cuts)
        if wanted:
            frames = chunk.frames if len(wanted) == len(cuts) else chunk.frames[wanted]
            analysis = await self._swapper.analyse(frames, self._context.meter)
            self._context.meter.add_phase("swap", analysis.seconds)
            self.tally.engine = analysis.engine
            for i, found in zip(wanted, analysis.faces, strict=True):
                # A face that cannot be trusted is as one that was not seen: it is left alone, or
                # interpolated between two sightings that can be.
                faces[i] = tuple(face for face in found if face.certain)
                self.tally.most_faces = max(self.tally.most_faces, len(found))
                self.tally.uncertain += len(found) - len(faces[i] or ())
        return _AnalysedChunk(chunk, cuts, tuple(faces))

    async def _follow(self, analysed: AsyncIterator[_AnalysedChunk]) -> AsyncGenerator[_FollowedChunk, None]:
        """Decide which faces to replace. The tracker answers late, so whole chunks wait for it."""
        waiting: deque[TimedFrames] = deque()
        decided: deque[tuple[Face, ...]] = deque()

        def complete() -> _FollowedChunk | None:
            if not waiting or len(decided) < len(waiting[0].frames):
                return None
            chunk = waiting.popleft()
            return _FollowedChunk(chunk, tuple(decided.popleft() for _ in chunk.frames))

        async for item in analysed:
            waiting.append(item.chunk)
            decided += await asyncio.to_thread(self._track, item)
            while (followed := complete()) is not None:
                yield followed
        decided += self._tracker.end()
        while (followed := complete()) is not None:
            yield followed

    def _track(self, analysed: _AnalysedChunk) -> list[tuple[Face, ...]]:
        frames = zip(analysed.faces, analysed.chunk.times, analysed.cuts, strict=True)
        return [decided for faces, time, cut in frames for decided in self._tracker.add(faces, float(time), cut=cut)]

    async def _swap(self, followed: _FollowedChunk) -> TimedFrames:
        chunk, faces = followed.chunk, followed.faces
        self.tally.frames += len(faces)
        if not any(faces):
            return chunk
        meter, observe = self._context.meter, self._context.observe
        observe(ChunkStep("swap-started", chunk.index))
        frames = FrameChunk(chunk.index, chunk.frames)
        reference, faces = self._needed(faces)
        swapped = await self._swapper.swap(frames, faces, reference=reference, options=self._options, meter=meter)
        observe(ChunkStep("swapped", chunk.index, swapped.frames[-1]))
        meter.add_phase("swap", swapped.seconds)
        self.tally.swapped += sum(1 for frame_faces in faces if frame_faces)
        if swapped.restorer != "none":
            self.tally.restorer = swapped.restorer
        return TimedFrames(chunk.index, swapped.frames, chunk.times, changed=True)

    def _needed(self, faces: tuple[tuple[Face, ...], ...]) -> tuple[References, tuple[tuple[Face, ...], ...]]:
        """Return the references that ``faces`` need, and the faces with the numbers in these.

        References travel with every chunk, and a chunk seldom shows everybody.
        """
        if len(self._references) == 1:
            return self._references[0], faces
        sources = sorted({face.source for frame_faces in faces for face in frame_faces})
        numbers = {source: number for number, source in enumerate(sources)}
        renumbered = tuple(tuple(replace(face, source=numbers[face.source]) for face in frame_faces) for frame_faces in faces)
        return tuple(self._references[source] for source in sources), renumbered


def _held_chunks(settings: RunnerSettings, tracker: Tracker) -> int:
    return settings.swap_ahead + tracker.delay // CHUNK + 2


class FaceSwaps:
    """Begins the face swap of each request, once the person to put in is known."""

    def __init__(self, swapper: FaceSwapperHandle, settings: RunnerSettings) -> None:
        self._swapper = swapper
        self._settings = settings

    @property
    def held_chunks(self) -> int:
        """The most chunks that a face swap holds back, whatever the request."""
        chooser = Chooser(Choice("largest", 0, None), self._settings.tracking.match_threshold)
        return _held_chunks(self._settings, Tracker(self._settings.tracking, chooser))

    async def begin(self, request: SwapFields, pictures: DecodedPictures, context: RequestContext) -> FaceSwap:
        """Return the swap of ``request``; raise RequestRefused if an image shows no face.

        ``pictures`` are the decoded ``person_pictures``, perhaps among others.
        """
        references: list[Reference] = []
        people: list[Embedding | None] = []
        for part in request.parts:
            images = pictures.of(part.face_field)[part.face]
            references.append(await self._identify(images, part.face_field, name=part.name, context=context))
            person = None
            if part.target is not None:
                images = pictures.of(part.target_field)[part.target]
                person = (await self._identify(images, part.target_field, name=part.name, context=context)).face.embedding
            people.append(person)
        if request.mask_regions and not references[0].parsed:
            raise RequestRefused("mask_regions", "needs a face parser, which is not configured (`models.faces.occlusion`)")
        mapped = Choice("map", people=tuple(people))
        choice = mapped if request.faces == "map" else Choice(request.faces, request.face_index, people[0])
        return FaceSwap(
            self._swapper,
            self._settings,
            context,
            references=tuple(references),
            choice=choice,
            options=request.options,
        )

    async def _identify(self, images: Sequence[Image], field: str, name: str, context: RequestContext) -> Reference:
        try:
            return await self._swapper.identify(images, field, context.meter)
        except NoFaceFound as e:
            raise NoFaceFound(field, f"{name}: {e.detail}" if name else e.detail) from None


def person_pictures(request: SwapFields, face: Sequence[bytes]) -> list[Picture]:
    """Return the images of the people to put in, and of those to replace if there are any."""
    if request.pairs is not None:
        return [
            Picture("pairs", data, f"pair {number}", max_side=PERSON_SIDE)
            for number, pair in enumerate(request.pairs, 1)
            for data in (*pair[0], *pair[1])
        ]
    targets = request.target_face or ()
    return [*_pictures("face", face), *_pictures("target_face", targets)]


def _pictures(field: str, files: Sequence[bytes]) -> Iterator[Picture]:
    for number, data in enumerate(files, 1):
        part = None if len(files) == 1 else f"image {number} of {len(files)}"
        yield Picture(field, data, part, max_side=PERSON_SIDE)
