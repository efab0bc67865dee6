"""The request bodies: one pydantic model an endpoint, made from the settings, so that defaults and limits are the ones in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from deployments.wire import Acceleration, Faces
from serve.config import Limits, VideoDefaults
from serve.errors import REQUIRED, FieldError, invalid_fields
from serve.media.errors import MediaError
from serve.media.images import decode_base64
from serve.media.spool import Media, Spool, read_media

MAX_SEED = 2**63 - 1
MAX_PICTURES = 8


def _media(value: object) -> object:
    """A file as it came in a form, perhaps on disk, or decoded from a data URI or base64."""
    return value if isinstance(value, Spool) else _file(value)


def _file(value: object) -> object:
    """The bytes of a file."""
    if isinstance(value, bytes | Spool):
        return read_media(value)
    if isinstance(value, str):
        try:
            return decode_base64(value)
        except MediaError as e:
            raise ValueError(str(e)) from None
    raise ValueError("not a string; send the file as a data URI or base64")


def _side(most: int) -> Any:
    """A width or height: a multiple of 16 up to ``most``."""

    def check(value: int) -> int:
        nearest = min(max(16, (value + 8) // 16 * 16), most)
        if value % 16 or not 16 <= value <= most:
            raise ValueError(f"{value} is not a multiple of 16 between 16 and {most}; the nearest valid value is {nearest}")
        return value

    shown = WithJsonSchema({"type": "integer", "minimum": 16, "maximum": most, "multipleOf": 16})
    return Annotated[int, BeforeValidator(_number), AfterValidator(check), shown]


def _number(value: object) -> object:
    """Refuses what Python takes for a number and JSON does not."""
    if isinstance(value, bool):
        raise ValueError("a boolean, where a number is due")
    text = str(value).strip().lower() if isinstance(value, float | str) else ""
    if text.lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError("not a finite number")
    return value


def _files(value: object) -> object:
    """One file, or an array of them."""
    if not isinstance(value, list):
        return (_file(value),)
    if not 1 <= len(value) <= MAX_PICTURES:
        raise ValueError(f"{len(value)} pictures; send 1 to {MAX_PICTURES}, all of one person")
    files = []
    for i, one in enumerate(value):
        try:
            files.append(_file(one))
        except ValueError as e:
            raise ValueError(f"picture {i + 1} of {len(value)}: {e}") from None
    return tuple(files)


File = Annotated[bytes, BeforeValidator(_file)]
Video = Annotated[Media, BeforeValidator(_media), WithJsonSchema({"type": "string", "format": "binary"})]
_PICTURES = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1, "maxItems": MAX_PICTURES}
Pictures = Annotated[tuple[bytes, ...], BeforeValidator(_files), WithJsonSchema(_PICTURES)]
Count = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]


def _rate(fps: float) -> Fraction:
    """The fraction that was meant: the denominators in use go up to 1001."""
    return Fraction(fps).limit_denominator(1001)


_FACE = "The face to put in: a picture as a data URI or base64, or several of the same person, which are averaged."


class Body(BaseModel):
    """Base of all bodies. Names are ours; ``Schema`` knows what each is called at its endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SwapFields(Body):
    """What every face swap takes."""

    faces: Faces = Field(
        default="largest", description="Which faces are replaced: the largest, all, or one counted from the left."
    )
    face_index: Annotated[Count, Field(ge=0, le=999)] = Field(
        default=0, description="With `faces: index`: the number of the face, from the left, from 0."
    )
    target_face: Pictures | None = Field(default=None, description="Pictures of the person to be replaced; nobody else is.")
    restore_face: bool = Field(default=True, description="Sharpen swapped faces, if a restorer is configured.")
    face_restore_visibility: Share = Field(default=1.0, description="Share of the restored face in the result, 0 to 1.")
    codeformer_weight: Share = Field(default=0.5, description="CodeFormer's fidelity, 0 (cleanest) to 1 (most like the face).")


