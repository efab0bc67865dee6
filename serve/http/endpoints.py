"""The table of endpoints that make something: their paths, schemas, media types and models."""

import difflib
from dataclasses import dataclass
from functools import cache, partial

from serve.config import AppConfig
from serve.http.schemas import Schema, image_swap_schema, video_schema, video_swap_schema
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26, Model
from serve.route_table import ENDPOINTS, EndpointName

ANIMATION_RESULTS = ("image/webp", "video/mp4", "image/gif")
VIDEO_RESULTS = ("video/mp4", "image/webp", "image/gif")
IMAGE_RESULTS = ("image/jpeg", "image/png", "image/webp")
VIDEOS, FACES = "Videos", "Faces"


@dataclass(frozen=True)
class Endpoint:
    """One row: a POST path with its aliases.

    ``media_types`` are the formats of the result, the default first. ``models`` are those that the
    endpoint uses; `X-GPU-Type` names the hardware of the first.
    """

    name: str
    summary: str
    schema: Schema
    media_types: tuple[str, ...]
    models: tuple[Model, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Its path, and the aliases of that."""
        return ENDPOINTS[self.name]

    @property
    def group(self) -> str:
        """The heading below which the documentation shows the endpoint."""
        return FACES if self.models[0] is FACE_SWAPPER else VIDEOS


def make_endpoints(config: AppConfig) -> tuple[Endpoint, ...]:
    """Return all endpoints, with the defaults and limits of ``config``."""

    def video(model: Model, name: EndpointName, summary: str, **images: tuple[str, ...]) -> Endpoint:
        schema = video_schema(
            name.value,
            defaults=config.defaults_of(model),
            limits=config.limits,
            max_loras=config.max_loras_of(model),
            prompt_required=model.requires_prompt,
            frames=("length", "num_frames") if model.requires_prompt else ("num_frames", "length"),
            **images,
        )
        return _video_endpoint(name.value, summary, schema=schema, model=model)

    wan26, wan22 = partial(video, WAN26), partial(video, WAN22_GGUF)
    reference, source = ("reference_image",), ("source_image", "reference_image")
    return (
        wan26(EndpointName.WAN26, "Generate a video from a prompt, or from another video", source=("source_video",)),
        wan26(EndpointName.WAN26_I2V, "Generate a video from a prompt and its first frame", image=reference),
        wan26(
            EndpointName.WAN26_I2V_FACESWAP,
            "Generate a video from a prompt and its first frame, and swap a face into every frame",
            image=reference,
            face=("face_image", "reference_face"),
        ),
        wan22(EndpointName.WAN22_I2V, "Generate a video from its first frame with the 14B model", image=source),
        wan22(
            EndpointName.WAN22_I2V_FACESWAP,
            "Generate a video from its first frame with the 14B model, and swap a face into every frame",
            image=source,
            face=("face_image",),
        ),
        Endpoint(
            name=EndpointName.IMAGE_FACESWAP.value,
            summary="Replace the face in an image",
            schema=image_swap_schema(config.limits),
            media_types=IMAGE_RESULTS,
            models=(FACE_SWAPPER,),
        ),
        Endpoint(
            name=EndpointName.BATCH_VIDEO_FACESWAP.value,
            summary="Replace the face in every frame of a video and keep its sound",
            schema=video_swap_schema(config.limits),
            media_types=VIDEO_RESULTS,
            models=(FACE_SWAPPER,),
        ),
    )


def hint_for(path: str, field: str) -> str:
    """Return "; did you mean ...?" for a field that an endpoint does not know, or nothing.

    ``path`` is one of the endpoint's paths, without the slash.
    """
    schema = _default_schemas().get(f"/{path}")
    return "" if schema is None else schema.hint(field)


def path_hint(path: str) -> str:
    """Return what may be called instead of an unknown path, or nothing."""
    known = [name.strip("/") for name in _default_schemas()]
    if path in known:
        return ""
    nearest = difflib.get_close_matches(path, known, n=1)
    return f"; did you mean `{nearest[0]}`?" if nearest else f"; endpoints: {', '.join(known)}"


@cache
def _default_schemas() -> dict[str, Schema]:
    return {path: endpoint.schema for endpoint in make_endpoints(AppConfig()) for path in endpoint.paths}


def _video_endpoint(name: str, summary: str, *, schema: Schema, model: Model) -> Endpoint:
    swaps = "face" in schema.names
    return Endpoint(
        name=name,
        summary=summary,
        schema=schema,
        media_types=VIDEO_RESULTS if swaps else ANIMATION_RESULTS,
        models=(model, FACE_SWAPPER) if swaps else (model,),
    )
