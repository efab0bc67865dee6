"""Checks callers' bearer keys, whose hashes are in a file that is read again when it changes.

A key's holder can also be recognised by a link that was signed for them.
"""

import hashlib
import logging
import re
import time
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.callers import signed_links
from serve.problems import Problem
from serve.route_table import DOCS_ASSETS, Row

logger = logging.getLogger("ray.serve")

OPEN_PREFIXES = (f"{DOCS_ASSETS}/",)
"""What the paths begin with below which no GET needs a key."""
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
        self._take(self._read())
        self._read_at = time.monotonic()

    def name_of(self, key: str) -> str | None:
        """Return the name on a key's line, or None if the key is not valid."""
        self._refresh()
        # Keys are found by their hash, so the time that a search takes reveals nothing about them.
        return self._names.get(hashlib.sha256(key.encode()).hexdigest())

    def sign_link(self, name: str, path: str) -> str:
        """Return the query with which a link admits to ``path`` as the caller of that name.

        It is empty if no key of that name is valid now.
        """
        self._refresh()
        digest = self._digests.get(name)
        return "" if digest is None else signed_links.sign(path, digest=digest, now=time.time())

    def name_of_link(self, path: str, query: QueryParams) -> str | None:
        """Return the name of the caller whose link this is, or None if the link is not valid."""
        self._refresh()
        digest = self._link_keys.get(query.get("key", ""))
        if digest is None or not signed_links.is_valid(path, query, digest=digest, now=time.time()):
            return None
        return self._names[digest]

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at > REREAD_S:
            self._read_at = time.monotonic()
            try:
                self._take(self._read())
            except (OSError, ValueError):
                logger.exception("the API keys could not be read again; the last valid keys stay in force")

    def _take(self, names: dict[str, str]) -> None:
        """Let the keys of ``names``, which has each key's name by its hash, be in force."""
        self._names = names
        # If several keys have one name, the last one in the file signs: the newest, as keys are
        # added.
        self._digests = {name: digest for digest, name in names.items()}
        self._link_keys = {signed_links.key_id(digest): digest for digest in names}

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

    The table of routes says which need no key. GET and HEAD of anything below the prefixes in
    ``open_prefixes`` need none either. For a job, they are admitted by the signature of a link
    instead of a key. A body is not read without a key, except by a POST that needs none, such as
    one to verify a file if ``open_verify`` (`provenance.verify.open`) is on: its caller may send a
    key, and is then known by its name.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        *,
        open_prefixes: tuple[str, ...] = OPEN_PREFIXES,
        open_verify: bool = False,
    ) -> None:
        self._app = app
        self._keys = keys
        self._open_prefixes = open_prefixes
        open_rows = [row for row in Row if row.key == "no key" or (row.key == "verify.open" and open_verify)]
        self._open = frozenset((row.method, row.path) for row in open_rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope):
            scope.setdefault("state", {})["caller"] = self._caller_of(scope)
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        method, path = scope["method"], _path_of(scope)
        if method == "POST":
            return (method, path) in self._open and "authorization" not in Headers(scope=scope)
        return method in ("GET", "HEAD") and (("GET", path) in self._open or path.startswith(self._open_prefixes))

    def _caller_of(self, scope: Scope) -> str:
        """Return the name of the caller, who has sent a key or holds a signed link."""
        authorization = Headers(scope=scope).get("authorization", "")
        path, query = _path_of(scope), QueryParams(scope.get("query_string", b""))
        reads_job = scope["method"] in ("GET", "HEAD") and path.startswith(signed_links.PATHS)
        if authorization or not (reads_job and signed_links.is_signed(query)):
            return self._authenticate(authorization)
        name = self._keys.name_of_link(path, query)
        if name is None:
            raise _unauthorized("this link is not valid, or no longer valid: the job's record has new links", "")
        return name

    def _authenticate(self, authorization: str) -> str:
        """Return the caller's name."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorized("send your key: `Authorization: Bearer KEY`", "")
        name = self._keys.name_of(key.strip())
        if name is None:
            raise _unauthorized("this key is not valid, or no longer valid", ', error="invalid_token"')
        return name


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _unauthorized(detail: str, error: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": f'Bearer realm="ryla"{error}'})
