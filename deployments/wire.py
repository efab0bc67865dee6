"""All that crosses between replicas. Plain frozen dataclasses over NumPy: no torch, no JSON, no base64.

Arrays arrive read-only at the other side of a handle; copy before writing in place.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""uint8 RGB, ``[n, height, width, 3]``."""
Image = npt.NDArray[np.uint8]
"""uint8 RGB, ``[height, width, 3]``."""

Embedding = npt.NDArray[np.float32]
"""float32 ``[d]``, of length 1: the nearer to 1 the product of two is, the more alike the faces."""

Acceleration = Literal["none", "cache", "distilled", "fp8"]
"""What a caller trades exactness for speed by."""
Stage = Literal["start", "encode", "denoise", "decode"]


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One video to generate. ``image``, where given, has exactly ``height`` x ``width`` pixels.

    ``num_frames`` is 4k+1; ``width`` and ``height`` are multiples of 16; ``cfg`` is the guidance scale (1 turns guidance off).
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    steps: int
    cfg: float
    seed: int
    image: Image | None = None
    acceleration: Acceleration = "none"


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage has begun (``step`` 0) or a step of it has ended (``step`` of ``steps``)."""

    stage: Stage
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class FrameChunk:
    """Consecutive frames of a video; ``index`` is the number of the first one, counted from 0."""

    index: int
    frames: Frames


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a video. ``seconds`` that the replica spent in each stage, waiting for the consumer not included."""

    seconds: dict[str, float]
    acceleration: str = ""
    """What was done other than exactly, as `X-Acceleration` says it; empty: nothing."""


VideoEvent = Progress | FrameChunk | Finished


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face, in pixels of the picture that it was found in.

    ``box`` is float32 ``[4]`` (left, top, right, bottom); ``landmarks`` float32 ``[5, 2]`` (the eye at the picture's left, the other
    eye, nose, mouth corner at the left, the other corner); ``embedding`` float32 ``[d]``, of length 1.
    """

    box: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]
    score: float
    embedding: Embedding

    @property
    def area(self) -> float:
        """Pixels that the box covers."""
        left, top, right, bottom = (float(v) for v in self.box)
        return max(0.0, right - left) * max(0.0, bottom - top)


@dataclass(frozen=True, slots=True)
class Reference:
    """The identity to put into other pictures: the face, and the pixels around it (``face`` is in their coordinates).

    ``seconds``: what it took to find it.
    """

    pixels: Image
    face: Face
    seconds: float = 0.0


Faces = Literal["largest", "all", "left", "right", "index"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which faces are replaced. ``index`` counts from the left, from 0; ``target``: only the face of this person."""

    faces: Faces = "largest"
    index: int = 0
    target: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """The faces in each frame that was looked at, the largest first; ``seconds`` that it took; the engine that will swap them."""

    faces: tuple[tuple[Face, ...], ...]
    seconds: float
    engine: str


@dataclass(frozen=True, slots=True)
class SwapOptions:
    """``restore``: run the restorer, if one is configured; ``visibility`` (0..1): its share in the result;

    ``codeformer_weight`` (0..1): CodeFormer's fidelity, 1 keeps the identity, 0 gives the cleanest face.
    """

    restore: bool = True
    visibility: float = 1.0
    codeformer_weight: float = 0.5


@dataclass(frozen=True, slots=True)
class SwappedChunk:
    """A chunk after the swap; ``seconds`` that it took, and the name of the restorer that ran, or ``none``."""

    index: int
    frames: Frames
    seconds: float
    restorer: str