class VideoBody(SwapFields):
    """A video to generate. ``image`` and ``face`` where the endpoint has them."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: Count
    steps: Count
    cfg: Number
    fps: Number
    seed: int | None
    acceleration: Acceleration = Field(
        default="none",
        description="Faster, not exact. `cache`: passes that would change little are not run; `fp8`: 8-bit products, on GPUs with such; "
        "`distilled`: a model taught to need few steps and no guidance.",
    )
    image: File | None = None
    face: Pictures | None = None
    require_face: bool = False

    @property
    def rate(self) -> Fraction:
        """The wanted rate, exactly as a fraction."""
        return _rate(self.fps)

    @property
    def frames(self) -> int:
        """Frames that will be made: Wan makes 4k+1, so the number is rounded down to one."""
        return (self.num_frames - 1) // 4 * 4 + 1


class ImageSwapBody(SwapFields):
    """A picture whose face is replaced."""

    source: File
    face: Pictures = Field(description=_FACE)


class VideoSwapBody(SwapFields):
    """A video whose faces are replaced."""

    source: Video
    face: Pictures = Field(description=_FACE)
    fps: Number | None = None
    require_face: bool = False

    @property
    def rate(self) -> Fraction | None:
        """The wanted rate, exactly as a fraction."""
        return None if self.fps is None else _rate(self.fps)


@dataclass(frozen=True)
class Parsed:
    """A valid body, what the caller called its fields, and which fields are none."""

    body: Body
    sent_as: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """A body and what its fields are called at one endpoint: our name -> names there, the documented one first."""

    body: type[Body]
    names: Mapping[str, tuple[str, ...]]
    limits: Limits
    second_reference: bool = field(default=False)
    """Where both pictures are given, `reference_image` is the face, else the picture."""
    distilled: Mapping[str, Any] = field(default_factory=dict)
    """Our fields' defaults with `acceleration: distilled`."""

    def parse(self, given: Mapping[str, Any], *, strict: bool) -> "Parsed":
        """The validated body; raises Problem 422 naming each wrong field."""
        values = {name: value for name, value in given.items() if value is not None}
        names = dict(self.names)
        if self.second_reference and "source_image" in values:
            names |= {"image": ("source_image",), "face": ("face_image", "reference_image")}
        ours: dict[str, Any] = {}
        sent_as = {name: public[0] for name, public in names.items()}
        errors: list[FieldError] = []
        for name, public in names.items():
            present = [alias for alias in public if alias in values]
            if present:
                ours[name], sent_as[name] = values[present[0]], present[0]
                errors += [
                    FieldError(alias, f"means the same as `{present[0]}` and differs from it; send one of them")
                    for alias in present[1:]
                    if not _same(values[alias], values[present[0]])
                ]
        known = {alias for public in names.values() for alias in public}
        ignored = tuple(name for name in given if name not in known)
        if strict:
            errors += [FieldError(name, "unknown field, and `Prefer: handling=strict` was sent") for name in ignored]
        if ours.get("acceleration") == "distilled":
            ours = {**self.distilled, **ours}
        try:
            body = self.body.model_validate(ours)
        except ValidationError as e:
            for error in e.errors(include_url=False, include_input=False):
                errors.append(FieldError(sent_as[str(error["loc"][0])], _describe(error)))
            raise invalid_fields(errors) from None
        errors += self._over_limits(body, sent_as)
        if isinstance(body, VideoBody) and body.cfg == 1 and body.negative_prompt:
            ignored += (sent_as["negative_prompt"],)
            if strict:
                errors.append(FieldError(ignored[-1], "does nothing without guidance, and `Prefer: handling=strict` was sent"))
        if errors:
            raise invalid_fields(errors)
        return Parsed(body, sent_as, ignored)

    def _over_limits(self, body: Body, sent_as: Mapping[str, str]) -> list[FieldError]:
        if not isinstance(body, VideoBody):
            return []
        errors = []
        if body.width * body.height > self.limits.max_pixels:
            most = f"at most {self.limits.max_pixels} pixels are accepted (see /limits): make the video smaller"
            errors.append(
                FieldError(sent_as["width"], f"{body.width} x {body.height} is {body.width * body.height} pixels; {most}")
            )
        if body.frames > self.limits.max_frames:
            errors.append(
                FieldError(sent_as["num_frames"], f"at most {self.limits.max_frames} frames are accepted (see /limits)")
            )
        if body.acceleration == "distilled" and body.cfg != 1:
            errors.append(FieldError(sent_as["cfg"], "a distilled model runs without guidance: leave it out, or send 1"))
        return errors

    def json_schema(self, *, form: bool = False) -> dict[str, Any]:
        """JSON Schema under the endpoint's own names, for OpenAPI; in a ``form`` files are files."""
        schema = self.body.model_json_schema()
        properties = {}
        for name, public in self.names.items():
            entry = dict(schema["properties"][name])
            entry.pop("title", None)
            if "anyOf" in entry:  # null is the same as absent, on every field: OpenAPI 3.0 has no type for it
                entry |= next(kind for kind in entry.pop("anyOf") if kind["type"] != "null")
                entry.pop("default", None)
            for ours, theirs in (("ge", "minimum"), ("le", "maximum")):  # pydantic's own words, behind a validator
                if ours in entry:
                    entry[theirs] = entry.pop(ours)
            if entry.get("items", {}).get("format") == "binary" and not form:
                text = {"type": "string"}
                entry = {"description": entry["description"], "oneOf": [text, {**_PICTURES, "items": text}]}
            if entry.get("format") == "binary":
                file = {"format": "binary"} if form else {}
                entry = {"type": "string", "description": entry.get("description", ""), **file}
            if public[1:]:
                entry["description"] = (
                    f"{entry.get('description', '')} Also called {', '.join(f'`{n}`' for n in public[1:])}.".strip()
                )
            properties[public[0]] = entry
        required = [self.names[name][0] for name in schema.get("required", [])]
        return {"type": "object", "properties": properties, "required": required}


