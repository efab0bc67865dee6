"""Webhooks on completion, as Standard Webhooks 1.0 have them: signed, bounded and repeated."""

import asyncio
import logging
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import httpx

from deployments.telemetry import tracing
from deployments.telemetry.origin import Origin, working_for
from serve.job_settings import WebhookSettings
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.record import Delivery, Job
from serve.jobs.webhooks.call import Answer, WebhookCaller
from serve.jobs.webhooks.message import SecretsUnreadable, payload, read_secrets, signed_headers
from serve.jobs.webhooks.url import Resolve, allowed_url, resolve
from serve.telemetry import metrics

logger = logging.getLogger("ray.serve")

POLL_S = 1.0
MAX_AT_ONCE = 32
MAX_PER_CALLER = 16
MAX_PER_HOST = 8
"""How many webhooks are sent at a time, in all, for one caller and to one host: slow hosts must not
delay the webhooks of others, whoever has named them and however many."""
PAGE = 256
PAGES = 4
"""How many due webhooks are read at a time, and how often at one poll."""
_FIRST_DELAY_S = 5.0
_LONGEST_DELAY_S = 7200.0
_CLAIM_S = 60.0
"""Seconds beyond an attempt's own limit after which another Runner may repeat it."""


def check_url(url: str, settings: WebhookSettings) -> None:
    """Raise ValueError, with the remedy, if webhooks must not be sent to ``url``."""
    allowed_url(url, settings)


def delay_s(attempts: int) -> float:
    """Return the seconds until the next attempt, after ``attempts`` of them.

    It triples from 5 s to 2 h, with a quarter more or less, so that receivers that were away do not
    get all webhooks at the same moment.
    """
    delay = min(_FIRST_DELAY_S * 3.0 ** min(attempts - 1, 10), _LONGEST_DELAY_S)
    return float(delay * random.uniform(0.75, 1.25))


class WebhookSender:
    """Sends the webhooks of ended jobs that are due.

    Every Runner has one. Before an attempt, a sender writes into the job that there is one; only
    one sender can, because the store refuses to replace a job that has changed. If the sender dies
    during the attempt, the webhook is due again a minute later, under the same id.
    """

    def __init__(
        self,
        store: JobStore,
        settings: WebhookSettings,
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._caller = WebhookCaller(settings, resolve=resolve, tls=tls)
        self._sending: dict[str, Job] = {}
        """The jobs whose webhooks are being sent, by their ids."""
        self._passed: Job | None = None
        """The due job up to which the last poll has looked, unless it has seen all."""

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        failing = False
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    for job in await self._chosen():
                        self._sending[job.id] = job
                        tasks.create_task(self._send_safely(job))
                    failing = False
                except Exception as error:  # another Runner would fail at the same record
                    if not failing and isinstance(error, StoreUnavailable):
                        logger.warning("no webhooks are sent while the job store is unavailable")
                    elif not failing:
                        logger.exception("no webhooks are sent, since the jobs that are due cannot be looked through")
                    failing = True
                await asyncio.sleep(POLL_S)

    async def send(self, job: Job) -> bool:
        """Make one attempt, unless another sender does, and return whether it was made.

        What became of it is recorded in the job. Raises StoreUnavailable.
        """
        webhook = job.webhook
        if webhook is None or webhook.state != "pending":
            return False
        claim = self._clock() + self._settings.timeout_s + _CLAIM_S
        claimed = replace(job, webhook=replace(webhook, attempts=webhook.attempts + 1, next_at=claim))
        if not await self._store.update(claimed, expected=job):
            return False
        attributes: dict[str, str | int] = {"ryla.job.id": job.id, "ryla.attempt": webhook.attempts + 1}
        with (
            working_for(Origin(job.request_id, job.id, job.trace)),
            tracing.span("webhook", attributes, kind="client") as span,
        ):
            try:
                answer = await self._attempt(claimed)
            except Exception:  # a fault of ours: it counts as an attempt, or it would be made for ever
                logger.exception("the webhook of job %s could not be sent", job.id)
                answer = Answer("the service failed to send it")
            after = self._after(claimed, answer)
            outcome = "repeated" if after.state == "pending" else after.state
            span.set({"ryla.outcome": outcome})
            if answer.error:
                span.fail(outcome)  # the reason may name the host
        metrics.WEBHOOKS.add(outcome=outcome)
        await self._store.update(replace(claimed, webhook=after), expected=claimed)
        return True

    async def _chosen(self) -> list[Job]:
        """Return due jobs whose webhooks there is room to send.

        Those whose host or caller has all its places are passed over. There may be more of them
        than one poll reads, so the next one looks on from there.
        """
        room = MAX_AT_ONCE - len(self._sending)
        hosts = Counter(map(_host, self._sending.values()))
        callers = Counter(job.caller for job in self._sending.values())
        busy, chosen = set(self._sending), list[Job]()
        for _ in range(PAGES):
            page = await self._due() if len(chosen) < room else ()
            for job in page:
                if len(chosen) >= room:
                    return chosen
                if job.id in busy:
                    continue
                host = _host(job)
                if hosts[host] >= MAX_PER_HOST or callers[job.caller] >= MAX_PER_CALLER:
                    self._passed = job
                    continue
                hosts[host] += 1
                callers[job.caller] += 1
                busy.add(job.id)
                chosen.append(job)
            if len(page) < PAGE:
                if len(chosen) < room:
                    self._passed = None
                break
        return chosen

    async def _due(self) -> Sequence[Job]:
        """Return some due jobs, after the one that was passed over last."""
        after = {} if self._passed is None else {"after": self._passed}
        return await self._store.due_webhooks(self._clock(), PAGE, **after)

    async def _send_safely(self, job: Job) -> None:
        """Make one attempt. A fault of it must not end the other ones."""
        try:
            await self.send(job)
        except StoreUnavailable:
            logger.warning("the job store was unavailable during the webhook of job %s, which may be repeated", job.id)
        except Exception:
            logger.exception("what became of the webhook of job %s could not be recorded; it is repeated", job.id)
        finally:
            del self._sending[job.id]

    async def _attempt(self, job: Job) -> Answer:
        assert job.webhook is not None
        assert self._settings.secret_file is not None
        try:
            keys = await asyncio.to_thread(read_secrets, self._settings.secret_file)
        except SecretsUnreadable as e:
            logger.error("webhooks cannot be signed: %s", e)
            return Answer("the service could not sign it")
        body = payload(job)
        headers = signed_headers(job.webhook.id, body, secrets=keys, now=self._clock())
        return await self._caller.call(job.webhook.url, headers, body)

    def _after(self, job: Job, answer: Answer) -> Delivery:
        """Return what is recorded after an attempt."""
        assert job.webhook is not None
        done = replace(job.webhook, next_at=None, error=answer.error)
        if not answer.error:
            return replace(done, state="delivered")
        next_at = self._clock() + max(delay_s(done.attempts), min(answer.retry_after_s, _LONGEST_DELAY_S))
        ended = job.finished_at if job.finished_at is not None else job.created_at
        if answer.final or next_at > ended + 3600 * self._settings.max_hours:
            logger.warning("webhook %s of job %s has failed after %d attempts", done.id, job.id, done.attempts)
            return replace(done, state="failed")
        return replace(done, next_at=next_at)


def _host(job: Job) -> str:
    """Return the host to which the webhook of a job goes, as it is resolved."""
    try:
        return "" if job.webhook is None else httpx.URL(job.webhook.url).raw_host.decode("ascii")
    except httpx.InvalidURL:
        return ""
