"""Requests as parts of a form."""

import base64
import binascii
import json
from typing import Any

from serve.config import AppConfig
from serve.http.endpoints import make_endpoints

ENDPOINTS = {endpoint.name: endpoint for endpoint in make_endpoints(AppConfig())}


def parts_of(body: dict[str, Any]) -> list[tuple[str, tuple[str | None, bytes]]]:
    """Return the parts of a form that says what a JSON body says: files as files, text as text."""
    parts: list[tuple[str, tuple[str | None, bytes]]] = []
    for name, value in body.items():
        several = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
        for item in value if several else [value]:
            content = _file(item) if isinstance(item, str) and item.startswith("data:") else None
            if content is not None:
                parts.append((name, ("file", content)))
            else:
                text = item if isinstance(item, str) else json.dumps(item)
                parts.append((name, (None, text.encode(errors="surrogatepass"))))
    return parts


def _file(uri: str) -> bytes | None:
    """Return the content of a data URI, or None if it is broken."""
    try:
        return base64.b64decode(uri.partition(",")[2])
    except binascii.Error:
        return None
