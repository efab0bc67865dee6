"""Requests as parts of a form."""

import base64
from typing import Any

from serve.config import AppConfig
from serve.http.endpoints import make_endpoints

ENDPOINTS = {endpoint.name: endpoint for endpoint in make_endpoints(AppConfig())}


def parts_of(body: dict[str, Any]) -> list[tuple[str, tuple[str | None, bytes]]]:
    """Return the parts of a form that says what a JSON body says: files as files, text as text."""
    parts: list[tuple[str, tuple[str | None, bytes]]] = []
    for name, value in body.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.startswith("data:"):
                parts.append((name, ("file", base64.b64decode(item.partition(",")[2]))))
            else:
                text = str(item).lower() if isinstance(item, bool) else str(item)
                parts.append((name, (None, text.encode())))
    return parts
