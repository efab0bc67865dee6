"""Marks finished results: where they leave the pipeline, and before anybody can have them."""

import asyncio
import hashlib
import json
import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
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
from serve.telemetry.metrics import record_certificate_expiry, record_provenance_failure

logger = logging.getLogger("ray.serve")

LOOK_S = 60.0
"""Seconds within which the marks of a source must be read."""
NUMBER_CHARS = 32
"""The length of a result's number in the label of GB 45438-2025."""
REPORT_PERIOD_S = 60.0
"""Seconds between two reports of when the certificate expires."""
WARN_PERIOD = timedelta(days=1)
"""The time between two warnings that the certificate expires soon or has expired."""
_IN_XMP = {"digital_source_type": "IPTC's digital source type", "aigc": "the label of GB 45438-2025"}
"""The marks that a source can carry in XMP, and that only metadata of the result can keep."""


class MarksNotRead(Exception):
    """The marks of a source could not be read for a reason that is not in the file.

    ``field`` is that in which the source was sent.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"the marks of `{field}` could not be read ({reason})")
        self.field = field


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
                logger.warning(
                    "results are not signed, since there is no certificate (provenance.c2pa.certificate), and sources that carry "
                    "a C2PA manifest are refused with a 422; docs/provenance.md says how to get one"
                )
            return
        signer = Signer(identity, self._settings.c2pa, self._pool)
        try:
            await signer.sign_without_timestamp(
                PICTURE, PICTURE_TYPE, define=partial(_define, TRIAL, self._settings, identity), sources=()
            )
        except SigningFailed as error:
            raise CertificateRefused(f"nothing can be signed with the certificate of `{identity.name}`: {error}") from None
        self._signer = signer
        record_certificate_expiry(identity.expires_at.timestamp())

    async def watch(self) -> None:
        """Report when the certificate expires, again and again, and warn of it once a day.

        It never returns. A gauge that is set only once is lost when its exporter restarts.
        """
        warned_at: datetime | None = None
        while True:
            if self._signer is not None:
                identity, now = self._signer.identity, datetime.now(UTC)
                record_certificate_expiry(identity.expires_at.timestamp())
                if warned_at is None or now - warned_at >= WARN_PERIOD:
                    warned_at = now if warn_if_soon_over(identity, now) else None
            await asyncio.sleep(REPORT_PERIOD_S)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    @property
    def signs(self) -> bool:
        """Whether results get a manifest now: not after the certificate has expired."""
        return self._signer is not None and not self._signer.identity.has_expired()

    @property
    def _keeps_all(self) -> bool:
        """Whether the result of a source can keep all marks that the source may carry."""
        return self.signs and self._settings.metadata.enabled

    async def look(self, sources: Mapping[str, Source]) -> tuple[Properties, ...]:
        """Return the metadata of sources, by the fields in which they were sent.

        Raises RequestRefused for a source whose marks would be lost, because nothing here could
        keep them, and for one that cannot be read where this might be so. Raises ``MarksNotRead``
        where that is not the fault of the file.
        """
        return tuple([await self._look_at(field, source) for field, source in sources.items()])

    async def _look_at(self, field: str, source: Source) -> Properties:
        strict = source.parent and not self._keeps_all
        try:
            has_manifest, properties = await self._find(source)
        except (MediaError, WorkerDied) as error:
            logger.warning("the marks of a source (`%s`) cannot be read: %s", field, error)
            if strict:
                raise RequestRefused(
                    field,
                    f"cannot be searched for marks, which this service could not keep ({error}): save it again in an "
                    "ordinary format",
                ) from None
            return Properties({})
        except (TimeoutError, RuntimeError) as error:
            logger.warning("the marks of a source (`%s`) could not be read", field, exc_info=error)
            if strict:
                raise MarksNotRead(field, "it took too long" if isinstance(error, TimeoutError) else "a fault") from error
            return Properties({})
        if has_manifest and source.parent and not self.signs:
            raise RequestRefused(
                field,
                "carries a C2PA manifest (content credentials), which would be lost, because this service signs no results: "
                "send a file without one, or use a service that signs; the operator can turn signing on with "
                "provenance.c2pa.certificate",
            )
        lost = [name for key, name in _IN_XMP.items() if key in properties]
        if source.parent and lost and not self._settings.metadata.enabled:
            raise RequestRefused(
                field,
                f"carries {' and '.join(lost)}, which would be lost, because this service writes no metadata: send a file "
                "without it, or use a service that does; the operator can turn it on with provenance.metadata.enabled",
            )
        return Properties(properties)

    async def _find(self, source: Source) -> tuple[bool, dict[str, str]]:
        """Return whether a source has a manifest, if that matters, and its properties.

        The time for which it waits for its turn is not limited here.
        """
        async with self._places, self._pool.lease() as worker, asyncio.timeout(LOOK_S):
            with descriptor_of(source.media) as file:
                answer, content = await worker.ask(
                    "find",
                    cpu_s=LOOK_S,
                    memory_bytes=self._settings.c2pa.max_memory_bytes,
                    file=file,
                    manifest=source.parent and not self.signs,
                )
        if content is None:
            raise RuntimeError("a process has looked at a source and said nothing")
        properties: dict[str, str] = json.loads(content.tobytes())
        return bool(answer["manifest"]), properties

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
        label = await self.label_of(media, statement, what="result")
        media, described = await self.describe(media, media_type, statement, label=label, properties=properties)
        marks = list(described)
        if self._signer is not None:
            media, mark = await self._sign(self._signer, media, media_type=media_type, statement=statement, sources=sources)
            marks.append(mark)
        return Marked(media, tuple(marks))

    async def label_of(self, media: Media, statement: Statement, *, what: str) -> Label | None:
        """Return the label of GB 45438-2025 for a file, or None if it gets none.

        Its number is logged beside the request id, with ``what`` the file is.
        """
        aigc = self._settings.aigc
        if not aigc.enabled or statement.source_type is None:
            return None
        label = Label(producer=aigc.producer, number=await asyncio.to_thread(_number, media))
        logger.info("%s of request %s: AIGC ProduceID %s", what, statement.request_id, label.number)
        return label

    async def describe(
        self,
        media: Media,
        media_type: str,
        statement: Statement,
        *,
        label: Label | None,
        properties: Sequence[Properties] = (),
    ) -> tuple[Media, tuple[str, ...]]:
        """Return a file with its label and the metadata of the settings, and its marks."""
        marks: list[str] = []
        metadata, aigc = self._settings.metadata, self._settings.aigc
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
                record_provenance_failure("metadata")
                marks += [f"{name}=failed" for name in done if name]
            else:
                marks += [name for name in done if name]
            if label is not None and aigc.visible:
                marks[-1] += ";label=visible"
        return media, tuple(marks)

    async def _sign(
        self, signer: Signer, media: Media, media_type: str, statement: Statement, sources: Sequence[Source]
    ) -> tuple[Media, str]:
        """Return the signed result and the mark that says how; as it is if it cannot be signed."""
        try:
            return await self._signed(signer, media, media_type=media_type, statement=statement, sources=sources)
        except SigningFailed as error:
            logger.warning("request %s: the result could not be signed: %s", statement.request_id, error)
            record_provenance_failure("signature")
            return media, "c2pa=failed"

    async def _signed(
        self, signer: Signer, media: Media, media_type: str, statement: Statement, sources: Sequence[Source]
    ) -> tuple[Media, str]:
        """Return the signed result and the mark that says how; raise ``SigningFailed``.

        What a source holds may be what is at fault. The manifest then says of it only that it was
        there: without any source, the action of an edit would not be valid.
        """
        if signer.identity.has_expired():
            raise SigningFailed(f"the certificate of `{signer.identity.name}` has expired: renew it and restart")
        parameters = ["certificate=test"] if signer.identity.is_test else []
        define = partial(_define, statement, self._settings, signer.identity)
        async with self._places:
            try:
                signed = await signer.sign(media, media_type, define=define, sources=sources)
                if sources:
                    parameters.append("sources=kept")
            except SigningFailed as error:
                if not sources:
                    raise
                logger.warning("request %s: the sources cannot be ingredients: %s", statement.request_id, error)
                signed = await signer.sign(
                    media, media_type, define=define, sources=[replace(source, media=b"") for source in sources]
                )
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


def warn_if_soon_over(identity: Identity, now: datetime | None = None) -> bool:
    """Log that a certificate is about to expire or has expired; return whether it is."""
    now = now or datetime.now(UTC)
    if identity.has_expired(now):
        logger.error(
            "the certificate of `%s` expired at %s: results are not signed any more, and sources that carry a C2PA manifest "
            "are refused; renew it and restart",
            identity.name,
            identity.expires_at,
        )
    elif now + SOON > identity.expires_at:
        logger.warning("the certificate of `%s` expires at %s: renew it", identity.name, identity.expires_at)
    else:
        return False
    return True


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
