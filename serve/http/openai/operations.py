"""The OpenAPI operations of /v1/videos and /v1/models, and the schemas of their answers."""

from collections.abc import Sequence
from typing import Any

from serve.route_table import Row

OPENAI = "OpenAI"
Operation = dict[str, Any]


def _text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


_WHOLE = {"type": "integer"}
_LATER = {"type": "integer", "nullable": True}
_MAYBE = _text(nullable=True)

VIDEO_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "object", "model", "status", "progress", "created_at", "size", "seconds"],
    "properties": {
        "id": _text(description="The id of the job, with which /jobs/{id} works too."),
        "object": _text(enum=["video"]),
        "model": _text(),
        "status": _text(enum=["queued", "in_progress", "completed", "failed"]),
        "progress": {"type": "integer", "minimum": 0, "maximum": 100},
        "created_at": {**_WHOLE, "description": "Seconds since 1970, as all times here."},
        "completed_at": _LATER,
        "expires_at": _LATER,
        "prompt": {**_MAYBE, "description": "Null if it has more than 1,000 characters."},
        "size": _text(example="832x480"),
        "seconds": _text(example="4"),
        "remixed_from_video_id": _MAYBE,
        "error": {"type": "object", "nullable": True, "properties": {"code": _text(), "message": _text()}},
        "seed": _LATER,
        "stage": _text(),
        "eta_seconds": {"type": "number", "nullable": True},
    },
}
"""The schema of a video: OpenAI's fields, then ours."""

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {"message": _text(), "type": _text(), "code": _MAYBE, "param": _MAYBE},
        }
    },
}
"""The schema of an error, which is a problem in OpenAI's form."""

_VIDEO = {"application/json": {"schema": {"$ref": "#/components/schemas/Video"}}}
_VIDEO_ID = {"name": "id", "in": "path", "required": True, "schema": _text(pattern="^[0-9a-f]{32}$")}
_MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {"id": _text(), "object": _text(enum=["model"]), "created": _WHOLE, "owned_by": _text()},
}


def openai_operations(models: Sequence[str]) -> dict[Row, Operation]:
    """Return the operations of the routes below /v1."""
    model_id = {"name": "id", "in": "path", "required": True, "schema": _text(enum=list(models))}
    paging = [
        _query("after", _text(description="The id of the last video of the page before.")),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        _query("order", _text(enum=["desc", "asc"], default="desc")),
    ]
    deleted = {"id": _text(), "object": _text(enum=["video.deleted"]), "deleted": {"type": "boolean"}}
    binary = {"schema": _text(format="binary")}
    create = _operation("Makes a video", "create-video", answer=("The video", _VIDEO), parameters=[])
    create["requestBody"] = _create_body(models)
    return {
        Row.CREATE_VIDEO: create,
        Row.VIDEOS: _operation(
            "Lists your videos",
            "list-videos",
            answer=("The videos", _list_of({"$ref": "#/components/schemas/Video"})),
            parameters=paging,
        ),
        Row.VIDEO: _operation("Says how far a video is", "video", answer=("The video", _VIDEO), parameters=[_VIDEO_ID]),
        Row.DELETE_VIDEO: _operation(
            "Deletes a video; one that is being made is cancelled",
            "delete-video",
            answer=("The video is deleted", {"application/json": {"schema": {"type": "object", "properties": deleted}}}),
            parameters=[_VIDEO_ID],
        ),
        Row.VIDEO_CONTENT: _operation(
            "Returns the file of a video",
            "video-content",
            answer=("The file", {"video/mp4": binary, "image/jpeg": binary}),
            parameters=[_VIDEO_ID, _query("variant", _text(enum=["video", "thumbnail"], default="video"))],
        ),
        Row.MODELS: _operation("Lists the models", "models", answer=("The models", _list_of(_MODEL)), parameters=[]),
        Row.MODEL: _operation(
            "Names a model", "model", answer=("The model", {"application/json": {"schema": _MODEL}}), parameters=[model_id]
        ),
    }


def _create_body(models: Sequence[str]) -> dict[str, Any]:
    fields = {
        "prompt": _text(description="What the video shows."),
        "model": _text(enum=list(models), default=models[0]),
        "size": _text(description="Width and height in pixels: multiples of 16 within the limits.", example="832x480"),
        "seconds": _text(description="The length of the video.", example="2"),
    }
    reference = {"type": "object", "properties": {"image_url": _text(description="A data URI.")}}
    more = {"type": "object", "description": "All other fields are those of the endpoint of the model.", "required": ["prompt"]}
    as_json = {**more, "properties": {**fields, "input_reference": reference}}
    as_form = {**more, "properties": {**fields, "input_reference": _text(format="binary")}}
    example = {"prompt": "a red circle moves to the right", "seconds": "1", "seed": 7}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": as_json, "example": example},
            "multipart/form-data": {"schema": as_form},
        },
    }


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "object": _text(enum=["list"]),
        "data": {"type": "array", "items": item},
        "first_id": _MAYBE,
        "last_id": _MAYBE,
        "has_more": {"type": "boolean"},
    }
    schema = {"type": "object", "required": ["object", "data"], "properties": properties}
    return {"application/json": {"schema": schema}}


def _operation(summary: str, name: str, answer: tuple[str, dict[str, Any]], parameters: list[Operation]) -> Operation:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "summary": summary,
        "operationId": name,
        "tags": [OPENAI],
        "parameters": parameters,
        "responses": {
            "200": {"description": answer[0], "content": answer[1]},
            "default": {"description": "An error", "content": error},
        },
    }


def _query(name: str, schema: dict[str, Any]) -> Operation:
    return {"name": name, "in": "query", "required": False, "schema": schema}
