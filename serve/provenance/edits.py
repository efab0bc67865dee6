"""Changes of a file that leave the rest of it as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve.media.spool import PIECE_BYTES, Media, Spool, open_media


@dataclass(frozen=True)
class Edit:
    """Puts ``data`` in the place of ``removed`` bytes at the offset ``at``."""

    at: int
    data: bytes
    removed: int = 0


def apply(media: Media, edits: Sequence[Edit]) -> Media:
    """Return a file with ``edits``, which do not overlap; as bytes where ``media`` is bytes."""
    if isinstance(media, bytes):
        return b"".join(_pieces(media, edits))
    edited = Spool.empty()
    for piece in _pieces(media, edits):
        edited.write(piece)
    return edited


def _pieces(media: Media, edits: Sequence[Edit]) -> Iterator[bytes]:
    with open_media(media) as file:
        at = 0
        for edit in sorted(edits, key=lambda edit: edit.at):
            left = edit.at - at
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
            yield edit.data
            at = edit.at + edit.removed
            file.seek(at)
        while piece := file.read(PIECE_BYTES):
            yield piece
