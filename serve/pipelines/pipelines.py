"""The pipelines of an ingress replica, which share its threads and handles."""

from dataclasses import dataclass

from serve.config import AppConfig
from serve.pipelines.decoder import Decoder
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.face_swap import FaceSwaps
from serve.pipelines.handles import Handles
from serve.pipelines.image_swap import ImageSwapPipeline
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.source_reader import SourceReaders
from serve.pipelines.video import VideoPipeline
from serve.pipelines.video_swap import VideoSwapPipeline


@dataclass(frozen=True)
class Pipelines:
    """One pipeline for each kind of request, and the handles that they call."""

    handles: Handles
    decoder: Decoder
    video: VideoPipeline
    image_swap: ImageSwapPipeline
    video_swap: VideoSwapPipeline


def make_pipelines(config: AppConfig, handles: Handles) -> Pipelines:
    """Build the pipelines, which call the given handles."""
    threads = MediaThreads(config.ingress.encoder_threads)
    decoder = Decoder(config.ingress, config.limits)
    readers = SourceReaders(decoder.pool, decoder.memory, config.ingress, config.limits)
    faces = FaceSwaps(handles.face_swapper, config.ingress)
    writers = VideoWriters(config.ingress, threads)
    return Pipelines(
        handles,
        decoder,
        video=VideoPipeline(faces, writers, threads, decoder),
        image_swap=ImageSwapPipeline(faces, threads, decoder),
        video_swap=VideoSwapPipeline(faces, writers, decoder, readers),
    )
