"""The result of a pipeline."""

from dataclasses import dataclass
from fractions import Fraction

from serve.media.spool import Media


@dataclass
class SwapTally:
    """Counts over all frames of a face swap, filled while frames come out."""

    frames: int = 0
    swapped: int = 0
    most_faces: int = 0
    uncertain: int = 0
    engine: str = ""
    restorer: str = "none"


@dataclass(frozen=True)
class Result:
    """A finished file and what is known about it.

    ``fps`` is None for an image, ``seed`` where no video was generated, and ``swap`` where no face
    was swapped. ``attempts`` counts how often the request was started, and ``damaged`` the frames
    of the source that could not be decoded, each replaced by the last good frame.
    """

    data: Media
    media_type: str
    frames: int
    fps: Fraction | None = None
    seed: int | None = None
    swap: SwapTally | None = None
    attempts: int = 1
    adjusted: tuple[tuple[str, int], ...] = ()
    """Fields that were lowered to the limits, with the values that were used."""
    damaged: int = 0
    marks: tuple[str, ...] = ()
    """What says that a machine made the file, as members of the header `X-Provenance`."""
