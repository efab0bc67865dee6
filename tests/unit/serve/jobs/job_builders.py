"""Builds the jobs that tests of the Runner and of the desk share."""

import time
from typing import Any

from serve.jobs.request import JobRequest
from serve.jobs.slots import slot_of
from serve.jobs.store.record import Job, new_job_id
from serve.media.samples import PORTRAIT
from serve.media.spool import Media
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo

FACE = PORTRAIT.read_bytes()
VIDEO: dict[str, Any] = {
    "prompt": "a red circle",
    "negative_prompt": "",
    "width": 64,
    "height": 48,
    "num_frames": 9,
    "steps": 2,
    "cfg": 3,
    "fps": 16,
    "seed": None,
}


def video(**fields: Any) -> GenerateVideo:
    """Return a request for a small video of nine frames."""
    return GenerateVideo(**{**VIDEO, **fields})


def make_job(request: PipelineRequest, **fields: Any) -> tuple[Job, Media]:
    """Return a job for ``request``, and the request as it is stored."""
    model = "wan26" if isinstance(request, GenerateVideo) else "face-swapper"
    endpoint = {GenerateVideo: "wan2.6", SwapImage: "image-faceswap", SwapVideo: "batch-video-faceswap"}[type(request)]
    stored = JobRequest(endpoint=endpoint, model=model, request=request, sent_as={"face": "reference_image"}).write()
    now = time.time()
    values: dict[str, Any] = {
        "id": new_job_id(),
        "caller": "ada",
        "endpoint": endpoint,
        "slot": slot_of(request, model),
        "request_id": "the-id",
        "media_type": "image/jpeg" if isinstance(request, SwapImage) else "video/mp4",
        "created_at": now,
        "deadline_at": now + 60,
        "expires_at": now + 3600,
        "seed": 7,
    }
    return Job(**{**values, **fields}), stored
