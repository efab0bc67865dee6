"""A request as it travels to the Runner and as it is stored: JSON, followed by its files.

The layout is an 8-byte big-endian length, that many bytes of JSON, and the files one behind the
other. In the JSON a file is an object with its number, and `sizes` lists the sizes of all files.
Fields with their default values are left out, so that two releases that differ in what they can do
read each other's requests as long as nobody asks for the difference.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from serve.media.spool import PIECE_BYTES, Media, Spool, media_pieces, media_size, open_media, read_media
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo

KINDS: Mapping[str, type[PipelineRequest]] = {
    "generate-video": GenerateVideo,
    "swap-image": SwapImage,
    "swap-video": SwapVideo,
}
"""The requests that can be stored, by the name that is written."""
IN_MEMORY_BYTES = 2**20
"""The size up to which a file of a request is read into memory, and up to which a whole request
travels through a Serve handle and stays there while its job waits; larger ones go to disk."""
_HEAD = struct.Struct(">Q")
_FILE = "file"


class RequestUnreadable(Exception):
    """A stored request is damaged, or was written by another version of this package."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What a job is to do.

    ``model`` is the API name of the model that the endpoint uses first. ``sent_as`` has the names
    that the caller used for the fields, for problems, and ``ignored`` the fields that are unknown.
    """

    endpoint: str
    model: str
    request: PipelineRequest
    sent_as: Mapping[str, str]
    ignored: tuple[str, ...] = ()

    def write(self) -> Media:
        """Return the request in the stored form; a large one is on disk."""
        files: list[Media] = []
        kind, stored = next((name, kind) for name, kind in KINDS.items() if isinstance(self.request, kind))
        document: dict[str, Any] = {
            "kind": kind,
            "endpoint": self.endpoint,
            "model": self.model,
            "sent_as": dict(self.sent_as),
            "ignored": list(self.ignored),
            "fields": {name: _without_files(value, files) for name, value in _chosen(self.request, stored)},
        }
        document["sizes"] = [media_size(media) for media in files]
        text = json.dumps(document).encode()
        head = _HEAD.pack(len(text)) + text
        if len(head) + sum(document["sizes"]) <= IN_MEMORY_BYTES:
            return b"".join([head, *map(read_media, files)])
        spool = Spool.empty()
        spool.write(head)
        for media in files:
            for piece in media_pieces(media):
                spool.write(piece)
        return spool

    def close(self) -> None:
        """Free the space of the request's files at once, even if an error still refers to them."""
        files: list[Media] = []
        for name in type(self.request).model_fields:
            _without_files(getattr(self.request, name), files)
        for media in files:
            if isinstance(media, Spool):
                media.close()


@dataclass(frozen=True, kw_only=True)
class RequestHead:
    """What is needed of a request while its job waits for its turn: all but the files.

    ``kind`` is the class of the request, and ``has_face`` says whether it brings a new face.
    """

    kind: type[PipelineRequest]
    model: str
    sent_as: Mapping[str, str]
    has_face: bool


def head_bytes(start: bytes, size: int) -> int:
    """Return how many of a stored request's ``size`` bytes come before its files.

    ``start`` are its first bytes, of which there must be 8. Raises RequestUnreadable.
    """
    try:
        (length,) = _HEAD.unpack_from(start)
    except struct.error as error:
        raise RequestUnreadable(f"the stored request cannot be read: {error}") from error
    if length > size - _HEAD.size:
        raise RequestUnreadable("the stored request cannot be read: the JSON is longer than the file")
    return _HEAD.size + int(length)


def read_head(start: bytes) -> RequestHead:
    """Return the head of a stored request, which ``start`` holds at least.

    Raises RequestUnreadable if it cannot be one.
    """
    try:
        document = json.loads(start[_HEAD.size : head_bytes(start, len(start))])
        return RequestHead(
            kind=KINDS[document["kind"]],
            model=document["model"],
            sent_as=document["sent_as"],
            has_face=document["fields"].get("face") is not None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestUnreadable(f"the stored request cannot be read: {error!r:.300}") from error


def read_request(stored: Media) -> JobRequest:
    """Return the request that was written; raise RequestUnreadable if it cannot be one."""
    with open_media(stored) as file:
        try:
            start = _exactly(file, _HEAD.size)
            document = json.loads(_exactly(file, head_bytes(start, media_size(stored)) - _HEAD.size))
            files = [_read_file(file, size) for size in document["sizes"]]
            fields = {name: _with_files(value, files) for name, value in document["fields"].items()}
            return JobRequest(
                endpoint=document["endpoint"],
                model=document["model"],
                request=KINDS[document["kind"]].model_validate(fields),
                sent_as=document["sent_as"],
                ignored=tuple(document["ignored"]),
            )
        except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
            raise RequestUnreadable(f"the stored request cannot be read: {error!r:.300}") from error


def _chosen(request: PipelineRequest, stored: type[PipelineRequest]) -> Iterator[tuple[str, object]]:
    """Yield the fields of ``stored`` that have no default, or another value than it.

    The request's own class is that of its endpoint, which has more defaults.
    """
    for name, field in stored.model_fields.items():
        value = getattr(request, name)
        if field.is_required() or value != field.default:
            yield name, value


def _without_files(value: object, files: list[Media]) -> object:
    """Return ``value`` with each file replaced by its number; the files are appended."""
    if isinstance(value, bytes | Spool):
        files.append(value)
        return {_FILE: len(files) - 1}
    if isinstance(value, tuple):
        return [_without_files(item, files) for item in value]
    return value


def _with_files(value: Any, files: list[Media]) -> object:
    if isinstance(value, dict) and set(value) == {_FILE}:
        return files[value[_FILE]]
    if isinstance(value, list):
        return [_with_files(item, files) for item in value]
    return value


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("the file ends too early")
    return data


def _read_file(file: BinaryIO, size: int) -> Media:
    if size <= IN_MEMORY_BYTES:
        return _exactly(file, size)
    spool, left = Spool.empty(), size
    while left:
        piece = _exactly(file, min(left, PIECE_BYTES))
        spool.write(piece)
        left -= len(piece)
    return spool
