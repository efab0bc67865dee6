"""Marks finished results: where they leave the pipeline, and before anybody can have them."""

import asyncio
import hashlib
import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from deployments.errors import RequestRefused
from serve.media.errors import MediaError
from serve.media.spool import Media, descriptor_of, media_pieces
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied
from serve.provenance.certificates import SOON, CertificateRefused, Identity, load_identity
from serve.provenance.demo_certificate import demo_identity
from serve.provenance.embedding import NotEmbedded, embed
from serve.provenance.manifest import manifest_of
from serve.provenance.signing import WORKER, Signer, SigningFailed, Source
from serve.provenance.statement import Label, Statement
from serve.provenance.trial import PICTURE, PICTURE_TYPE, TRIAL
from serve.provenance.xmp import Properties, aigc_json, write_packet
from serve.provenance_settings import ProvenanceSettings

logger = logging.getLogger("ray.serve")

LOOK_S = 60.0
"""Seconds within which the marks of a source must be read."""
NUMBER_CHARS = 32
"""The length of a result's number in the label of GB 45438-2025."""


@dataclass(frozen=True)
class Marked:
    """A result with its marks, which are members of the header `X-Provenance`."""

    media: Media
    marks: tuple[str, ...]


class Marking:
    """Puts metadata and manifests into results, as the settings say.

    ``start`` must have returned before anything is marked.
    """

    def __init__(self, settings: ProvenanceSettings, *, demo: bool, processes: int) -> None:
        self._settings = settings
        self._demo = demo
        self._pool = WorkerPool(min(2, processes), WORKER)
        self._places = asyncio.Semaphore(processes)
        self._signer: Signer | None = None

    async def start(self) -> None:
        """Load the certificate and sign something with it.

        Raises ``CertificateRefused`` if that does not work.
        """
        identity = await asyncio.to_thread(identity_for, self._settings, demo=self._demo)
        if identity is None:
            if self._settings.c2pa.enabled:
                logger.warning("results are not signed, since provenance.c2pa has no certificate; docs/provenance.md says how")
            return
        signer = Signer(identity, self._settings.c2pa, self._pool)
        try:
            await signer.sign_without_timestamp(PICTURE, PICTURE_TYPE, partial(_define, TRIAL, self._settings, identity), ())
        except SigningFailed as error:
            raise CertificateRefused(f"nothing can be signed with the certificate of `{identity.name}`: {error}") from None
        self._signer = signer

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    @property
    def signs(self) -> bool:
        """Whether results get a manifest."""
        return self._signer is not None

    async def look(self, sources: Mapping[str, Source]) -> tuple[Properties, ...]:
        """Return the metadata of sources, by the fields in which they were sent.

        Raises RequestRefused for a source whose marks would be lost, because nothing here could
        keep them.
        """
        return tuple([await self._look_at(field, source) for field, source in sources.items()])

    async def _look_at(self, field: str, source: Source) -> Properties:
        try:
            async with asyncio.timeout(LOOK_S), self._places, self._pool.lease() as worker:
                with descriptor_of(source.media) as file:
                    answer, _ = await worker.ask(
                        "find",
                        cpu_s=LOOK_S,
                        memory_bytes=self._settings.c2pa.max_memory_bytes,
                        file=file,
                        manifest=source.parent and not self.signs,
                    )
        except (TimeoutError, WorkerDied, MediaError, RuntimeError) as error:
            logger.warning("the marks of a source (`%s`) cannot be read: %r", field, error)
            return Properties({})
        if answer["manifest"]:
            raise RequestRefused(
                field,
                "carries a C2PA manifest, which would be lost, since this service signs nothing (provenance.c2pa): "
                "send it to a service that does",
            )
        carries_type = source.parent and "digital_source_type" in answer["properties"]
        if carries_type and not (self._settings.metadata.enabled or self.signs):
            raise RequestRefused(
                field,
                "carries IPTC's digital source type, which would be lost, since this service writes no metadata "
                "(provenance.metadata): send it to a service that does",
            )
        return Properties(answer["properties"])

    async def mark(
        self,
        media: Media,
        media_type: str,
        statement: Statement,
        *,
        sources: Sequence[Source] = (),
        properties: Sequence[Properties] = (),
    ) -> Marked:
        """Return a result with the marks of the settings.

        What cannot be done is logged, and its mark says so: no result is lost for it.
        """
        marks: list[str] = []
        metadata, aigc = self._settings.metadata, self._settings.aigc
        label = None
        if aigc.enabled:
            label = Label(producer=aigc.producer, number=await asyncio.to_thread(_number, media))
            logger.info("result of request %s: AIGC ProduceID %s", statement.request_id, label.number)
        if metadata.enabled or label is not None:
            packet = write_packet(
                statement, request=metadata.request, label=label, sources=properties, described=metadata.enabled
            )
            text = None if label is None else aigc_json(label)
            done = "metadata" if metadata.enabled else None, None if label is None else "aigc"
            try:
                media = await asyncio.to_thread(embed, media, media_type, packet, aigc=text)
            except (NotEmbedded, ValueError, struct.error) as error:
                logger.error("request %s: no metadata could be written", statement.request_id, exc_info=error)
                marks += [f"{name}=failed" for name in done if name]
            else:
                marks += [name for name in done if name]
            if aigc.visible:
                marks[-1] += ";label=visible"
        if self._signer is not None:
            media, mark = await self._sign(self._signer, media, media_type, statement, sources)
            marks.append(mark)
        return Marked(media, tuple(marks))

    async def _sign(
        self, signer: Signer, media: Media, media_type: str, statement: Statement, sources: Sequence[Source]
    ) -> tuple[Media, str]:
        """Return the signed result and the mark that says how; as it is if it cannot be signed."""
        parameters = ["certificate=test"] if signer.identity.is_test else []
        define = partial(_define, statement, self._settings, signer.identity)
        async with self._places:
            try:
                signed = await signer.sign(media, media_type, define, sources)
                if sources:
                    parameters.append("sources=kept")
            except SigningFailed as error:
                logger.warning("request %s: the result could not be signed: %s", statement.request_id, error)
                if not sources:
                    return media, "c2pa=failed"
                try:  # what a source carries may be what is at fault
                    signed = await signer.sign(media, media_type, define, ())
                except SigningFailed as again:
                    logger.warning("request %s: nor without its sources: %s", statement.request_id, again)
                    return media, "c2pa=failed"
                parameters.append("sources=unreadable")
        if self._settings.c2pa.timestamp_url is not None:
            parameters.append("timestamp=yes" if signed.timestamped else "timestamp=failed")
        return signed.media, ";".join(["c2pa", *parameters])


def identity_for(settings: ProvenanceSettings, *, demo: bool) -> Identity | None:
    """Return with what results are signed, or None if they are not.

    Raises ``CertificateRefused``.
    """
    if not settings.c2pa.enabled:
        return None
    identity = load_identity(settings.c2pa)
    if identity is None:
        return demo_identity(settings.c2pa.folder) if demo else None
    warn_if_soon_over(identity)
    return identity


def warn_if_soon_over(identity: Identity) -> None:
    """Log that a certificate is about to expire."""
    if datetime.now(UTC) + SOON > identity.expires_at:
        logger.warning("the certificate of `%s` expires at %s: renew it", identity.name, identity.expires_at)


def _define(
    statement: Statement, settings: ProvenanceSettings, identity: Identity, ingredients: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    c2pa = settings.c2pa
    return manifest_of(statement, model=c2pa.model, seed=c2pa.seed, is_test=identity.is_test, ingredients=ingredients)


def _number(media: Media) -> str:
    """Return the number of a result: a part of the SHA-256 of its content without marks."""
    digest = hashlib.sha256()
    for piece in media_pieces(media):
        digest.update(piece)
    return digest.hexdigest()[:NUMBER_CHARS]
