"""Finds the label of GB 45438-2025 in the places that formats have for it outside XMP."""

import json

import av

from serve.media.spool import Media, open_media
from serve.provenance.media_types import media_type_of
from serve.provenance.png_texts import png_texts
from serve.provenance.printable import printable

NAME = "AIGC"
"""The keyword of a PNG's text and the tag of an MP4 that hold the label."""
MAX_LABEL_CHARS = 3_000
"""The longest label that is read."""
MADE_BY_AI = "1"
"""The value of `Label` in a label that says that AI made the content; 2 and 3 only suspect it."""
_MAX_FIELDS = 20


def find_label(media: Media) -> str | None:
    """Return the JSON text of a label in a text chunk of a PNG or a tag of an MP4, or None."""
    media_type = media_type_of(media)
    with open_media(media) as file:
        if media_type == "image/png":
            texts = (text for keyword, text in png_texts(file, 4 * MAX_LABEL_CHARS) if keyword == NAME.encode())
            text = next(texts, b"").decode(errors="replace")
        elif media_type in ("video/mp4", "video/quicktime"):
            try:
                with av.open(file, "r", format="mov", metadata_errors="replace") as container:
                    text = container.metadata.get(NAME, "")
            except av.FFmpegError:
                return None
        else:
            return None
    return text if 0 < len(text) <= MAX_LABEL_CHARS else None


def read_label(text: str | None) -> dict[str, str] | None:
    """Return the fields of a label; None for text that is no object with a field `Label`."""
    try:
        value = json.loads(text or "null")
        if not isinstance(value, dict) or "Label" not in value:
            return None
        fields = list({"Label": value["Label"], **value}.items())[:_MAX_FIELDS]  # `Label` is among them
        return {printable(name, 50): printable(item) for name, item in fields}
    except (ValueError, RecursionError):
        return None
