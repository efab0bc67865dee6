"""Makes jobs of requests, whichever interface they came by."""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.telemetry.origin import current_origin
from serve.http.endpoints import Endpoint
from serve.http.negotiation import Preferences
from serve.http.schemas import Parsed
from serve.job_settings import JobSettings
from serve.jobs.desk import Desk
from serve.jobs.request import JobRequest
from serve.jobs.results.headers import printable_names
from serve.jobs.slots import slot_of
from serve.jobs.store.record import Delivery, Job, new_job_id
from serve.jobs.webhooks.deliveries import check_url
from serve.media.spool import Media, Spool, media_pieces, media_size
from serve.pipelines.requests import GenerateVideo
from serve.problems import invalid_header


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a caller has sent to the endpoint of this name.

    ``fields`` are those of the body, by their public names, and ``sent`` are those of which another
    interface has made them. ``began_at`` is in seconds since the
    epoch, and the job has ``timeout_s`` from then on. It is ``durable`` if the preferences say so,
    or if this does. ``details`` are kept with it for another interface, whose names for the fields
    ``sent_as`` has, by their public names.
    """

    endpoint: str
    fields: dict[str, Any]
    caller: str
    media_type: str
    request_id: str
    began_at: float
    timeout_s: float
    preferences: Preferences
    durable: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    sent_as: Mapping[str, str] = field(default_factory=dict)
    sent: dict[str, Any] | None = None


class Submissions:
    """Validates requests and makes jobs of them."""

    def __init__(self, desk: Desk, settings: JobSettings, endpoints: Sequence[Endpoint]) -> None:
        self.desk = desk
        self._settings = settings
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}

    async def submit(self, submission: Submission) -> Job:
        """Accept a durable job after the checks of ``prepare``.

        Raises what ``Desk.accept`` raises, too.
        """
        job, stored = await self.prepare(submission)
        return await self.desk.accept(job, stored)

    async def prepare(self, submission: Submission) -> tuple[Job, Media]:
        """Return the job for a valid request, and the request as it is stored.

        Raises a 422 problem that names each wrong field.
        """
        endpoint, preferences = self._endpoints[submission.endpoint], submission.preferences
        webhook = self._webhook(preferences.webhook_url)  # first, since writing a large request costs more
        parsed = await asyncio.to_thread(endpoint.schema.parse, submission.fields, strict=preferences.strict)
        fingerprint = ""
        if preferences.idempotency_key is not None:
            sent = submission.fields if submission.sent is None else submission.sent
            fingerprint = await asyncio.to_thread(fingerprint_of, sent)
        for fields in (submission.fields, submission.sent or {}):
            fields.clear()  # the base64 need not be held beside the bytes
        model = endpoint.models[0].name
        request = JobRequest(
            endpoint=endpoint.name,
            model=model,
            request=parsed.request,
            sent_as={own: submission.sent_as.get(name, name) for own, name in parsed.sent_as.items()},
            ignored=parsed.ignored,
        )
        stored = await asyncio.to_thread(request.write)
        durable = preferences.durable or submission.durable
        deadline_at = submission.began_at + submission.timeout_s
        job = Job(
            id=new_job_id(),
            caller=submission.caller,
            endpoint=endpoint.name,
            slot=slot_of(parsed.request, model),
            request_id=submission.request_id,
            media_type=submission.media_type,
            created_at=submission.began_at,
            deadline_at=deadline_at,
            expires_at=deadline_at + self._settings.kept_s(durable=durable),
            seed=_seed(parsed),
            ignored=printable_names(parsed.ignored),
            adjusted=parsed.request.adjusted if isinstance(parsed.request, GenerateVideo) else (),
            durable=durable,
            trace=current_origin().trace,
            idempotency_key=preferences.idempotency_key,
            fingerprint=fingerprint,
            details=dict(submission.details) or None,
            webhook=webhook,
        )
        return job, stored

    def _webhook(self, url: str | None) -> Delivery | None:
        """Return the delivery that a caller wants; raise a 422 problem if it is not allowed."""
        if url is None:
            return None
        try:
            check_url(url, self._settings.webhooks)
        except ValueError as error:
            raise invalid_header("Webhook-Url", str(error)) from None
        return Delivery(url=url, id=f"msg_{secrets.token_hex(12)}")


def _seed(parsed: Parsed) -> int | None:
    request = parsed.request
    if not isinstance(request, GenerateVideo):
        return None
    return secrets.randbelow(2**32) if request.seed is None else request.seed


def fingerprint_of(sent: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a body's fields, by which it is recognised under the same key.

    It is of what was sent, and not of what became of it: settings such as the defaults may change
    between two attempts.
    """
    digest = hashlib.sha256()
    _add(digest, sent)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", value: Any) -> None:
    """Add a value of JSON, or a file, such that no two different values add the same."""
    if isinstance(value, Mapping):
        digest.update(b"{%d" % len(value))
        for name in sorted(value):
            _add(digest, name)
            _add(digest, value[name])
    elif isinstance(value, list):
        digest.update(b"[%d" % len(value))
        for item in value:
            _add(digest, item)
    elif isinstance(value, bytes | Spool):
        digest.update(b"b%d:" % media_size(value))
        for piece in media_pieces(value):
            digest.update(piece)
    elif isinstance(value, str):
        content = value.encode(errors="surrogatepass")
        digest.update(b"s%d:" % len(content))
        digest.update(content)
    else:
        digest.update(f"{type(value).__name__}{value!r};".encode())
