"""The body of a request: JSON, or a form where a field is a file."""

import json
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

FILE_TYPES = (Path, bytes, bytearray, memoryview)


def encode_body(fields: Mapping[str, Any], files: ExitStack) -> dict[str, Any]:
    """Return the options of httpx that send ``fields``, the same bytes whenever they are used.

    A path, bytes or an open binary file is sent as a file, and a list of them as several, which
    spares the third that base64 would add; everything else is sent as JSON where there is no file.
    The paths stay open until ``files`` is closed. Raises OSError for a path that cannot be read,
    and TypeError for a value that cannot be sent.
    """
    if not any(_is_file(item) for value in fields.values() for item in _items(value)):
        content = json.dumps(dict(fields)).encode()
        return {"content": content, "headers": {"Content-Type": "application/json"}}
    texts: dict[str, list[str]] = {}
    parts: list[tuple[str, tuple[str, bytes | IO[bytes]]]] = []
    for name, value in fields.items():
        items = _items(value)
        if any(map(_is_file, items)):
            if not all(map(_is_file, items)):
                raise TypeError(f"{name}: files and other values cannot be sent in one list")
            parts += [(name, (name, _opened(item, files))) for item in items]
        elif any(isinstance(item, dict) for item in items):
            texts[name] = [json.dumps(value)]  # a form has objects, and lists of them, as JSON
        elif value is not None:
            texts[name] = [_text(name, item) for item in items]
    # With a boundary of our own, the body of a second attempt is that of the first.
    form = f"multipart/form-data; boundary={secrets.token_hex(16)}"
    return {"data": texts, "files": parts, "headers": {"Content-Type": form}}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_file(value: Any) -> bool:
    return isinstance(value, FILE_TYPES) or callable(getattr(value, "read", None))


def _opened(value: Any, files: ExitStack) -> bytes | IO[bytes]:
    if isinstance(value, Path):
        return files.enter_context(value.open("rb"))
    if isinstance(value, FILE_TYPES):
        return bytes(value)
    # What cannot be read again from its beginning is kept for another attempt.
    return value if value.seekable() else value.read()  # type: ignore[no-any-return]


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"{name}: a {type(value).__name__} cannot be sent in a form")
