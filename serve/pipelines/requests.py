"""The requests that pipelines take, one class for each kind.

Their fields have the service's own names; what a field is called at an endpoint, and the defaults
and limits in force, are the business of ``serve.http.schemas``, which derives from these classes.
"""

from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from deployments.wire import Acceleration, Faces
from serve.pipelines.acceleration import JSON_SCHEMA
from serve.pipelines.fields import Count, File, Images, Number, Share, Video, exact_rate
from serve.pipelines.loras import JSON_SCHEMA as LORAS_SCHEMA
from serve.pipelines.loras import Choices

FACE = "The face to put in: an image, or several of the same person, which are averaged."


class PipelineRequest(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SwapFields(PipelineRequest):
    """The fields that every face swap takes."""

    faces: Faces = Field(
        default="largest", description="Which faces are replaced: the largest, all, or one counted from the left."
    )
    face_index: Annotated[Count, Field(ge=0, le=999)] = Field(
        default=0, description="With `faces: index`: the number of the face, from the left, from 0."
    )
    target_face: Images | None = Field(
        default=None, description="Images of the person whose face is replaced; no other face is changed."
    )
    restore_face: bool = Field(default=True, description="Sharpen swapped faces, if a restorer is configured.")
    face_restore_visibility: Share = Field(default=1.0, description="Share of the restored face in the result, 0 to 1.")
    codeformer_weight: Share = Field(default=0.5, description="CodeFormer's fidelity, 0 (cleanest) to 1 (most like the face).")


class GenerateVideo(SwapFields):
    """Generate a video from a prompt, from ``image`` if it is given, with ``face`` swapped in."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: Count
    steps: Count
    cfg: Number
    fps: Number
    seed: int | None
    acceleration: Annotated[Acceleration, WithJsonSchema(JSON_SCHEMA)] = Field(
        default="none",
        description="Trades exactness for speed, by a profile (see /limits) or a method. `cache` reuses steps that would change "
        "little; `fp8` computes 8-bit products, on GPUs that have them; `distilled` runs a model that was trained to need few "
        "steps and no guidance. An object may add `every` to `cache`, the interval of the steps that are computed, and "
        "`guidance_until`, the share of the steps after which no pass without the prompt runs.",
    )
    loras: Annotated[Choices, WithJsonSchema(LORAS_SCHEMA)] = Field(
        default=(),
        description="LoRAs that change the model for this video, by the names that GET /loras lists, each with a scale; "
        "several add up. In a form, JSON.",
    )
    adjusted: tuple[tuple[str, int], ...] = ()
    cache_every: int = 0
    guidance_until: float = 1.0
    image: File | None = None
    last_image: File | None = None
    source: Video | None = None
    strength: float = 1.0
    extend: int = 0
    face: Images | None = None
    require_face: bool = False

    @property
    def rate(self) -> Fraction:
        """The frame rate as an exact fraction."""
        return exact_rate(self.fps)

    @property
    def frames(self) -> int:
        """The number of frames in the video: Wan generates 4k+1, so it is rounded down."""
        return (self.num_frames - 1) // 4 * 4 + 1


class SwapImage(SwapFields):
    """Replace the face in an image."""

    source: File
    face: Images = Field(description=FACE)


class SwapVideo(SwapFields):
    """Replace the face in every frame of a video."""

    source: Video
    face: Images = Field(description=FACE)
    fps: Number | None = None
    require_face: bool = False

    @property
    def rate(self) -> Fraction | None:
        """The frame rate as an exact fraction, or None for the source's own."""
        return None if self.fps is None else exact_rate(self.fps)
