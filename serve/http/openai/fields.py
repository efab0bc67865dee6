"""Turns the fields of OpenAI's videos API into those of an endpoint, and jobs into its videos."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.http.endpoints import VIDEOS, Endpoint
from serve.http.fitting import fit
from serve.http.openai.parts import REFERENCE, whole_fields
from serve.http.schemas import Schema
from serve.jobs.store.record import Job
from serve.pipelines.fields import is_long_number
from serve.pipelines.requests import made_frames
from serve.problems import invalid

MAX_PROMPT_CHARS = 1_000
"""Length up to which the prompt is kept with the job and shown in its video."""
SWAP = "-faceswap"
_SIZE = re.compile(r"(\d{1,5})\s*[xX]\s*(\d{1,5})")
_SECONDS = re.compile(r"\d{1,5}(\.\d{1,6})?")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a caller of the videos API has ordered, in the terms of an endpoint.

    ``details`` is kept with the job, and ``sent_as`` has the API's name of each field that is
    called otherwise there.
    """

    endpoint: str
    fields: dict[str, Any]
    details: dict[str, Any]
    sent_as: Mapping[str, str]


class VideoModels:
    """The models of the API: the endpoints that generate videos, the default first."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints if endpoint.group == VIDEOS}
        self.names = tuple(self._endpoints)
        aliases = (public for endpoint in self._endpoints.values() for public in endpoint.schema.names.values())
        self._known = frozenset(itertools.chain([REFERENCE], *aliases))

    def order(self, sent: Mapping[str, Any], *, strict: bool = False) -> Order:
        """Return what a request orders; raise a 422 problem for fields that contradict the API.

        All other fields are the endpoint's own, and are checked there. Where the settings say so,
        the endpoint lowers what is over the limits, unless the request is ``strict``.
        """
        fields = whole_fields(sent, self._known)
        model = fields.pop("model", self.names[0])
        if not isinstance(model, str) or model not in self._endpoints:
            raise invalid("model", f"unknown model `{str(model)[:50]}`; available: {', '.join(self.names)}")
        reference = _reference(fields)
        own = self._sends(model, fields, "image")
        has_face = self._sends(model, fields, "face") or self._sends(model, fields, "pairs")
        endpoint = self._endpoint_for(model, reference is not None or own, has_face)
        properties = endpoint.schema.properties
        sent_as: dict[str, str] = {}
        if reference is not None:
            if "image" not in endpoint.schema.names:
                raise invalid(REFERENCE, f"`{model}` makes videos from a prompt only; leave it out")
            name = endpoint.schema.names["image"][0]
            sent_as[name] = REFERENCE
            fields[name] = reference
        elif "image" in endpoint.schema.names and not own:
            sent_as |= dict.fromkeys(endpoint.schema.names["image"], REFERENCE)
        if "size" in fields:
            fields["width"], fields["height"] = _parse_size(fields.pop("size"), fields)
            sent_as |= {"width": "size", "height": "size"}
        frames = endpoint.schema.names["num_frames"]
        rate = _number(fields.get("fps", properties["fps"]["default"]))
        if "seconds" in fields:
            if any(name in fields for name in frames):
                raise invalid("seconds", f"means the same as `{frames[0]}`; send one of them")
            rates = properties["fps"]
            asked = _frames(fields.pop("seconds"), rate, rates=(rates["minimum"], rates["maximum"]))
            if strict or endpoint.schema.limits.oversize == "refuse":
                _check_length(asked, rate, properties[frames[0]]["maximum"])
            fields[frames[0]] = asked
            sent_as |= dict.fromkeys(frames, "seconds")
        made = _made(endpoint.schema, fields)
        prompt = fields.get("prompt")
        details = {
            "model": model,
            "prompt": prompt if isinstance(prompt, str) and len(prompt) <= MAX_PROMPT_CHARS else None,
            "size": f"{_whole(made['width'])}x{_whole(made['height'])}",
            "seconds": _seconds(_number(made["num_frames"]), rate),
        }
        return Order(endpoint=endpoint.name, fields=fields, details=details, sent_as=sent_as)

    def _sends(self, model: str, fields: Mapping[str, Any], own: str) -> bool:
        """Return whether a field is sent, by any name that an endpoint like ``model`` has for it.

        ``own`` is the name that the service itself has for the field.
        """
        base = model.removesuffix(SWAP).removesuffix("-i2v")
        alike = [endpoint for name, endpoint in self._endpoints.items() if name.startswith(base)]
        return any(alias in fields for endpoint in alike for alias in endpoint.schema.names.get(own, ()))

    def _endpoint_for(self, model: str, has_reference: bool, has_face: bool) -> Endpoint:
        """Return the endpoint of a model that takes the images of a request."""
        names = [model]
        if has_reference or has_face:
            names.append(f"{model}-i2v")
        if has_face:
            names = [name + SWAP for name in reversed(names)] + names
        elif has_reference:
            names.reverse()
        return next(self._endpoints[name] for name in names if name in self._endpoints)


def video_of(job: Job) -> dict[str, Any]:
    """Return a job as a video of the API, with our own fields beside those of OpenAI."""
    details = job.details or {}
    states = {"queued": "queued", "starting": "queued", "running": "in_progress", "succeeded": "completed"}
    return {
        "id": job.id,
        "object": "video",
        "model": details.get("model", job.endpoint),
        "status": states.get(job.state, "failed"),
        "progress": 100 if job.state == "succeeded" else math.floor(job.progress.percent),
        "created_at": math.floor(job.created_at),
        "completed_at": None if job.finished_at is None or job.state != "succeeded" else math.floor(job.finished_at),
        "expires_at": math.floor(job.expires_at),
        "prompt": details.get("prompt"),
        "size": details.get("size", ""),
        "seconds": details.get("seconds", ""),
        "remixed_from_video_id": None,
        "error": _error_of(job),
        "seed": job.seed,
        "stage": job.progress.stage,
        "eta_seconds": None if job.ended else job.progress.eta_s,
    }


def _error_of(job: Job) -> dict[str, Any] | None:
    if job.state == "cancelled":
        return {"code": "cancelled", "message": "the job was cancelled"}
    if job.state != "failed":
        return None
    problem = job.problem or {}
    code = str(problem.get("type", "")).rpartition(":")[2].replace("-", "_")
    return {"code": code or "internal", "message": problem.get("detail", "the job failed")}


def _reference(fields: dict[str, Any]) -> Any:
    """Take the reference image out of ``fields``: a file, or an object with a data URI."""
    value = fields.pop(REFERENCE, None)
    if not isinstance(value, dict):
        return value
    if set(value) != {"image_url"}:
        raise invalid(REFERENCE, "send a file, or an object with `image_url` that is a data URI; there are no file ids")
    return value["image_url"]


def _parse_size(value: object, fields: Mapping[str, Any]) -> tuple[int, int]:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise invalid("size", "must be the width and the height in pixels, such as `832x480`")
    if "width" in fields or "height" in fields:
        raise invalid("size", "means the same as `width` and `height`; send one or the other")
    return int(match[1]), int(match[2])


def _made(schema: Schema, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the width, the height and the number of frames of a video as it is ordered.

    What is larger than the limits is lowered where the settings say so. A value that is not valid
    is returned as it is: the endpoint refuses it.
    """
    sizes = {
        own: next((fields[name] for name in schema.names[own] if name in fields), schema.model.model_fields[own].default)
        for own in ("width", "height", "num_frames")
    }
    return sizes | fit(sizes, schema.limits) if schema.limits.oversize == "fit" else sizes


