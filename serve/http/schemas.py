"""The body of each endpoint: its pydantic model, and what its fields are called there.

The models are made from the settings, so that defaults and limits are the ones in force.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, create_model

from serve.config import Limits, VideoDefaults
from serve.http.field_schemas import openapi_field
from serve.http.fitting import FITTED, fit
from serve.pipelines.acceleration import read_choice
from serve.pipelines.fields import MAX_SEED, Count, File, Images, Number, Share, Video, side
from serve.pipelines.loras import Choices, json_schema, read_loras
from serve.pipelines.requests import FACE, GenerateVideo, PipelineRequest, SwapFields, SwapImage, SwapVideo, made_frames
from serve.problems import REQUIRED, FieldError, Problem, invalid_fields

MIN_FRAMES_TO_LAST = 5
"""Frames of the shortest video between a first and a last frame: the next shorter one has one."""
MAX_FIELDS = 100
"""Number of fields in a body; endpoints have at most some twenty."""
MAX_UNKNOWN = 20
"""Number of unknown fields that a problem names, after a search for the names that were meant."""
MAX_ERRORS = 200
"""Number of errors that a problem describes. A field has a few; each one takes some kilobytes."""
MAX_NAME_CHARS = 100
"""Length up to which an unknown name is shown and compared with those of the fields."""


@dataclass(frozen=True)
class Parsed:
    """A valid request, the names that the caller used for its fields, and the unknown fields."""

    request: PipelineRequest
    sent_as: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """The model of a body and the public names of its fields at one endpoint.

    ``names`` maps each field's own name to its public names, the documented one first.
    """

    model: type[PipelineRequest]
    names: Mapping[str, tuple[str, ...]]
    limits: Limits
    second_reference: bool = field(default=False)
    """Whether `reference_image` is the face if both images are sent, else the first frame."""
    max_loras: int = field(default=0)
    """How many LoRAs a request may add to the model."""
    distilled: Mapping[str, Any] = field(default_factory=dict)
    """The defaults of fields with `acceleration: distilled`."""

    def parse(self, fields: Mapping[str, Any], *, strict: bool) -> Parsed:
        """Return the validated request; raise a 422 problem that names each wrong field.

        With ``strict`` an unknown field is an error.
        """
        if len(fields) > MAX_FIELDS:
            raise Problem(422, "invalid-field", f"the body has {len(fields)} fields; send at most {MAX_FIELDS}")
        values, sent_as, errors = self._resolve_names(fields)
        ignored = self._unknown_fields(fields)
        if strict:
            detail = "unknown field, and `Prefer: handling=strict` was sent"
            errors += [FieldError(name[:MAX_NAME_CHARS], f"{detail}{self.hint(name)}") for name in ignored[:MAX_UNKNOWN]]
        if "acceleration" in values:
            try:
                choice = read_choice(values.pop("acceleration"))
            except ValueError as e:
                errors.append(FieldError(sent_as["acceleration"], str(e)))
            else:
                values |= {
                    "acceleration": choice.method,
                    "cache_every": choice.every,
                    "guidance_until": choice.guidance_until,
                }
        if "loras" in values:
            try:
                values["loras"] = read_loras(values["loras"], most=self.max_loras)
            except ValueError as e:
                errors.append(FieldError(sent_as["loras"], str(e)))
                del values["loras"]
        if values.get("acceleration") == "distilled":
            values = {**self.distilled, **values}
        if self.limits.oversize == "fit" and not strict and issubclass(self.model, GenerateVideo):
            values |= self._fitted(values, sent_as)
        errors += _useless_without_source(values, sent_as)
        try:
            request = self.model.model_validate(values)
        except ValidationError as e:
            if e.error_count() > MAX_ERRORS:
                detail = f"{e.error_count()} values are wrong, too many to list; send fewer values"
                raise Problem(422, "invalid-field", detail) from None
            for error in e.errors(include_url=False, include_input=False):
                errors.append(FieldError(sent_as[str(error["loc"][0])], _describe(error)))
            raise invalid_fields(errors + ([] if strict else self._suggestions(ignored))) from None
        if isinstance(request, SwapFields):
            errors += [FieldError(sent_as.get(name, name), detail) for name, detail in request.contradictions()]
        if isinstance(request, GenerateVideo):
            errors += self._over_limits(request, sent_as)
            useless = _without_guidance(request, sent_as)
            ignored += useless
            if strict:
                detail = "has no effect without guidance, and `Prefer: handling=strict` was sent"
                errors += [FieldError(name, detail) for name in useless]
        if errors:
            raise invalid_fields(errors)
        return Parsed(request, sent_as, ignored)

    def _resolve_names(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[FieldError]]:
        """Return the values by our own names, the public name of each field, and contradictions.

        A field that is null counts as absent.
        """
        sent = {name: value for name, value in fields.items() if value is not None}
        names = dict(self.names)
        if self.second_reference and "source_image" in sent:
            names |= {"image": ("source_image",), "face": ("face_image", "reference_image")}
        values: dict[str, Any] = {}
        sent_as = {name: public[0] for name, public in names.items()}
        errors: list[FieldError] = []
        for name, public in names.items():
            present = [alias for alias in public if alias in sent]
            if present:
                values[name], sent_as[name] = sent[present[0]], present[0]
                errors += [
                    FieldError(alias, f"means the same as `{present[0]}` and differs from it; send one of them")
                    for alias in present[1:]
                    if not _is_same(sent[alias], sent[present[0]])
                ]
        return values, sent_as, errors

    def _unknown_fields(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        known = {alias for public in self.names.values() for alias in public}
        return tuple(name for name in fields if name not in known)

    def hint(self, name: str) -> str:
        """Return "; did you mean ...?" for an unknown name that is nearly a field's, or nothing."""
        known = [alias for public in self.names.values() for alias in public]
        if name in known or len(name) > MAX_NAME_CHARS:
            return ""
        nearest = difflib.get_close_matches(name, known, n=1)
        return f"; did you mean `{nearest[0]}`?" if nearest else ""

    def _suggestions(self, ignored: tuple[str, ...]) -> list[FieldError]:
        """Return an error for each unknown field whose name is nearly that of a field."""
        hints = {name: self.hint(name) for name in ignored[:MAX_UNKNOWN]}
        return [FieldError(name, f"unknown field{hint}") for name, hint in hints.items() if hint]

    def _fitted(self, values: Mapping[str, Any], sent_as: Mapping[str, str]) -> dict[str, Any]:
        """Return the values that are lowered to the limits, and under `adjusted` what they are."""
        fields = self.model.model_fields
        sizes = {name: values.get(name, fields[name].default) for name in FITTED}
        lowered = fit(sizes, self.limits)
        adjusted = tuple((sent_as[name], value) for name, value in lowered.items())
        return {**lowered, "adjusted": adjusted} if lowered else {}

    def _over_limits(self, request: GenerateVideo, sent_as: Mapping[str, str]) -> list[FieldError]:
        errors = []
        pixels = request.width * request.height
        if pixels > self.limits.max_pixels:
            detail = (
                f"{request.width} x {request.height} is {pixels} pixels; at most {self.limits.max_pixels} pixels are "
                "accepted (see /limits): make the video smaller"
            )
            errors.append(FieldError(sent_as["width"], detail))
        if request.frames > self.limits.max_frames:
            detail = f"at most {self.limits.max_frames} frames are accepted (see /limits)"
            errors.append(FieldError(sent_as["num_frames"], detail))
        if request.last_image is not None and request.frames < MIN_FRAMES_TO_LAST:
            detail = f"needs a video of at least {MIN_FRAMES_TO_LAST} frames, and this one has {request.frames}: raise "
            errors.append(FieldError(sent_as["last_image"], f"{detail}`{sent_as['num_frames']}`, or leave one of them out"))
        if request.source is not None and request.extend >= request.frames:
            detail = f"must be less than the number of frames of the new video, {request.frames}"
            if sent_as["num_frames"] in dict(request.adjusted):
                detail += ", to which it was lowered because no more are accepted (see /limits)"
            errors.append(FieldError(sent_as["extend"], detail))
        if request.acceleration == "distilled" and request.cfg != 1:
            errors.append(FieldError(sent_as["cfg"], "a distilled model runs without guidance: leave it out, or send 1"))
        return errors

    def defaults(self) -> dict[str, Any]:
        """Return the default of each field that has one, by its documented name."""
        fields = {public[0]: self.model.model_fields[name] for name, public in self.names.items()}
        return {name: info.default for name, info in fields.items() if not info.is_required() and info.default is not None}

    @cached_property
    def properties(self) -> dict[str, Any]:
        """The properties of the JSON Schema of a JSON body, by the documented names."""
        properties: dict[str, Any] = self.json_schema()["properties"]
        return properties

    def json_schema(self, *, form: bool = False) -> dict[str, Any]:
        """Return the JSON Schema for OpenAPI, under the endpoint's public names.

        In a ``form`` files are binary parts; in JSON they are strings.
        """
        schema = self.model.model_json_schema()
        properties = {}
        for name, public in self.names.items():
            properties[public[0]] = openapi_field(schema["properties"][name], form=form, aliases=public[1:])
        required = [self.names[name][0] for name in schema.get("required", [])]
        return {"type": "object", "properties": properties, "required": required}


