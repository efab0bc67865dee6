"""Checks callers' bearer keys, whose hashes are in a file that is read again when it changes."""

import hashlib
import logging
import re
import time
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.problems import Problem

logger = logging.getLogger("ray.serve")

OPEN_PATHS = frozenset({"/", "/health", "/healthz", "/readyz", "/openapi.json", "/docs"})
"""The paths that need no key: probes and the documentation. The proxy and the routes read them."""
OPEN_PREFIXES = ("/docs/assets/",)
"""What the paths begin with below which nothing needs a key."""

REREAD_S = 5.0
"""Seconds after which the file of keys is read again."""

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})[ \t]+(?P<digest>[0-9a-fA-F]{64})")


class ApiKeys:
    """The keys in a file. Each line has a name and a key's SHA-256 in hex; `#` begins a comment.

    A file without any key is malformed: it may be one that is just being written. The file is read
    again after ``REREAD_S``, so that keys are added and removed without a restart
    (on Kubernetes: by changing the mounted Secret). Raises ValueError or OSError when it cannot be
    read at the start; after that the error is logged and the last valid keys stay in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = self._read()
        self._read_at = time.monotonic()

    def name_of(self, key: str) -> str | None:
        """Return the name on a key's line, or None if the key is not valid."""
        if time.monotonic() - self._read_at > REREAD_S:
            self._read_at = time.monotonic()
            try:
                self._names = self._read()
            except (OSError, ValueError):
                logger.exception("the API keys could not be read again; the last valid keys stay in force")
        # Keys are found by their hash, so the time that a search takes reveals nothing about them.
        return self._names.get(hashlib.sha256(key.encode()).hexdigest())

    def _read(self) -> dict[str, str]:
        names = {}
        for number, line in enumerate(self._path.read_text().splitlines(), 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            found = _LINE.fullmatch(text)
            if found is None:
                raise ValueError(
                    f"{self._path}, line {number}: must be a name and a key's SHA-256 in hex; "
                    "`printf %s KEY | sha256sum` prints the hash"
                )
            names[found["digest"].lower()] = found["name"]
        if not names:
            raise ValueError(f"{self._path} contains no key; write the new file beside it and rename it into place")
        return names


class RequireKey:
    """Middleware that refuses requests without a valid key with a 401 problem.

    GET and HEAD of ``OPEN_PATHS`` need no key, nor of anything below the prefixes in
    ``open_prefixes``. Other methods may have a body, which is not read without a key.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, *, open_prefixes: tuple[str, ...] = OPEN_PREFIXES) -> None:
        self._app = app
        self._keys = keys
        self._open_prefixes = open_prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope):
            name = self._authenticate(Headers(scope=scope).get("authorization", ""))
            scope.setdefault("state", {})["caller"] = name
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["method"] in ("GET", "HEAD") and (path in OPEN_PATHS or path.startswith(self._open_prefixes))

    def _authenticate(self, authorization: str) -> str:
        """Return the caller's name."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorized("send your key: `Authorization: Bearer KEY`", "")
        name = self._keys.name_of(key.strip())
        if name is None:
            raise _unauthorized("this key is not valid, or no longer valid", ', error="invalid_token"')
        return name


def _unauthorized(detail: str, error: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": f'Bearer realm="ryla"{error}'})
