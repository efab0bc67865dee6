"""The requests that pipelines take, one class for each kind.

Their fields have the service's own names; what a field is called at an endpoint, and the defaults
and limits in force, are the business of ``serve.http.schemas``, which derives from these classes.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from deployments.wire import Acceleration, Faces, SwapOptions
from serve.pipelines.acceleration import JSON_SCHEMA
from serve.pipelines.fields import Count, File, Images, Number, Padding, Pairs, Regions, Share, Video, exact_rate, read_pairs
from serve.pipelines.loras import Choices

FACE = "The face to put in: an image, or several of the same person, which are averaged."


class PipelineRequest(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True)
class SwapPart:
    """One person of a face swap: where the images of the new face and of the old one are."""

    name: str
    """What the caller is told that it is, such as "pair 2"; empty if there is only one."""
    face_field: str
    face: slice
    target_field: str
    target: slice | None
    """None if the request has no images of the person who is replaced."""


class SwapFields(PipelineRequest):
    """The fields that every face swap takes."""

    faces: Faces = Field(
        default="largest",
        description="Which faces are replaced: the largest, all, one counted from the left, or several people, each by another "
        "face (`map`).",
    )
    pairs: Pairs | None = Field(
        default=None,
        description="With `faces: map`: up to 8 people, each an object with `reference_image`, the new face, and `target_face`, "
        "the person who is replaced. Without any `target_face` people are counted from the left. Sent instead of "
        "`reference_image` and `target_face`; in a form it is JSON text.",
    )
    face_index: Annotated[Count, Field(ge=0, le=999)] = Field(
        default=0, description="With `faces: index`: the number of the face, from the left, from 0."
    )
    target_face: Images | None = Field(
        default=None,
        description="Images of the person whose face is replaced; no other face is changed. With `faces: map`, one image of each "
        "person, in the order of the new faces.",
    )
    restore_face: bool = Field(default=True, description="Sharpen swapped faces, if a restorer is configured.")
    face_restore_visibility: Share = Field(default=1.0, description="Share of the restored face in the result, 0 to 1.")
    codeformer_weight: Share = Field(default=0.5, description="CodeFormer's fidelity, 0 (cleanest) to 1 (most like the face).")

    face_blend: Share = Field(default=1.0, description="Share of the new face in the result, 0 to 1; the rest is the old one.")
    mask_padding: Padding = Field(
        default=(0.0, 0.0, 0.0, 0.0),
        description="Shares of the face's crop that stay as they are: top, right, bottom, left, 0 to 0.45 each; one number is "
        "for all four.",
    )
    mask_regions: Regions = Field(
        default=(),
        description="The parts of the face that are replaced, if a face parser is configured; all of them by default.",
    )

    @property
    def options(self) -> SwapOptions:
        """How the new faces are restored and blended in."""
        return SwapOptions(
            restore=self.restore_face,
            visibility=self.face_restore_visibility,
            codeformer_weight=self.codeformer_weight,
            blend=self.face_blend,
            padding=self.mask_padding,
            regions=self.mask_regions,
        )

    @model_validator(mode="before")
    @classmethod
    def _pairs_have_the_faces(cls, values: Any) -> Any:
        """Let ``face`` stand for the faces of ``pairs``, so that it is present if they are.

        What was read, or its error, takes the place of ``pairs``, so that they are read once.
        """
        if isinstance(values, dict) and values.get("pairs") is not None and values.get("face") is None:
            try:
                pairs = read_pairs(values["pairs"])
            except ValueError as error:
                return {**values, "pairs": error, "face": [b"-"]}
            return {**values, "pairs": pairs, "face": list(pairs[0][0]), "faces": values.get("faces") or "map"}
        return values

    @property
    def parts(self) -> tuple[SwapPart, ...]:
        """The people to put in, in order."""
        if self.pairs is not None:
            parts, start = [], 0
            for number, (face, target) in enumerate(self.pairs, 1):
                middle, end = start + len(face), start + len(face) + len(target)
                of_target = slice(middle, end) if target else None
                parts.append(
                    SwapPart(
                        f"pair {number}", face_field="pairs", face=slice(start, middle), target_field="pairs", target=of_target
                    )
                )
                start = end
            return tuple(parts)
        everything = slice(None)
        if self.faces != "map":
            return (
                SwapPart(
                    "",
                    face_field="face",
                    face=everything,
                    target_field="target_face",
                    target=None if self.target_face is None else everything,
                ),
            )
        faces = len(getattr(self, "face", None) or ())
        one = [slice(i, i + 1) for i in range(faces)]
        return tuple(
            SwapPart(
                f"person {i + 1}",
                face_field="face",
                face=one[i],
                target_field="target_face",
                target=None if self.target_face is None else one[i],
            )
            for i in range(faces)
        )

    def contradictions(self) -> list[tuple[str, str]]:
        """Return what contradicts itself: a field, and what to send instead."""
        if self.pairs is not None:
            if self.faces != "map":
                return [("pairs", "goes with `faces: map`")]
            if self.target_face is not None:
                return [("target_face", "stands in each of the `pairs` if these are sent")]
            with_target = sum(bool(target) for _, target in self.pairs)
            if 0 < with_target < len(self.pairs):
                return [("pairs", "some have a `target_face` and some do not; send it in all of them or in none")]
        elif self.faces == "map" and self.target_face is not None:
            faces, targets = len(getattr(self, "face", None) or ()), len(self.target_face)
            if faces != targets:
                return [("target_face", f"{targets} people for {faces} new faces; with `faces: map` send one image for each")]
        return []


def made_frames(num_frames: int) -> int:
    """Return the number of frames that are made: Wan generates 4k+1, so it is rounded down."""
    return (num_frames - 1) // 4 * 4 + 1


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
    loras: Choices = ()
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
        """The number of frames in the video."""
        return made_frames(self.num_frames)


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
