"""Jobs that are made of requests: what they hold, and what is refused before there is one."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployments.telemetry.origin import Origin, working_for
from serve.http.jobs.submission import Submission, Submissions, fingerprint_of
from serve.http.negotiation import Preferences
from serve.job_settings import JobSettings, WebhookSettings
from serve.jobs.request import read_request
from serve.jobs.store.record import Job
from serve.media.spool import Media, Spool, read_media
from serve.pipelines.requests import GenerateVideo, SwapImage
from serve.problems import Problem
from tests.unit.serve.http.service import FACE, kept_endpoints, make_config
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs

ENDPOINTS = kept_endpoints(make_config())
HOOK = "https://hooks.example.org/done"
SETTINGS = JobSettings(
    keep_s=86400,
    keep_plain_s=600,
    webhooks=WebhookSettings(hosts=("hooks.example.org",), secret_file=Path("/keys")),
)
ASYNC = Preferences(respond_async=True)
KEYED = replace(ASYNC, idempotency_key="k")


def submission(preferences: Preferences = ASYNC, endpoint: str = "wan2.6", **fields: Any) -> Submission:
    """Return a submission of a small video with these fields of the body."""
    return Submission(
        endpoint=endpoint,
        fields={"prompt": "a cat", **fields},
        caller="anna",
        media_type="video/mp4",
        request_id="the-request",
        began_at=NOW,
        timeout_s=1800,
        preferences=preferences,
    )


def make(jobs: FakeJobs | None = None) -> Submissions:
    return Submissions(jobs or FakeJobs(), SETTINGS, ENDPOINTS)  # type: ignore[arg-type]


async def prepared(submitted: Submission, **settings: Any) -> tuple[Job, Media]:
    endpoints = kept_endpoints(make_config(**settings)) if settings else ENDPOINTS
    return await Submissions(FakeJobs(), SETTINGS, endpoints).prepare(submitted)  # type: ignore[arg-type]


async def test_a_job_has_what_is_known_of_its_request() -> None:
    fields: dict[str, Any] = {"seed": 7, "sampler": "euler", "a,b\n": 1}
    preferences = replace(ASYNC, idempotency_key="k-1", webhook_url=HOOK)
    submitted = replace(submission(preferences, **fields), details={"model": "wan2.6"})
    with working_for(Origin("the-request", trace="00-a-trace")):
        job, stored = await prepared(submitted)
    assert (job.caller, job.endpoint, job.slot, job.request_id) == ("anna", "wan2.6", "wan26", "the-request")
    assert (job.created_at, job.deadline_at, job.expires_at) == (NOW, NOW + 1800, NOW + 1800 + 86400)
    assert (job.state, job.seed, job.durable, job.media_type) == ("queued", 7, True, "video/mp4")
    assert (job.idempotency_key, job.trace, job.details) == ("k-1", "00-a-trace", {"model": "wan2.6"})
    assert job.ignored == ("sampler", "a?b?")
    assert job.webhook is not None
    assert (job.webhook.url, job.webhook.state, job.webhook.id[:4]) == (HOOK, "pending", "msg_")
    request = read_request(stored)
    assert (request.endpoint, request.model, request.ignored) == ("wan2.6", "wan26", ("sampler", "a,b\n"))
    assert isinstance(request.request, GenerateVideo)
    assert (request.request.prompt, request.request.seed, request.request.width) == ("a cat", 7, 64)
    assert submitted.fields == {}, "the base64 is not held beside the bytes"


@pytest.mark.parametrize(
    ("preferences", "durable_by_interface", "durable"),
    [(Preferences(), False, False), (Preferences(), True, True), (ASYNC, False, True), (Preferences(wait_s=5), False, True)],
)
async def test_a_request_that_ends_with_its_caller_is_kept_for_less(
    preferences: Preferences, durable_by_interface: bool, durable: bool
) -> None:
    job, _ = await prepared(replace(submission(preferences), durable=durable_by_interface))
    assert (job.durable, job.expires_at - job.deadline_at) == (durable, 86400 if durable else 600)
    assert (job.fingerprint, job.idempotency_key, job.webhook, job.details) == ("", None, None, None)


async def test_the_same_request_has_the_same_fingerprint_and_a_seed_and_an_id_of_its_own() -> None:
    first, second = [(await prepared(submission(KEYED)))[0] for _ in range(2)]
    assert (len(first.fingerprint), first.fingerprint) == (64, second.fingerprint)
    assert first.id != second.id
    seeds = {(await prepared(submission()))[0].seed for _ in range(8)}
    assert len(seeds) > 1, "a seed that nobody chose is drawn for each job"
    assert all(seed is not None and 0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("other", [{"prompt": "a dog"}, {"seed": 0}, {"sampler": "euler"}, {"length": 1}])
async def test_another_request_has_another_fingerprint(other: dict[str, Any]) -> None:
    plain, _ = await prepared(submission(KEYED))
    job, _ = await prepared(submission(KEYED, **other))
    assert job.fingerprint != plain.fingerprint


async def test_a_fingerprint_is_of_what_was_sent_whatever_the_settings_make_of_it() -> None:
    """A client may send a request again while a new configuration is rolled out."""
    bodies: list[dict[str, Any]] = [{"prompt": "a cat"}, {"prompt": "a cat", "steps": 3}]
    before, after = [
        [(await prepared(submission(KEYED, **body), wan26_defaults={"steps": steps}))[0] for body in bodies] for steps in (2, 3)
    ]
    assert [job.fingerprint for job in before] == [job.fingerprint for job in after]
    assert before[0].fingerprint != before[1].fingerprint


async def test_the_fingerprint_of_another_interface_is_of_what_was_sent_to_it() -> None:
    jobs = [
        (await prepared(replace(submission(KEYED, length=length), sent={"seconds": seconds})))[0]
        for length, seconds in ((9, "1"), (5, "1"), (9, "2"))
    ]
    assert jobs[0].fingerprint == jobs[1].fingerprint != jobs[2].fingerprint


def test_no_two_bodies_have_one_fingerprint() -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_bytes(b"a")
        spool = Spool(os.open(file, os.O_RDWR))
        bodies: list[dict[str, Any]] = [
            {},
            {"a": None},
            {"a": ""},
            {"a": "a"},
            {"a": b"a"},
            {"a": ["a"]},
            {"a": ["a", ""]},
            {"a": {"a": ""}},
            {"a": "", "b": ""},
            {"ab": ""},
            {"a": 1},
            {"a": True},
            {"a": 1.5},
            {"a": "\ud83d"},
        ]
        prints = [fingerprint_of(body) for body in bodies]
        assert len(set(prints)) == len(bodies)
        assert fingerprint_of({"a": spool}) == fingerprint_of({"a": b"a"})
        assert fingerprint_of({"b": 1, "a": 2}) == fingerprint_of({"a": 2, "b": 1})


async def test_a_seed_of_0_is_a_seed_and_a_swap_has_none() -> None:
    assert (await prepared(submission(seed=0)))[0].seed == 0
    swap = replace(submission(endpoint="image-faceswap"), fields={"source_image": FACE, "reference_image": FACE})
    job, stored = await prepared(swap)
    assert (job.seed, job.slot, job.endpoint) == (None, "image-swap", "image-faceswap")
    request = read_request(stored)
    assert isinstance(request.request, SwapImage)
    assert request.sent_as["face"] == "reference_image"


async def test_every_wrong_field_is_named_by_the_name_that_was_sent_and_there_is_no_job() -> None:
    jobs = FakeJobs()
    with pytest.raises(Problem) as refused:
        await make(jobs).submit(submission(num_frames=-1, width=17))
    assert refused.value.status == 422
    assert {error.field for error in refused.value.errors} == {"num_frames", "width"}
    with pytest.raises(Problem, match="sampler"):
        await make(jobs).submit(submission(replace(ASYNC, strict=True), sampler="euler"))
    assert jobs.jobs == {}


@pytest.mark.parametrize("url", ["https://elsewhere.example.org/done", "http://hooks.example.org/done"])
async def test_a_webhook_to_a_place_that_is_not_allowed_is_refused(url: str) -> None:
    jobs = FakeJobs()
    with pytest.raises(Problem) as refused:
        await make(jobs).submit(submission(Preferences(webhook_url=url)))
    (error,) = refused.value.errors
    assert (refused.value.status, error.field, error.source) == (422, "Webhook-Url", "header")
    assert jobs.jobs == {}


async def test_a_job_is_accepted_with_the_request_that_was_stored() -> None:
    jobs = FakeJobs()
    job = await make(jobs).submit(submission(replace(ASYNC, idempotency_key="k-1"), seed=7))
    assert jobs.jobs == {job.id: job}
    stored = read_request(jobs.requests[job.id])
    assert isinstance(stored.request, GenerateVideo)
    assert stored.request.prompt == "a cat"
    again = await make(jobs).submit(submission(replace(ASYNC, idempotency_key="k-1"), seed=7))
    assert (again.id, len(jobs.jobs)) == (job.id, 1), "the desk knows the key"


async def test_what_is_stored_does_not_depend_on_the_fields_that_were_left_out() -> None:
    _, plain = await prepared(submission())
    _, same = await prepared(submission(width=64, height=48))
    assert isinstance(plain, bytes)
    assert read_request(plain).request == read_request(same).request
    assert len(read_media(plain)) < 1000


async def test_a_webhook_that_is_not_allowed_is_refused_before_the_fields_are_read() -> None:
    submitted = submission(replace(ASYNC, webhook_url="https://elsewhere.example.org/"), steps="many")
    with pytest.raises(Problem) as refused:
        await prepared(submitted)
    assert [error.field for error in refused.value.errors] == ["Webhook-Url"]
    assert submitted.fields, "nothing was done with the request"
