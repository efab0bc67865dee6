"""The types of request fields: how a value from JSON or from a form becomes a number or a file.

Each type refuses what Python would accept and JSON does not, and says what to send instead.
"""

from fractions import Fraction
from typing import Annotated, Any, get_args

import pydantic_core
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from deployments.wire import Region
from serve.media.data_uri import decode_base64
from serve.media.errors import MediaError
from serve.media.spool import Media, Spool, read_media

MAX_SEED = 2**63 - 1
MAX_IMAGES = 8
"""The most images of one person that a request may send."""
MAX_PAIRS = 8
"""The most people whose faces one request replaces by other faces each."""
MAX_PADDING = 0.45
"""The largest share of a crop that one side of `mask_padding` may leave out."""
MAX_PAIR_IMAGES = 32
"""The most images of all people in `pairs` together."""
MAX_PAIR_MARKS = 500
"""Number of `[`, `{` and `,` in the text of `pairs`: some five times as many as the longest has."""
MAX_NUMBER_CHARS = 64
"""Length of a number as text, and number of digits of a whole one."""
MAX_LIST_CHARS = 500
"""Length of the text of a short list; a longer one cannot be meant."""


def _check_number(value: object) -> object:
    """Refuse booleans, numbers that are not finite, and numbers that are too long to compute with.

    Python takes the first two for numbers.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    if is_long_number(value):
        raise ValueError(f"must be a number of at most {MAX_NUMBER_CHARS} digits")
    text = str(value).strip().lower() if isinstance(value, float | str) else ""
    if text.lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError("must be a finite number")
    return value


def is_long_number(value: object) -> bool:
    """Return whether a number, or the text of one, has more digits than any that is meant.

    A whole number of some hundred digits does not fit into a float.
    """
    if isinstance(value, str):
        return len(value) > MAX_NUMBER_CHARS
    return isinstance(value, int) and abs(value) >= 10**MAX_NUMBER_CHARS


def _read_file(value: object) -> bytes:
    """Return the bytes of a file that came as a data URI, as base64 or in a form."""
    if isinstance(value, bytes | Spool):
        data = read_media(value)
        if not data:
            raise ValueError("the file is empty; send the complete file")
        return data
    if isinstance(value, list) and value[1:]:
        raise ValueError(f"{len(value)} files were sent; send one")
    if isinstance(value, str):
        try:
            return decode_base64(value)
        except MediaError as e:
            raise ValueError(str(e)) from None
    raise ValueError("must be a string: send the file as a data URI or base64")


def read_media_field(value: object) -> Media:
    """Return a file that may stay on disk, where a large form part already is."""
    return value if isinstance(value, Spool) else _read_file(value)


def _read_images(value: object) -> tuple[bytes, ...]:
    """Return one image or an array of them as a tuple."""
    if not isinstance(value, list):
        return (_read_file(value),)
    if not 1 <= len(value) <= MAX_IMAGES:
        raise ValueError(f"{len(value)} images were sent; send 1 to {MAX_IMAGES} images of one person")
    images = []
    for number, item in enumerate(value, 1):
        try:
            images.append(_read_file(item))
        except ValueError as e:
            raise ValueError(f"image {number} of {len(value)}: {e}") from None
    return tuple(images)


def read_pairs(value: object) -> tuple["Pair", ...]:
    """Return pairs from an array of objects, from its JSON text, or from pairs that were read.

    The error of an earlier reading may stand for the pairs; it is raised again.
    """
    if isinstance(value, ValueError):
        raise value
    if isinstance(value, str):
        if sum(value.count(mark) for mark in "[{,") > MAX_PAIR_MARKS:
            raise ValueError(f"has more than {MAX_PAIR_MARKS} of the characters `[`, `{{` and `,`: send fewer values")
        try:
            value = pydantic_core.from_json(value)
        except ValueError:
            raise ValueError("must be an array of objects, in a form as JSON text") from None
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_PAIRS:
        raise ValueError(f"must be an array of 1 to {MAX_PAIRS} objects with `reference_image` and `target_face`")
    pairs = []
    for number, item in enumerate(value, 1):
        try:
            pairs.append(_read_pair(item))
        except ValueError as e:
            raise ValueError(f"pair {number} of {len(value)}: {e}") from None
    count = sum(len(face) + len(target) for face, target in pairs)
    if count > MAX_PAIR_IMAGES:
        raise ValueError(f"{count} images were sent in all pairs; send at most {MAX_PAIR_IMAGES}")
    return tuple(pairs)


def _read_pair(item: object) -> "Pair":
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(images, list | tuple) for images in item):
        face, target = item  # as a request is stored
        if all(isinstance(data, bytes) for data in (*face, *target)) and face:
            return tuple(face), tuple(target)
    if not isinstance(item, dict):
        raise ValueError("must be an object with `reference_image` and `target_face`")
    names = [name for name in item if name not in ("reference_image", "face_image", "target_face")]
    if names:
        raise ValueError(f"unknown field `{str(names[0])[:100]}`; a pair has `reference_image` and `target_face`")
    face = item.get("reference_image", item.get("face_image"))
    if face is None:
        raise ValueError("has no `reference_image`")
    target = item.get("target_face")
    return _read_images(face), () if target is None else _read_images(target)


def _read_padding(value: object) -> tuple[float, ...]:
    """Return four shares from one number, from an array, or from their text in a form."""
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("[] ").split(",")] if _is_short(value) else []
    items: Any = value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [float(item) for item in items if _check_number(item) is not None] if len(items) in (1, 4) else []
    except (TypeError, ValueError):
        numbers = []
    if not numbers or len(numbers) != len(items):
        raise ValueError("must be one number, or an array of four: top, right, bottom, left")
    if not all(0 <= number <= MAX_PADDING for number in numbers):
        raise ValueError(f"must be 0 to {MAX_PADDING}, a share of the face's crop")
    return tuple(numbers * 4 if len(numbers) == 1 else numbers)


def _read_regions(value: object) -> object:
    """Return an array of names from one, or from their text with commas in a form."""
    if isinstance(value, str):
        if not _is_short(value):
            raise ValueError(f"has {len(value)} characters; send at most {len(_REGIONS)} names")
        value = [part.strip() for part in value.split(",")] if value.strip() else None
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be an array of names, of {', '.join(_REGIONS)}")
    if len(value) > len(_REGIONS):
        raise ValueError(f"{len(value)} names were sent; send at most {len(_REGIONS)}")
    return value


def _is_short(text: str) -> bool:
    """Return whether a text may be split into the items of a list."""
    return len(text) <= MAX_LIST_CHARS


def side(largest: int) -> Any:
    """Return the type of a width or height: a multiple of 16, up to ``largest`` pixels."""

    def check(value: int) -> int:
        nearest = min(max(16, (value + 8) // 16 * 16), largest)
        if value % 16 or not 16 <= value <= largest:
            raise ValueError(f"{value} is not a multiple of 16 between 16 and {largest}; the nearest valid value is {nearest}")
        return value

    schema = WithJsonSchema({"type": "integer", "minimum": 16, "maximum": largest, "multipleOf": 16})
    return Annotated[int, BeforeValidator(_check_number), AfterValidator(check), schema]


Count = Annotated[int, BeforeValidator(_check_number)]
Number = Annotated[float, BeforeValidator(_check_number)]
Share = Annotated[float, BeforeValidator(_check_number), Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""

File = Annotated[bytes, BeforeValidator(_read_file)]
Video = Annotated[Media, BeforeValidator(read_media_field), WithJsonSchema({"type": "string", "format": "binary"})]
IMAGES_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "minItems": 1,
    "maxItems": MAX_IMAGES,
}
PAIRS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("reference_image", "target_face")},
        "required": ["reference_image"],
    },
    "minItems": 1,
    "maxItems": MAX_PAIRS,
}
Padding = Annotated[
    tuple[float, float, float, float],
    BeforeValidator(_read_padding),
    WithJsonSchema(
        {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": MAX_PADDING}, "minItems": 4, "maxItems": 4}
    ),
]
_REGIONS = get_args(Region)
Regions = Annotated[tuple[Region, ...], BeforeValidator(_read_regions), Field(max_length=len(_REGIONS))]
Pair = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""Images of a new face, and of the person whom it replaces, of whom there may be none."""
Pairs = Annotated[tuple[Pair, ...], BeforeValidator(read_pairs), WithJsonSchema(PAIRS_SCHEMA)]
Images = Annotated[tuple[bytes, ...], BeforeValidator(_read_images), WithJsonSchema(IMAGES_SCHEMA)]


def exact_rate(fps: float) -> Fraction:
    """Return the fraction that a frame rate stands for: denominators in use go up to 1001."""
    return Fraction(fps).limit_denominator(1001)