def _same(one: object, other: object) -> bool:
    """Whether two values mean the same: 33 and "33" do."""
    return one == other or str(one).strip() == str(other).strip()


def _describe(error: Any) -> str:
    if error["type"] == "missing" or (error["type"] == "string_too_short" and error["loc"] == ("prompt",)):
        return REQUIRED
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return str(error["msg"][0].lower() + error["msg"][1:])


def video_schema(
    name: str,
    defaults: VideoDefaults,
    limits: Limits,
    *,
    prompt_required: bool,
    frames: tuple[str, ...],
    image: tuple[str, ...] = (),
    face: tuple[str, ...] = (),
) -> Schema:
    """The schema of an endpoint that generates a video, with the defaults and limits in force."""
    text = Field(max_length=limits.max_prompt_chars, description="What the video shows, at most 512 tokens.")
    if prompt_required:
        text = Field(min_length=1, max_length=limits.max_prompt_chars, description="What the video shows, at most 512 tokens.")

    def number(value: float | int, low: float | int, high: float | int, description: str) -> Any:
        return Field(default=value, ge=low, le=high, description=description)

    fields: dict[str, Any] = {
        "prompt": (str, text if prompt_required else Field(default="", max_length=limits.max_prompt_chars)),
        "negative_prompt": (str, Field(default="", max_length=limits.max_prompt_chars, description="What it must not show.")),
        "width": (_side(limits.max_width), Field(default=defaults.width, description="Pixels.")),
        "height": (_side(limits.max_height), Field(default=defaults.height, description="Pixels.")),
        "num_frames": (
            Annotated[Count, Field(json_schema_extra={"maximum": limits.max_frames})],
            Field(default=defaults.num_frames, ge=1, description="Frames, rounded down to 4k+1."),
        ),
        "steps": (Count, number(defaults.steps, 1, limits.max_steps, "Denoise steps.")),
        "cfg": (Number, number(defaults.cfg, 1, limits.max_cfg, "Guidance scale; 1 turns guidance off, and halves the time.")),
        "fps": (Number, number(defaults.fps, 1, limits.max_fps, "Frames a second.")),
        "seed": (
            Annotated[Count, Field(ge=0, le=MAX_SEED)] | None,
            Field(default=None, description="Absent: drawn, and said in X-Seed."),
        ),
    }
    names = {key: (key,) for key in (*fields, "acceleration")} | {"num_frames": frames}
    if image:
        fields["image"] = (File, Field(description="The first frame: JPEG, PNG or WebP as a data URI or base64."))
        names["image"] = image
    if face:
        fields["face"] = (Pictures, Field(description=_FACE))
        names |= {"face": face} | {name: (name,) for name in (*SwapFields.model_fields, "require_face")}
    body = create_model(name, __base__=VideoBody, **fields)
    distilled = {"steps": defaults.distilled_steps, "cfg": 1}
    return Schema(body, names, limits, bool(face) and "reference_image" in image[1:], distilled)


def image_swap_schema(limits: Limits) -> Schema:
    """The schema of /image-faceswap."""
    return Schema(ImageSwapBody, _swap_names(ImageSwapBody, "source_image"), limits)


def video_swap_schema(limits: Limits) -> Schema:
    """The schema of /batch-video-faceswap."""
    fps = Field(default=None, description="Frames a second; absent: the source's own.")
    rate = Annotated[Number, Field(ge=1, le=limits.max_fps)] | None
    body = create_model("VideoSwap", __base__=VideoSwapBody, fps=(rate, fps))
    return Schema(body, _swap_names(body, "source_video"), limits)


def _swap_names(body: type[Body], source: str) -> Mapping[str, tuple[str, ...]]:
    return {name: (name,) for name in body.model_fields} | {"source": (source,), "face": ("reference_image",)}
