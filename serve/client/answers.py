"""A service's answers: results, refusals, and whether a result is what its headers say.

The libraries that decode are imported by the functions that need them, so that a program that only
calls a service starts quickly and needs no more than httpx.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from serve.media import EXTENSIONS

RUNNING = "; is the service running?"
"""What is asked where nothing listens."""


class CallFailed(Exception):
    """The service refused a call, a job failed, or an answer is not what its headers say.

    ``status`` is the HTTP status of the refusal, or that of a failed job's problem. ``problem`` is
    the problem as the service sent it (RFC 9457); it is empty if there was none.
    """

    def __init__(self, message: str, status: int | None = None, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem: Mapping[str, Any] = problem or {}


def detail_of(response: httpx.Response) -> str:
    """Return what a refusal says; its body must have been read."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def refusal(name: str, response: httpx.Response) -> CallFailed:
    """Return the error for an answer that is not a result; its body must have been read."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    message = f"{name}: {response.status_code} {detail_of(response)}"
    return CallFailed(message, response.status_code, problem if isinstance(problem, dict) else None)


def no_answer(name: str, url: str, error: httpx.RequestError) -> CallFailed:
    """Return the error for a request that got no answer."""
    hint = RUNNING if isinstance(error, httpx.ConnectError) else ""
    return CallFailed(f"{name}: no answer from {url} ({str(error) or type(error).__name__}){hint}")


@dataclass(frozen=True)
class Answer:
    """A result: the file, its headers, and the seconds that the call took."""

    data: bytes
    headers: httpx.Headers
    seconds: float

    @property
    def media_type(self) -> str:
        """The declared media type, without parameters."""
        return str(self.headers.get("content-type", "")).split(";")[0]

    @property
    def extension(self) -> str:
        """The extension of a file with this answer, without a dot."""
        return EXTENSIONS.get(self.media_type, "bin")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The contents of a decoded file."""

    media_type: str
    width: int
    height: int
    frames: int


def check_answer(endpoint: str, answer: Answer) -> Decoded:
    """Decode every frame of an answer; raise CallFailed if it is not what its headers say."""
    import av.error

    try:
        decoded = decode(answer.data)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, av.error.FFmpegError) as e:
        raise CallFailed(f"{endpoint}: the answer cannot be decoded ({type(e).__name__}: {e})") from e
    faults = []
    if decoded.media_type != answer.media_type:
        faults.append(f"Content-Type is {answer.media_type}, but the file is {decoded.media_type}")
    if str(decoded.frames) != answer.headers.get("x-frames"):
        faults.append(f"X-Frames is {answer.headers.get('x-frames')}, but the file has {decoded.frames}")
    if answer.headers.get("x-frames-swapped") == "0":
        faults.append("no face was swapped")
    if answer.headers.get("x-model") != endpoint:
        faults.append(f"X-Model is {answer.headers.get('x-model')}")
    if faults:
        raise CallFailed(f"{endpoint}: {'; '.join(faults)}")
    return decoded


def decode(data: bytes) -> Decoded:
    """Return what is in an image, an animation or a video; all of it is decoded."""
    import av
    import PIL.Image

    if data[4:8] == b"ftyp":
        with av.open(io.BytesIO(data), mode="r") as container:
            frames = list(container.decode(video=0))
        return Decoded(media_type="video/mp4", width=frames[0].width, height=frames[0].height, frames=len(frames))
    image = PIL.Image.open(io.BytesIO(data))
    count = getattr(image, "n_frames", 1)
    for i in range(count):
        image.seek(i)
        image.load()
    width, height = image.size
    return Decoded(media_type=PIL.Image.MIME[image.format or ""], width=width, height=height, frames=count)
