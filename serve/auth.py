"""Who may call: bearer keys, configured as hashes in a file that is read again when it changes."""

import hashlib
import logging
import re
import time
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import Problem

logger = logging.getLogger("ray.serve")

OPEN = ("/", "/health", "/healthz", "/readyz", "/openapi.json", "/docs")
"""Paths that need no key: probes, and the documentation."""

OPEN_BELOW = "/docs/assets/"
"""The same for all below it."""

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})[ \t]+(?P<digest>[0-9a-fA-F]{64})")


class ApiKeys:
    """The keys of a file with a line each: a name, and the SHA-256 of the key in hex. `#` begins a comment.

    The file is looked at again after ``max_age_s``, so that a key is added and removed without a restart (on Kubernetes: by a change of
    the mounted Secret). Raises ValueError or OSError at the start; what cannot be read later is logged, and the last good keys stay.
    """

    def __init__(self, path: Path, max_age_s: float = 5.0) -> None:
        self._path = path
        self._max_age_s = max_age_s
        self._names = self._read()
        self._read_at = time.monotonic()

    def name_of(self, key: str) -> str | None:
        """The name of a key's line; None if there is none."""
        if time.monotonic() - self._read_at > self._max_age_s:
            self._read_at = time.monotonic()
            try:
                self._names = self._read()
            except (OSError, ValueError):
                logger.exception("the API keys were not read again; the last good ones stay in force")
        # Looked up by its hash: how long that takes says nothing of a key.
        return self._names.get(hashlib.sha256(key.encode()).hexdigest())

    def _read(self) -> dict[str, str]:
        names = {}
        for number, line in enumerate(self._path.read_text().splitlines(), 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            found = _LINE.fullmatch(text)
            if found is None:
                raise ValueError(f"{self._path}, line {number}: must be a name and a SHA-256 in hex: printf %s KEY | sha256sum")
            names[found["digest"].lower()] = found["name"]
        return names


class RequireKey:
    """Refuses requests without a valid key with Problem 401."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope["path"].removeprefix(scope.get("root_path", ""))):
            name = self._caller(Headers(scope=scope).get("authorization", ""))
            scope.setdefault("state", {})["caller"] = name
        await self._app(scope, receive, send)

    def _caller(self, authorization: str) -> str:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorized("send your key: `Authorization: Bearer KEY`", "")
        name = self._keys.name_of(key.strip())
        if name is None:
            raise _unauthorized("this key is not valid (any more)", ', error="invalid_token"')
        return name


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _unauthorized(detail: str, error: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": f'Bearer realm="ryla"{error}'})