def _without_guidance(request: GenerateVideo, sent_as: Mapping[str, str]) -> tuple[str, ...]:
    """Return the fields of ``request`` that have no effect, because it has no guidance."""
    if request.cfg != 1:
        return ()
    negative = (sent_as["negative_prompt"],) if request.negative_prompt else ()
    return negative + (("acceleration.guidance_until",) if request.guidance_until < 1 else ())


def _useless_without_source(values: Mapping[str, Any], sent_as: Mapping[str, str]) -> list[FieldError]:
    """Return an error for each field that needs a source video, or another use of it."""
    sent = [name for name in ("strength", "extend") if name in values and str(values[name]).strip() != "0"]
    if "source" not in values:
        return [FieldError(sent_as[name], "needs a `source_video`; leave it out, or send one") for name in sent]
    if len(sent) == 2:
        return [FieldError(sent_as["strength"], "does not go with `extend`, which keeps frames as they are; send one of them")]
    return []


def _is_same(one: object, other: object) -> bool:
    """Return whether two values mean the same, as 33 and "33" do."""
    return one == other or str(one).strip() == str(other).strip()


def _describe(error: Any) -> str:
    if error["type"] == "missing" or (error["type"] == "string_too_short" and error["loc"] == ("prompt",)):
        return REQUIRED
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return str(error["msg"][0].lower() + error["msg"][1:])


