"""A face swap over a stream of frames: look at each chunk, follow the faces, replace those that are meant.

Looking and replacing are calls to whichever replica is free, several chunks at a time; following is not, for it needs the frames in
their order, and happens here, in the request itself. So any number of replicas work on one video, and the result does not depend on it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from deployments.faces.choice import Chooser
from deployments.faces.cuts import CutFinder
from deployments.faces.tracks import Tracker
from deployments.wire import Analysis, Choice, Face, FrameChunk, Frames, Progress, Reference, SwapOptions, SwappedChunk
from serve.config import Ingress
from serve.graph import Graph
from serve.media.decode import CHUNK, TimedFrames
from serve.meter import Meter
from serve.ordered import map_ordered


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


@dataclass(frozen=True)
class _Seen:
    """A chunk, and which of its frames begin a scene."""

    chunk: TimedFrames
    cuts: tuple[bool, ...]


@dataclass(frozen=True)
class _Looked(_Seen):
    """The same, and the faces in the frames that were looked at."""

    faces: tuple[tuple[Face, ...] | None, ...]


@dataclass(frozen=True)
class _Followed:
    """A chunk and the faces to be replaced in each of its frames."""

    chunk: TimedFrames
    faces: tuple[tuple[Face, ...], ...]


class FaceSwap:
    """One request's swap. ``tally`` counts what has come out so far."""

    def __init__(
        self,
        graph: Graph,
        settings: Ingress,
        reference: Reference,
        choice: Choice,
        options: SwapOptions,
        meter: Meter,
        observe: Observer,
    ) -> None:
        self._graph = graph
        self._settings = settings
        self._reference = reference
        self._options = options
        self._meter = meter
        self._observe = observe
        self._tracker = Tracker(settings.tracking, Chooser(choice, settings.tracking.match_threshold))
        self._cuts = CutFinder()
        self.tally = SwapTally()

    @property
    def held(self) -> int:
        """The most chunks of four frames that are in here before the first one comes out."""
        return self._settings.swap_ahead + self._tracker.delay // CHUNK + 2

    async def chunks(self, source: AsyncIterator[TimedFrames]) -> AsyncGenerator[TimedFrames, None]:
        """The chunks of ``source``, in order, with the faces replaced."""
        ahead = self._settings.swap_ahead
        async with (
            aclosing(self._see(source)) as seen,
            aclosing(map_ordered(seen, self._look, ahead)) as looked,
            aclosing(self._follow(looked)) as followed,
            aclosing(map_ordered(followed, self._replace, ahead)) as replaced,
        ):
            async for chunk in replaced:
                yield chunk

    async def image(self, pixels: Frames) -> Frames:
        """A single picture, as a chunk of one frame."""

        async def alone() -> AsyncIterator[TimedFrames]:
            yield TimedFrames(0, pixels, (Fraction(0),))

        async with aclosing(self.chunks(alone())) as chunks:
            return (await anext(chunks)).frames

    async def _see(self, source: AsyncIterator[TimedFrames]) -> AsyncGenerator[_Seen, None]:
        async for chunk in source:
            # In a thread, as all that takes milliseconds: the event loop is every request's.
            yield _Seen(chunk, await asyncio.to_thread(self._starts, chunk))

    def _starts(self, chunk: TimedFrames) -> tuple[bool, ...]:
        return tuple(self._cuts.starts_scene(frame) for frame in chunk.frames)

    async def _look(self, seen: _Seen) -> _Looked:
        chunk, cuts = seen.chunk, seen.cuts
        every = self._settings.tracking.detect_every
        wanted = [i for i, cut in enumerate(cuts) if cut or (chunk.index + i) % every == 0]
        faces: list[tuple[Face, ...] | None] = [None] * len(cuts)
        if wanted:
            frames = chunk.frames if len(wanted) == len(cuts) else chunk.frames[wanted]
            analysis: Analysis = await self._graph.call("face-swapper", "analyse", frames, meter=self._meter, waits=False)
            self._meter.phase("swap", analysis.seconds)
            self.tally.engine = analysis.engine
            for i, found in zip(wanted, analysis.faces, strict=True):
                faces[i] = found
        return _Looked(chunk, cuts, tuple(faces))

    async def _follow(self, looked: AsyncIterator[_Looked]) -> AsyncGenerator[_Followed, None]:
        waiting: deque[TimedFrames] = deque()
        decided: deque[tuple[Face, ...]] = deque()

        def complete() -> _Followed | None:
            if not waiting or len(decided) < len(waiting[0].frames):
                return None
            chunk = waiting.popleft()
            return _Followed(chunk, tuple(decided.popleft() for _ in chunk.frames))

        async for one in looked:
            waiting.append(one.chunk)
            decided += await asyncio.to_thread(self._track, one)
            self.tally.most_faces = max(self.tally.most_faces, *(len(faces or ()) for faces in one.faces))
            while (followed := complete()) is not None:
                yield followed
        decided += self._tracker.end()
        while (followed := complete()) is not None:
            yield followed

    def _track(self, looked: _Looked) -> list[tuple[Face, ...]]:
        frames = zip(looked.faces, looked.chunk.times, looked.cuts, strict=True)
        return [decided for faces, time, cut in frames for decided in self._tracker.add(faces, float(time), cut=cut)]

    async def _replace(self, followed: _Followed) -> TimedFrames:
        chunk, faces = followed.chunk, followed.faces
        self.tally.frames += len(faces)
        if not any(faces):
            return chunk
        self._observe(ChunkStep("swap-started", chunk.index))
        swapped: SwappedChunk = await self._graph.call(
            "face-swapper",
            "swap",
            FrameChunk(chunk.index, chunk.frames),
            faces,
            self._reference,
            self._options,
            meter=self._meter,
            waits=False,
        )
        self._observe(ChunkStep("swapped", chunk.index))
        self._meter.phase("swap", swapped.seconds)
        self.tally.swapped += sum(1 for some in faces if some)
        if swapped.restorer != "none":
            self.tally.restorer = swapped.restorer
        return TimedFrames(chunk.index, swapped.frames, chunk.times)
