"""Calls a deployed service, and checks what it answers by decoding it."""

import io
import time
from dataclasses import dataclass
from typing import Any

import av
import av.error
import httpx
import PIL.Image

from serve.media import EXTENSIONS
from serve.samples import payload

ENDPOINTS = (
    "wan2.6",
    "wan2.6-i2v",
    "wan2.6-i2v-faceswap",
    "wan22-i2v",
    "wan22-i2v-faceswap",
    "image-faceswap",
    "batch-video-faceswap",
)


class CallFailed(Exception):
    """The service refused, or its answer is not what its headers say."""


@dataclass(frozen=True)
class Answer:
    """A result: the file, its headers, and the seconds that it took."""

    data: bytes
    headers: httpx.Headers
    seconds: float

    @property
    def media_type(self) -> str:
        """As declared."""
        return str(self.headers.get("content-type", "")).split(";")[0]

    @property
    def extension(self) -> str:
        """For a file name."""
        return EXTENSIONS.get(self.media_type, "bin")


@dataclass(frozen=True)
class Decoded:
    """What is really in a file."""

    media_type: str
    width: int
    height: int
    frames: int


class Client:
    """One service. ``timeout_s`` is for a whole request: a sleeping model may need minutes to start. ``key``: the caller's, or None."""

    def __init__(self, url: str, timeout_s: float = 1800, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, timeout=timeout_s, headers={"Authorization": f"Bearer {key}"} if key else {}
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, endpoint: str, body: dict[str, Any], timeout_s: float | None = None, accept: str = "*/*") -> Answer:
        """POSTs ``body`` for an answer of the media type ``accept``; raises CallFailed with the problem's detail unless it is 200."""
        start = time.perf_counter()
        try:
            response = self._http.post(
                f"/{endpoint}", json=body, timeout=timeout_s or self._http.timeout, headers={"Accept": accept}
            )
        except httpx.TransportError as e:
            raise CallFailed(f"{endpoint}: no answer from {self.url} ({e})") from e
        if response.status_code != 200:
            raise CallFailed(f"{endpoint}: {response.status_code} {_detail(response)}")
        return Answer(response.content, response.headers, time.perf_counter() - start)

    def wait(self, timeout_s: float) -> None:
        """Until the service accepts requests; raises CallFailed after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                response = self._http.get("/readyz", timeout=5)
                text = f"{response.status_code} {_detail(response)}"
            except httpx.TransportError as e:
                text = str(e)
            else:
                if response.status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise CallFailed(f"{self.url} does not accept requests after {timeout_s:g} s: {text}")
            time.sleep(1)

    def is_ready(self) -> bool:
        """Whether every model is up."""
        try:
            response = self._http.get("/readyz", timeout=5)
        except httpx.TransportError:
            return False
        if response.status_code != 200:
            return False
        return all(model["state"] == "ready" for model in response.json()["models"].values())

    def smoke(self, endpoint: str, timeout_s: float) -> tuple[Answer, Decoded]:
        """Calls an endpoint with its sample and checks the answer; raises CallFailed if anything is wrong with it."""
        if timeout_s <= 0:
            raise CallFailed(f"{endpoint}: not called, the time is over")
        answer = self.call(endpoint, payload(endpoint), timeout_s)
        return answer, check(endpoint, answer)


def check(endpoint: str, answer: Answer) -> Decoded:
    """Decodes every frame; raises CallFailed if media type, model or number of frames differ from the headers."""
    try:
        decoded = decode(answer.data)
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, av.error.FFmpegError) as e:
        raise CallFailed(f"{endpoint}: the answer cannot be decoded ({type(e).__name__}: {e})") from e
    wrong = []
    if decoded.media_type != answer.media_type:
        wrong.append(f"declared as {answer.media_type}, is {decoded.media_type}")
    if str(decoded.frames) != answer.headers.get("x-frames"):
        wrong.append(f"X-Frames says {answer.headers.get('x-frames')}, the file has {decoded.frames}")
    if answer.headers.get("x-frames-swapped") == "0":
        wrong.append("no face was swapped")
    if answer.headers.get("x-model") != endpoint:
        wrong.append(f"X-Model says {answer.headers.get('x-model')}")
    if wrong:
        raise CallFailed(f"{endpoint}: {'; '.join(wrong)}")
    return decoded


def decode(data: bytes) -> Decoded:
    """What is in a picture, an animation or a video, by decoding all of it."""
    if data[4:8] == b"ftyp":
        with av.open(io.BytesIO(data), mode="r") as container:
            frames = list(container.decode(video=0))
        return Decoded("video/mp4", frames[0].width, frames[0].height, len(frames))
    picture = PIL.Image.open(io.BytesIO(data))
    count = getattr(picture, "n_frames", 1)
    for i in range(count):
        picture.seek(i)
        picture.load()
    return Decoded(PIL.Image.MIME[picture.format or ""], *picture.size, count)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
