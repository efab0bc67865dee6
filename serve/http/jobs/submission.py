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
from serve.media.spool import Media, media_pieces
from serve.pipelines.requests import GenerateVideo
from serve.problems import invalid_header


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a caller has sent to the endpoint of this name.

    ``fields`` are those of the body, by their public names. ``began_at`` is in seconds since the
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
        submission.fields.clear()  # the base64 need not be held beside the bytes
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
            fingerprint=await asyncio.to_thread(_fingerprint, stored, submission.media_type) if durable else "",
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


def _fingerprint(stored: Media, media_type: str) -> str:
    """Return the SHA-256 of a request, by which another one under the same key is recognised."""
    digest = hashlib.sha256(media_type.encode())
    for piece in media_pieces(stored):
        digest.update(piece)
    return digest.hexdigest()
