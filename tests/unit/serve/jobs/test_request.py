import json
import os
import struct
from fractions import Fraction
from typing import Any

import pytest

from serve.jobs.request import IN_MEMORY_BYTES, JobRequest, RequestUnreadable, head_bytes, read_head, read_request
from serve.media.spool import Media, Spool, read_media
from serve.pipelines.requests import GenerateVideo, SwapImage, SwapVideo
from tests.unit.serve.jobs.exact_video import VIDEO


def spool(data: bytes) -> Spool:
    """Return a file on disk."""
    file = Spool.empty()
    file.write(data)
    return file


def job_request(request: Any, model: str = "wan26") -> JobRequest:
    """Return a request whose caller used another name for a field, and one that is unknown."""
    return JobRequest(
        endpoint="wan2.6", model=model, request=request, sent_as={"face": "reference_face"}, ignored=("odd, name",)
    )


@pytest.mark.parametrize(
    "request_",
    [
        GenerateVideo(**VIDEO),
        GenerateVideo(**VIDEO, image=b"first", face=[b"one", b"two"], target_face=[b"three"], require_face=True),
        SwapImage(source=b"picture", face=[b"one"], face_index=3, faces="index"),
        SwapVideo(source=b"film", face=[b"one"], fps=12.5),
    ],
    ids=["text", "pictures", "image", "film"],
)
def test_a_request_is_read_as_it_was_written(request_: Any) -> None:
    written = job_request(request_)
    read = read_request(written.write())
    assert read.request == request_
    assert type(read.request).model_fields.keys() <= type(request_).model_fields.keys()
    assert (read.endpoint, read.model, read.sent_as, read.ignored) == (
        "wan2.6",
        "wan26",
        {"face": "reference_face"},
        ("odd, name",),
    )


class OfAnEndpoint(GenerateVideo):
    """Endpoints have defaults of their own, which may differ from release to release."""

    negative_prompt: str = ""
    strength: float = 0.25


def test_the_defaults_of_an_endpoint_are_written() -> None:
    fields = {name: value for name, value in VIDEO.items() if name != "negative_prompt"}
    read = read_request(job_request(OfAnEndpoint(**fields)).write()).request
    assert type(read) is GenerateVideo
    assert (read.negative_prompt, read.strength) == ("", 0.25)


def fields_of(stored: Media) -> dict[str, Any]:
    """Return the fields in the JSON of a stored request."""
    data = read_media(stored)
    (length,) = struct.unpack(">Q", data[:8])
    fields: dict[str, Any] = json.loads(data[8 : 8 + length])["fields"]
    return fields


def test_what_nobody_asked_for_is_not_written_so_that_an_older_release_can_read_the_rest() -> None:
    required = {name for name, field in GenerateVideo.model_fields.items() if field.is_required()}
    assert set(fields_of(job_request(GenerateVideo(**VIDEO)).write())) == required
    chosen = GenerateVideo(**VIDEO, image=b"first", require_face=True, strength=0.5)
    assert set(fields_of(job_request(chosen).write())) == required | {"image", "require_face", "strength"}


def test_a_frame_rate_stays_exact() -> None:
    read = read_request(job_request(SwapVideo(source=b"film", face=[b"one"], fps=30000 / 1001)).write())
    assert isinstance(read.request, SwapVideo)
    assert read.request.rate == Fraction(30000, 1001)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_large_file_is_written_to_disk_and_read_from_there(in_memory: bool) -> None:
    film = os.urandom(IN_MEMORY_BYTES + 7)
    source: Media = film if in_memory else spool(film)
    stored = job_request(SwapVideo(source=source, face=[b"one", b"two"])).write()
    assert isinstance(stored, Spool)
    read = read_request(stored)
    assert isinstance(read.request, SwapVideo)
    assert isinstance(read.request.source, Spool)
    assert read_media(read.request.source) == film
    assert read.request.face == (b"one", b"two")


def test_a_small_request_is_in_memory_and_the_same_each_time() -> None:
    request = job_request(GenerateVideo(**VIDEO, image=b"first"))
    assert request.write() == request.write()
    assert isinstance(request.write(), bytes)


def damaged() -> dict[str, bytes]:
    """Return stored requests that cannot be read, by what is wrong with them."""
    good = read_media(job_request(SwapImage(source=b"picture", face=[b"one"])).write())
    (length,) = struct.unpack(">Q", good[:8])
    document = json.loads(good[8 : 8 + length])

    def changed(**values: Any) -> bytes:
        text = json.dumps({**document, **values}).encode()
        return struct.pack(">Q", len(text)) + text + good[8 + length :]

    return {
        "empty": b"",
        "cut": good[:-1],
        "cut in the JSON": good[: 8 + length // 2],
        "endless JSON": struct.pack(">Q", 2**60) + good[8:],
        "no JSON": struct.pack(">Q", 4) + b"what" + good,
        "another kind": changed(kind="swap-sound"),
        "a file that is not there": changed(fields={**document["fields"], "source": {"file": 9}}),
        "a field of another version": changed(fields={**document["fields"], "mood": "calm"}),
        "too large a file": changed(sizes=[2**50, 3]),
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_request_is_refused(kind: str) -> None:
    with pytest.raises(RequestUnreadable, match="cannot be read"):
        read_request(damaged()[kind])


@pytest.mark.parametrize(
    ("request_", "has_face"),
    [
        (GenerateVideo(**VIDEO), False),
        (GenerateVideo(**VIDEO, face=[b"one"]), True),
        (SwapImage(source=b"a", face=[b"b"]), True),
    ],
    ids=["text", "face", "image"],
)
def test_the_head_tells_all_but_the_files(request_: Any, has_face: bool) -> None:
    stored = read_media(job_request(request_).write())
    start = stored[: head_bytes(stored[:8], len(stored))]
    head = read_head(start)
    assert (head.kind, head.model, head.has_face) == (type(request_), "wan26", has_face)
    assert head.sent_as == {"face": "reference_face"}
    with pytest.raises(RequestUnreadable):
        read_head(start[:-1])


@pytest.mark.parametrize("kind", ["empty", "cut in the JSON", "endless JSON", "no JSON", "another kind"])
def test_a_damaged_head_is_refused(kind: str) -> None:
    with pytest.raises(RequestUnreadable, match="cannot be read"):
        read_head(damaged()[kind])
