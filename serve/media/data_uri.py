"""Decoding of files that are sent inside JSON, as data URIs or plain base64."""

import base64
import binascii
import re
import string
from urllib.parse import unquote

from serve.media.errors import MediaError

_PREFIX_CHARS = 4096
"""How much of the text is searched for a URL scheme or the header of a data URI."""
_DATA_URI = re.compile(r"data(?::|%3a).*?(?:,|%2c)", re.IGNORECASE | re.DOTALL)
_BASE64 = re.compile(r"; *base64 *,$", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def decode_base64(text: str) -> bytes:
    """Return the bytes of a data URI or of plain base64, with or without line breaks or padding.

    The URL-safe alphabet (``-`` and ``_``) and percent-encoding, as in ``%2B``, are understood too.
    Raises ``MediaError`` for a URL, for a data URI without ``;base64``, for text that is not
    base64, and for an empty file.
    """
    prefix = text[:_PREFIX_CHARS].lstrip("\ufeff" + string.whitespace)
    if _URL.match(prefix):
        raise MediaError("must be the file itself, not a URL: URLs are not fetched; send a data URI or base64")
    if match := _DATA_URI.match(prefix):
        head = match.group()
        if not _BASE64.search(head if head.endswith(",") else unquote(head)):
            raise MediaError("must be encoded as base64, but the data URI has no `;base64`; encode the file as base64")
        text = text[len(text[:_PREFIX_CHARS]) - len(prefix) + match.end() :]
    try:
        data = base64.b64decode(_normalise(text), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("must be a data URI or base64; encode the file as base64") from None
    if not data:
        raise MediaError("must not be empty; send the file as a data URI or base64")
    return data


def _normalise(text: str) -> str:
    """Undo what URLs do to base64, remove whitespace and add padding that is left out."""
    if "%" in text:
        text = unquote(text, errors="strict")
    if re.search(r"\s", text):
        text = "".join(text.split())
    return text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