_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are blank: fillers of Hangul, and the pattern of Braille without dots."""


def _check_words(prompt: str) -> str:
    """Refuse a prompt of spaces and other characters that do not show."""
    if not any(c.isprintable() and not c.isspace() and c not in _BLANK for c in prompt):
        raise ValueError(REQUIRED)
    return prompt


def video_schema(
    name: str,
    *,
    defaults: VideoDefaults,
    limits: Limits,
    max_loras: int,
    prompt_required: bool,
    frames: tuple[str, ...],
    image: tuple[str, ...] = (),
    face: tuple[str, ...] = (),
    source: tuple[str, ...] = (),
) -> Schema:
    """Return the schema of an endpoint that generates a video.

    ``frames``, ``image``, ``face`` and ``source`` are the public names of those fields; an endpoint
    without names for one of the last three does not have the field.
    """
    prompt = Field(default="", max_length=limits.max_prompt_chars)
    if prompt_required:
        description = "What the video shows, at most 512 tokens."
        prompt = Field(min_length=1, max_length=limits.max_prompt_chars, description=description)
    words = Annotated[str, AfterValidator(_check_words)] if prompt_required else str

    def number(value: float | int, *, highest: float | int, description: str) -> Any:
        return Field(default=value, ge=1, le=highest, description=description)

    fields: dict[str, Any] = {
        "prompt": (words, prompt),
        "negative_prompt": (
            str,
            Field(default="", max_length=limits.max_prompt_chars, description="What the video must not show."),
        ),
        "width": (side(limits.max_width), Field(default=defaults.width, description="Width in pixels.")),
        "height": (side(limits.max_height), Field(default=defaults.height, description="Height in pixels.")),
        "num_frames": (
            Annotated[Count, Field(json_schema_extra={"maximum": limits.max_frames})],
            Field(default=defaults.num_frames, ge=1, description="Number of frames, rounded down to 4k+1."),
        ),
        "steps": (Count, number(defaults.steps, highest=limits.max_steps, description="Number of denoise steps.")),
        "cfg": (
            Number,
            number(
                defaults.cfg,
                highest=limits.max_cfg,
                description="Guidance scale; 1 turns guidance off, which halves the time.",
            ),
        ),
        "fps": (Number, number(defaults.fps, highest=limits.max_fps, description="Frames per second.")),
        "seed": (
            Annotated[Count, Field(ge=0, le=MAX_SEED)] | None,
            Field(default=None, description="Seed of the video; if absent, one is drawn and returned in X-Seed."),
        ),
    }
    fields["loras"] = (
        Annotated[Choices, WithJsonSchema(json_schema(max_loras))],
        Field(
            default=(),
            description="LoRAs that change the model for this video, by the names that GET /loras lists, each with a scale; "
            "several add up. In a form, JSON.",
        ),
    )
    names = {key: (key,) for key in (*fields, "acceleration")} | {"num_frames": frames}
    if image:
        fields["image"] = (File, Field(description="The first frame: JPEG, PNG, WebP, AVIF or HEIC."))
        fields["last_image"] = (
            File | None,
            Field(
                default=None,
                description="The last frame: JPEG, PNG, WebP, AVIF or HEIC. The demo's models were not trained for it.",
            ),
        )
        names |= {"image": image, "last_image": ("last_image",)}
    if source:
        fields["source"] = (
            Video | None,
            Field(default=None, description="A video to make another one of, or to continue: MP4, WebM, MOV, GIF or WebP."),
        )
        strength = "With a source video: the share of the denoise steps that it goes through; 1 leaves nothing of it."
        fields["strength"] = (Share, Field(default=0.7, gt=0, description=strength))
        extend = "With a source video: how many of its last frames the new video begins with; 0 does not continue it."
        most_kept = Field(json_schema_extra={"maximum": made_frames(limits.max_frames) - 1})
        fields["extend"] = (Annotated[Count, most_kept], Field(default=0, ge=0, description=extend))
        names |= {"source": source, "strength": ("strength",), "extend": ("extend",)}
    if face:
        fields["face"] = (Images, Field(description=FACE))
        names |= {"face": face} | {name: (name,) for name in (*SwapFields.model_fields, "require_face")}
    return Schema(
        model=create_model(name, __base__=GenerateVideo, **fields),
        names=names,
        limits=limits,
        second_reference=bool(face) and "reference_image" in image[1:],
        max_loras=max_loras,
        distilled={"steps": defaults.distilled_steps, "cfg": 1},
    )


def image_swap_schema(limits: Limits) -> Schema:
    """Return the schema of /image-faceswap."""
    return Schema(SwapImage, _swap_names(SwapImage, "source_image"), limits)


def video_swap_schema(limits: Limits) -> Schema:
    """Return the schema of /batch-video-faceswap."""
    fps = Field(default=None, description="Frames per second; if absent, the source's own rate.")
    rate = Annotated[Number, Field(ge=1, le=limits.max_fps)] | None
    model = create_model("VideoSwap", __base__=SwapVideo, fps=(rate, fps))
    return Schema(model, _swap_names(model, "source_video"), limits)


def _swap_names(model: type[PipelineRequest], source: str) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in model.model_fields}
    return names | {"source": (source,), "face": ("reference_image",)}
