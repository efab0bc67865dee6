"""What crosses between replicas: frozen dataclasses over NumPy arrays.

They contain no torch, JSON or base64. Arrays that arrive through a handle are read-only; copy
one before writing to it.
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
"""float32 ``[d]`` of length 1. The dot product of two is near 1 if the faces are alike."""

Acceleration = Literal["none", "cache", "distilled", "fp8"]
"""The way in which a caller trades exactness for speed."""
Stage = Literal["start", "encode", "denoise", "decode"]


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA that a request asks for."""

    name: str
    scale: float = 1.0
    """How much its changes count."""


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One video to generate.

    ``width`` and ``height`` are multiples of 16; ``num_frames`` is 4k+1; ``cfg`` is the guidance
    scale (1 turns guidance off); ``image``, if given, has exactly ``height`` x ``width`` pixels.
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
    cache_every: int = 0
    """With `cache`: the interval of the steps that are computed; 0 leaves that to the threshold."""
    guidance_until: float = 1.0
    """Share of the steps, over 0 to 1, after which the pass without the prompt is left out."""
    loras: tuple[LoraChoice, ...] = ()
    """The LoRAs whose changes are added to the model, by their names."""
    last_image: Image | None = None
    """The last frame, of exactly the video's size."""
    lead: Frames | None = None
    """Frames with which the video begins, of exactly its size and fewer than it has. They stand in
    place of ``image``."""
    source: Frames | None = None
    """A video to make another one of, with as many frames and of exactly the same size."""
    strength: float = 1.0
    """Share of the denoise steps, over 0 to 1, that ``source`` goes through."""

    @property
    def takes_image(self) -> bool:
        """Whether some of the frames are given."""
        return self.image is not None or self.last_image is not None or self.lead is not None

    @property
    def denoise_steps(self) -> int:
        """The number of denoise steps that run: all of ``steps``, or the last ones."""
        return self.steps if self.source is None else max(1, min(int(self.steps * self.strength), self.steps))


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage has begun (``step`` is 0), or one of its steps has ended (``step`` of ``steps``)."""

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
    """The last event of a video."""

    seconds: dict[str, float]
    """The time that the replica spent in each stage, without waiting for the consumer."""
    acceleration: str = ""
    """The deviations from the exact computation, as in `X-Acceleration`; empty if there are
    none."""
    loras: str = ""
    """The LoRAs that were added, as in `X-Loras`; empty if there were none."""


VideoEvent = Progress | FrameChunk | Finished


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face, in pixels of the image that it was found in."""

    box: npt.NDArray[np.float32]
    """float32 ``[4]``: left, top, right, bottom."""
    landmarks: npt.NDArray[np.float32]
    """float32 ``[5, 2]``: the left eye, the right eye, the nose, the left and the right corner of
    the mouth, as they are seen when the face is upright."""
    score: float
    embedding: Embedding
    length: float = 1.0
    """The length that the recogniser gave the embedding; it is higher for clearer pictures."""
    certain: bool = True
    """Whether the landmarks can be trusted; a face whose landmarks cannot be is left alone."""
    source: int = 0
    """With several references, the number of the one that replaces the face."""

    @property
    def area(self) -> float:
        """The area of the box in pixels."""
        left, top, right, bottom = (float(v) for v in self.box)
        return max(0.0, right - left) * max(0.0, bottom - top)


@dataclass(frozen=True, slots=True)
class Reference:
    """The identity to put into other images."""

    pixels: Image
    """The face and its surroundings."""
    face: Face
    """The face, in coordinates of ``pixels``."""
    seconds: float = 0.0
    """How long it took to find the face."""
    parsed: bool = False
    """Whether the engine has a face parser, which ``SwapOptions.regions`` need."""


References = Reference | tuple[Reference, ...]
"""One reference, or those that ``Face.source`` counts."""
Faces = Literal["largest", "all", "left", "right", "index", "map"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which faces are replaced."""

    faces: Faces = "largest"
    index: int = 0
    """With ``faces="index"``, the number of the face, counted from the left, from 0."""
    target: Embedding | None = None
    """If given, only the face of this person is replaced."""
    people: tuple[Embedding | None, ...] = ()
    """With ``faces="map"``, the person whom each reference replaces; None is the next new person,
    counted from the left."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """The faces in each analysed frame."""

    faces: tuple[tuple[Face, ...], ...]
    """Per frame, the largest face first."""
    seconds: float
    """How long the analysis took."""
    engine: str
    """The name of the engine that will swap the faces."""


Region = Literal[
    "skin",
    "left-eyebrow",
    "right-eyebrow",
    "left-eye",
    "right-eye",
    "glasses",
    "nose",
    "mouth",
    "upper-lip",
    "lower-lip",
]
"""A part of a face that a face parser tells apart."""


@dataclass(frozen=True, slots=True)
class SwapOptions:
    """How a swapped face is restored and blended in."""

    restore: bool = True
    """Whether the restorer runs, if one is configured."""
    visibility: float = 1.0
    """The share of the restored face in the result, 0 to 1."""
    codeformer_weight: float = 0.5
    """CodeFormer's fidelity: 1 keeps the identity, 0 gives the cleanest face."""
    blend: float = 1.0
    """The share of the new faces in the result, 0 to 1."""
    padding: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """The shares of the crop that stay as they are: at the top, right, bottom and left."""
    regions: tuple[Region, ...] = ()
    """The parts of a face that are replaced; empty for all of them."""


@dataclass(frozen=True, slots=True)
class SwappedChunk:
    """A chunk after the swap."""

    index: int
    frames: Frames
    seconds: float
    """How long the swap took."""
    restorer: str
    """The name of the restorer that ran, or ``none``."""
