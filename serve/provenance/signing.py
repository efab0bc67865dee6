"""Signs results in a worker process, which never has the key."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from serve.media.errors import MediaError
from serve.media.spool import Media, Spool, descriptor_of
from serve.media.workers.messages import Message
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied
from serve.provenance.certificates import Identity
from serve.provenance.manifest import ingredient
from serve.provenance.media_types import media_type_of
from serve.provenance_settings import C2paSettings

logger = logging.getLogger("ray.serve")

TSA_PAUSE_S = 60.0
"""Seconds for which a timestamp authority that failed is not asked again."""
_STRUCTURE = b"\x84\x6aSignature1"
"""How what COSE signs begins: nothing else is signed with the key."""
Define = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
"""Returns the definition of a manifest for those of its ingredients."""
WORKER = "serve.provenance.worker"


class SigningFailed(Exception):
    """A file could not be signed; the message says why.

    ``signed`` says that the signature had been made. Only the timestamp and writing the manifest
    into the file come after it, so that a failure before it is never the authority's.
    """

    def __init__(self, reason: str, *, signed: bool = False) -> None:
        super().__init__(reason)
        self.signed = signed


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of which a result was made; a result of a ``parent`` is a change of it."""

    media: Media
    parent: bool


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signed file, and whether a timestamp authority has confirmed when it was signed."""

    media: Media
    timestamped: bool


class Signer:
    """Signs with one identity, in processes of ``pool``."""

    def __init__(self, identity: Identity, settings: C2paSettings, pool: WorkerPool) -> None:
        self.identity = identity
        self._settings = settings
        self._pool = pool
        self._tsa_from = float("-inf")

    async def sign(self, media: Media, media_type: str, define: Define, sources: Sequence[Source]) -> Signed:
        """Return the file with a manifest, which ``define`` returns for its ingredients.

        If the timestamp authority fails or is late, the manifest has no timestamp, and the
        authority is left alone for a while. It is at fault only if the same files can be signed
        without it: callers choose the files, and theirs must not cost others their timestamps.
        Raises ``SigningFailed``.
        """
        url = self._settings.timestamp_url
        reason: str | None = None
        if url is not None and time.monotonic() >= self._tsa_from:
            try:
                return Signed(
                    media=await self._attempt(media, media_type, define=define, sources=sources, url=url), timestamped=True
                )
            except SigningFailed as error:
                if not error.signed:
                    raise
                reason = str(error)
        signed = Signed(
            media=await self.sign_without_timestamp(media, media_type, define=define, sources=sources), timestamped=False
        )
        if url is not None and reason is not None:
            self._tsa_from = time.monotonic() + TSA_PAUSE_S
            logger.warning(
                "a result is signed without a timestamp, and so are others for %g s: with %s it failed (%s)",
                TSA_PAUSE_S,
                _public(url),
                reason.replace(url, _public(url)),
            )
        return signed

    async def sign_without_timestamp(self, media: Media, media_type: str, define: Define, sources: Sequence[Source]) -> Media:
        """Return the file with a manifest, for which no network is used; see ``sign``."""
        return await self._attempt(media, media_type, define=define, sources=sources, url=None)

    async def _attempt(
        self,
        media: Media,
        media_type: str,
        define: Define,
        sources: Sequence[Source],
        *,
        url: str | None,
    ) -> Media:
        definitions = [ingredient(number, parent=source.parent) for number, source in enumerate(sources, 1)]
        ingredients = [
            {"definition": definition, "media_type": media_type_of(source.media)}
            for definition, source in zip(definitions, sources, strict=True)
        ]
        with ExitStack() as failed:
            out = Spool.empty()
            failed.callback(out.close)
            signed = asyncio.Event()
            try:
                async with asyncio.timeout(self._settings.timeout_s) as limit:
                    async with self._pool.lease() as worker:
                        with ExitStack() as files:
                            answer, _ = await worker.ask(
                                "sign",
                                cpu_s=self._settings.timeout_s,
                                memory_bytes=self._settings.max_memory_bytes,
                                file=files.enter_context(descriptor_of(media)),
                                others=[
                                    out.file.fileno(),
                                    *(files.enter_context(descriptor_of(source.media)) for source in sources),
                                ],
                                respond=self._respond(limit if url else None, signed),
                                media_type=media_type,
                                manifest=define(definitions),
                                ingredients=ingredients,
                                algorithm=self.identity.algorithm,
                                chain={"pem": self.identity.chain},
                                timestamp_url=url,
                                hosts=[] if url is None else [_host(url)],
                            )
            except TimeoutError:
                raise SigningFailed("it took too long", signed=signed.is_set()) from None
            except (WorkerDied, MediaError, RuntimeError) as error:  # the last is a fault in the process
                raise SigningFailed(str(error), signed=signed.is_set()) from error
            if "failed" in answer:
                raise SigningFailed(answer["failed"], signed=signed.is_set())
            failed.pop_all()
        return out.read() if isinstance(media, bytes) else out

    def _respond(self, limit: asyncio.Timeout | None, signed: asyncio.Event | None = None) -> Callable[[Message], Message]:
        """Return what answers with signatures, and then sets ``signed``.

        After a signature, the timestamp must be there soon.
        """
        loop = asyncio.get_running_loop()

        def noted() -> None:
            if signed is not None:
                signed.set()
            if limit is not None:
                self._shorten(limit)

        def respond(question: Message) -> Message:
            data = bytes.fromhex(question["sign"])
            if not data.startswith(_STRUCTURE):
                raise SigningFailed("the process asked for the signature of something other than a manifest")
            try:
                signature = self.identity.sign(data)
            except Exception as error:  # a function of the operator's, which may raise anything
                raise SigningFailed(f"the signer failed: {type(error).__name__}: {error}") from error
            loop.call_soon_threadsafe(noted)
            return {"signature": signature.hex()}

        return respond

    def _shorten(self, limit: asyncio.Timeout) -> None:
        soon = asyncio.get_running_loop().time() + self._settings.timestamp_timeout_s
        when = limit.when()
        if when is not None and not limit.expired():
            limit.reschedule(min(when, soon))


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _public(url: str) -> str:
    """Return a URL without the name, the password and the query, which may hold a key."""
    return urlsplit(url)._replace(netloc=_host(url), query="", fragment="").geturl()
