"""The table: path, request schema, pipeline, media types, models."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serve.config import AppConfig
from serve.face_swap import Observer
from serve.meter import Meter
from serve.pipelines import Outcome, Pipelines
from serve.schemas import Schema, image_swap_schema, video_schema, video_swap_schema

Run = Callable[[Pipelines, Any, int, str, Meter, Observer], Awaitable[Outcome]]
"""Pipelines, body, seed, media type, meter, observer -> outcome."""

ANIMATED = ("image/webp", "video/mp4")
VIDEO = ("video/mp4", "image/webp")
STILL = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True)
class Endpoint:
    """One POST route. ``models``: those that it uses, the one that `X-GPU-Type` names first."""

    name: str
    paths: tuple[str, ...]
    summary: str
    schema: Schema
    media_types: tuple[str, ...]
    models: tuple[str, ...]
    run: Run
    form: bool = False


def make_endpoints(config: AppConfig) -> tuple[Endpoint, ...]:
    """All endpoints, with the defaults and limits of ``config``."""
    limits = config.limits

    def wan26(name: str, summary: str, **pictures: tuple[str, ...]) -> Endpoint:
        schema = video_schema(
            name, config.wan26_defaults, limits, prompt_required=True, frames=("length", "num_frames"), **pictures
        )
        return _video(name, summary, schema, "wan26")

    def wan22(name: str, summary: str, **pictures: tuple[str, ...]) -> Endpoint:
        schema = video_schema(
            name,
            config.wan22_defaults,
            limits,
            prompt_required=False,
            frames=("num_frames", "length"),
            **pictures,
        )
        return _video(name, summary, schema, "wan22-gguf")

    reference, source = ("reference_image",), ("source_image", "reference_image")
    return (
        wan26("wan2.6", "A video from a text"),
        wan26("wan2.6-i2v", "A video from a text and its first frame", image=reference),
        wan26(
            "wan2.6-i2v-faceswap",
            "The same, with a face swapped into every frame",
            image=reference,
            face=("face_image", "reference_face"),
        ),
        wan22("wan22-i2v", "A video from its first frame, by the 14B model", image=source),
        wan22("wan22-i2v-faceswap", "The same, with a face swapped into every frame", image=source, face=("face_image",)),
        Endpoint(
            name="image-faceswap",
            paths=("/image-faceswap",),
            summary="A picture with its face replaced",
            schema=image_swap_schema(limits),
            media_types=STILL,
            models=("face-swapper",),
            run=lambda pipelines, body, _, media_type, meter, observe: pipelines.swap_image(body, media_type, meter, observe),
            form=True,
        ),
        Endpoint(
            name="batch-video-faceswap",
            paths=("/batch-video-faceswap", "/video-faceswap"),
            summary="A video with the face in every frame replaced, its audio kept",
            schema=video_swap_schema(limits),
            media_types=VIDEO,
            models=("face-swapper",),
            run=lambda pipelines, body, _, media_type, meter, observe: pipelines.swap_video(body, media_type, meter, observe),
            form=True,
        ),
    )


def _video(name: str, summary: str, schema: Schema, model: str) -> Endpoint:
    swaps = "face" in schema.names

    async def run(pipelines: Pipelines, body: Any, seed: int, media_type: str, meter: Meter, observe: Observer) -> Outcome:
        return await pipelines.generate(model, body, seed, media_type, meter, observe)

    return Endpoint(
        name=name,
        paths=(f"/{name}",),
        summary=summary,
        schema=schema,
        media_types=VIDEO if swaps else ANIMATED,
        models=(model, "face-swapper") if swaps else (model,),
        run=run,
    )
