"""The frames of a source video that a video model starts from: all of them, or the last ones."""

from collections import deque
from contextlib import aclosing

import numpy as np

from deployments.errors import RequestRefused
from deployments.wire import Frames, Image
from serve.media.images import cover
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.requests import GenerateVideo
from serve.pipelines.source_reader import SourceReaders

FIELD = "source"


class GivenFrames:
    """Reads the source videos of requests, at the rate and in the size of the new video."""

    def __init__(self, readers: SourceReaders, memory: ByteBudget, threads: MediaThreads) -> None:
        self._readers = readers
        self._memory = memory
        self._threads = threads

    async def read(self, request: GenerateVideo, caller: str) -> Frames | None:
        """Return the frames of ``request.source`` that count, or None without a source.

        They are uint8 ``[n, height, width, 3]``: the first ``request.frames``, or the last
        ``request.extend`` of all. Raises ``RequestRefused`` for a video that has fewer.
        """
        if request.source is None:
            return None
        wanted = request.extend or request.frames
        async with self._readers.open(FIELD, request.source, caller, rate=request.rate) as source:
            kept_bytes = 3 * wanted * request.width * request.height
            needed = source.claim_bytes(2) + 2 * kept_bytes  # the frames one by one, and then as one array
            async with self._memory.reserve(min(needed, self._memory.half), caller):
                kept: deque[Image] = deque(maxlen=wanted)
                async with aclosing(source.chunks()) as chunks:
                    async for chunk in chunks:
                        for frame in chunk.frames:
                            if request.extend or len(kept) < wanted:
                                kept.append(await self._threads.run(cover, frame, width=request.width, height=request.height))
                        if not request.extend and len(kept) == wanted:
                            break
                if len(kept) < wanted:
                    raise RequestRefused(
                        FIELD,
                        f"the video has {len(kept)} frames at {float(request.rate):g} frames per second, but {wanted} are needed; "
                        "send a longer one, or ask for fewer",
                    )
                return np.stack(kept)
