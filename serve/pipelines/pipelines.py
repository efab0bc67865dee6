"""The pipelines of a Runner replica, which share its threads and handles."""

import logging
from dataclasses import dataclass, replace

from serve.config import AppConfig
from serve.pipelines.attempts import ATTEMPTS, is_lost_replica
from serve.pipelines.context import RequestContext
from serve.pipelines.decoder import Decoder, Picture
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.face_swap import FaceSwaps, person_pictures
from serve.pipelines.given_frames import GivenFrames
from serve.pipelines.handles import Handles
from serve.pipelines.image_swap import ImageSwapPipeline
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo
from serve.pipelines.result import Result
from serve.pipelines.source_reader import SourceReaders
from serve.pipelines.video import VideoPipeline
from serve.pipelines.video_swap import VideoSwapPipeline

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Pipelines:
    """One pipeline for each kind of request, and the handles that they call."""

    handles: Handles
    decoder: Decoder
    readers: SourceReaders
    video: VideoPipeline
    image_swap: ImageSwapPipeline
    video_swap: VideoSwapPipeline

    async def check(self, request: PipelineRequest, caller: str) -> None:
        """Look at the headers of a request's files; raise what the pipeline would for them.

        A request that waits for its turn learns so at once that a file cannot be used.
        """
        if isinstance(request, SwapVideo | GenerateVideo) and request.source is not None:
            async with self.readers.open("source", request.source, caller, rate=request.rate):
                pass
        await self.decoder.check(pictures_of(request), caller)

    async def run(self, model: str, request: PipelineRequest, context: RequestContext, *, attempts: int = ATTEMPTS) -> Result:
        """Run the pipeline for ``request``, whose first model has the API name ``model``.

        If a replica is lost, it runs again with the same seed, up to ``attempts`` times in all.
        """
        attempt = 1
        while True:
            context.meter.clear()
            try:
                match request:
                    case GenerateVideo():
                        result = await self.video.run(self.handles.video[model], request, context)
                    case SwapImage():
                        result = await self.image_swap.run(request, context)
                    case SwapVideo():
                        result = await self.video_swap.run(request, context)
                    case _:
                        raise TypeError(f"no pipeline takes a {type(request).__name__}")
                return replace(result, attempts=attempt)
            except Exception as error:
                if attempt == attempts or not is_lost_replica(error):
                    raise
                logger.warning("a replica was lost (%s); trying again", type(error).__name__)
            attempt += 1


def make_pipelines(config: AppConfig, handles: Handles) -> Pipelines:
    """Build the pipelines, which call the given handles."""
    threads = MediaThreads(config.runner.encoder_threads)
    decoder = Decoder(config.runner, config.limits)
    readers = SourceReaders(decoder.pool, decoder.memory, settings=config.runner, limits=config.limits)
    faces = FaceSwaps(handles.face_swapper, config.runner)
    writers = VideoWriters(config.runner, threads)
    return Pipelines(
        handles,
        decoder,
        readers,
        video=VideoPipeline(
            faces, writers, threads=threads, decoder=decoder, given=GivenFrames(readers, decoder.memory, threads)
        ),
        image_swap=ImageSwapPipeline(faces, threads, decoder),
        video_swap=VideoSwapPipeline(faces, writers, decoder=decoder, readers=readers),
    )


def pictures_of(request: PipelineRequest) -> list[Picture]:
    """Return all pictures of a request."""
    pictures = []
    if isinstance(request, GenerateVideo) and request.image is not None:
        pictures.append(Picture("image", request.image))
    if isinstance(request, GenerateVideo) and request.last_image is not None:
        pictures.append(Picture("last_image", request.last_image))
    if isinstance(request, SwapImage):
        pictures.append(Picture("source", request.source))
    if isinstance(request, GenerateVideo | SwapImage | SwapVideo) and request.face is not None:
        pictures += person_pictures(request, request.face)
    return pictures