def _frames(value: object, rate: float | None, *, rates: tuple[float, float]) -> int:
    """Return the number of frames that last for some seconds, the first one included.

    ``rates`` are the lowest and the highest number of frames a second.
    """
    text = str(value).strip()
    slowest, fastest = rates
    if isinstance(value, bool) or _SECONDS.fullmatch(text) is None or float(text) <= 0:
        raise invalid("seconds", "must be a positive number, such as `4`")
    if rate is None or not slowest <= rate <= fastest:
        raise invalid("fps", f"must be a number from {slowest:g} to {fastest:g}")
    return math.floor(float(text) * rate) + 1


def _check_length(frames: int, rate: float | None, most: int) -> None:
    """Refuse a length in seconds that makes more frames than the endpoint accepts."""
    if rate is not None and frames > most:
        longest = math.floor((most - 1) / rate * 100) / 100
        raise invalid("seconds", f"at most {longest:g} seconds are accepted at {rate:g} frames a second")


def _seconds(frames: float | None, rate: float | None) -> str:
    """Return the length of a video of ``frames`` as the API gives it, or nothing if unknown."""
    if not frames or not rate:
        return ""
    return f"{round((made_frames(math.floor(frames)) - 1) / rate, 2):g}"


def _whole(value: object) -> object:
    """Return a whole number as the API writes it; the endpoint says what is wrong with others."""
    number = _number(value)
    return value if number is None or not number.is_integer() else int(number)


def _number(value: object) -> float | None:
    """Return a number that a field holds, or None: the endpoint says what is wrong with it."""
    if is_long_number(value):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
