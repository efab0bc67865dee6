"""The sound of a file, and what must be known to put it beside other pictures."""

from dataclasses import dataclass
from fractions import Fraction

from serve.media.spool import Media


@dataclass(frozen=True)
class Sound:
    """The audio track of ``file`` that players choose.

    ``start`` is the time in the file, in seconds, that becomes 0. ``copied`` says whether its
    packets can be copied where MP4 can hold their codec; otherwise they are transcoded.
    """

    file: Media
    start: Fraction = Fraction(0)
    copied: bool = True
