"""/v1/videos as the real `openai` package uses it, over jobs in memory."""

import functools
import json
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from serve.http.openai import videos as videos_module
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import until
from tests.unit.serve.http.openai.videos_service import ENDPOINTS, IMAGE, Accepted, make_http, run
from tests.unit.serve.http.service import FACE, make_client
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs, make_job

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


def test_a_video_ends_when_its_caller_says(http: TestClient, accepted: Accepted) -> None:
    for timeout_s in ("20", "99999"):
        assert http.post("/v1/videos", json={"prompt": "a cat"}, headers={"Request-Timeout": timeout_s}).status_code == 200
    assert [submission.timeout_s for submission in accepted.submissions] == [20, 1800]
    refused = http.post("/v1/videos", json={"prompt": "a cat"}, headers={"Request-Timeout": "soon"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "Request-Timeout")


def test_a_video_is_created_polled_downloaded_and_deleted(
    client: openai.OpenAI, http: TestClient, jobs: FakeJobs, accepted: Accepted
) -> None:
    video = client.videos.create(prompt="a cat", model="wan2.6", size="128x64", seconds="1", extra_body={"seed": 5, "fps": 8})  # type: ignore[arg-type]
    assert (video.object, video.status, video.progress, video.model) == ("video", "queued", 0, "wan2.6")
    assert (video.size, video.seconds, video.prompt, video.error) == ("128x64", "1", "a cat", None)
    assert (video.created_at, video.completed_at) == (int(NOW) + 1, None)
    request = accepted.last
    assert (request.width, request.height, request.frames, request.fps, request.seed) == (128, 64, 9, 8, 5)
    assert (jobs.jobs[video.id].media_type, accepted.submissions[0].preferences.durable) == ("video/mp4", True)

    with pytest.raises(openai.ConflictError, match="is queued"):
        client.videos.download_content(video.id)
    run(http, jobs.step, video.id, stage="denoising", percent=40.6)
    halfway = client.videos.retrieve(video.id)
    assert (halfway.status, halfway.progress) == ("in_progress", 40)
    run(http, jobs.succeed, video.id, b"the file")
    done = client.videos.poll(video.id)
    assert (done.status, done.progress, done.completed_at) == ("completed", 100, int(NOW) + 9)
    assert client.videos.download_content(video.id).read() == b"the file"
    assert client.videos.delete(video.id).deleted is True
    assert jobs.files.content == {}
    with pytest.raises(openai.APIStatusError) as gone:
        client.videos.retrieve(video.id)
    assert gone.value.status_code == 410


def test_create_and_poll_waits_for_the_end(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    assert http.portal is not None

    async def work_on_it() -> None:
        await until(lambda: bool(jobs.jobs))
        (job_id,) = jobs.jobs
        await jobs.step(job_id, stage="denoising", percent=10)
        await jobs.succeed(job_id, b"the file")

    working = http.portal.start_task_soon(work_on_it)
    video = client.videos.create_and_poll(prompt="a cat", poll_interval_ms=10)
    working.result()
    assert video.status == "completed"


@pytest.mark.parametrize("sent", ["file", "data URI"])
@pytest.mark.parametrize(
    ("model", "more", "endpoint", "name"),
    [
        ("wan2.6", {}, "wan2.6-i2v", "reference_image"),
        ("wan2.6-i2v", {}, "wan2.6-i2v", "reference_image"),
        ("wan22-i2v", {}, "wan22-i2v", "source_image"),
        ("wan2.6", {"face_image": FACE}, "wan2.6-i2v-faceswap", "reference_image"),
        ("wan22-i2v", {"face_image": FACE}, "wan22-i2v-faceswap", "source_image"),
    ],
)
def test_a_reference_image_chooses_the_endpoint_that_takes_it(
    client: openai.OpenAI, accepted: Accepted, model: str, more: dict[str, Any], endpoint: str, name: str, sent: str
) -> None:
    if sent == "file":
        file = ("first.jpg", IMAGE, "image/jpeg")
        video = client.videos.create(prompt="a cat", model=model, input_reference=file, extra_body=more)
    else:  # the package sends the object in JSON only
        body = {"prompt": "a cat", "model": model, "input_reference": {"image_url": FACE}, **more}
        video = client.post("/videos", body=body, cast_to=openai.types.Video)
    used, parsed = accepted.parsed[0]
    assert (used.name, parsed.sent_as["image"], parsed.ignored) == (endpoint, name, ())
    assert accepted.last.image == IMAGE
    assert video.model == model


def test_what_is_left_out_has_the_defaults_of_the_service(client: openai.OpenAI, accepted: Accepted) -> None:
    video = client.videos.create(prompt="a cat")
    assert (video.model, video.size, video.seconds) == ("wan2.6", "64x48", "0.5")
    assert (accepted.last.width, accepted.last.height, accepted.last.frames) == (64, 48, 9)


def test_json_is_taken_like_a_form(http: TestClient, accepted: Accepted) -> None:
    body = {"prompt": "a cat", "seconds": 1, "size": "64x64", "input_reference": {"image_url": FACE}, "seed": 3, "model": None}
    response = http.post("/v1/videos", json=body)
    assert (response.status_code, response.json()["size"]) == (200, "64x64")
    assert response.headers["openai-poll-after-ms"] == "5000"
    assert (accepted.last.seed, accepted.last.frames, accepted.last.image) == (3, 17, IMAGE)


@pytest.mark.parametrize(
    ("body", "param", "remedy"),
    [
        ({"prompt": "x", "model": "sora-2"}, "model", "available: wan2.6"),
        ({"prompt": "x", "size": "big"}, "size", "such as `832x480`"),
        ({"prompt": "x", "size": "100x64"}, "size", "nearest valid value is 96"),
        ({"prompt": "x", "size": "2048x64"}, "size", "between 16 and 256"),
        ({"prompt": "x", "size": "64x64", "width": 64}, "size", "send one or the other"),
        ({"prompt": "x", "seconds": "12"}, "seconds", "at most 2 seconds are accepted at 16 frames"),
        ({"prompt": "x", "seconds": "0"}, "seconds", "positive number"),
        ({"prompt": "x", "seconds": True}, "seconds", "positive number"),
        ({"prompt": "x", "seconds": "1", "length": 9}, "seconds", "send one of them"),
        ({"prompt": "x", "seconds": "1", "fps": "nan"}, "fps", "number from 1 to"),
        ({"model": "wan2.6"}, "prompt", "is required"),
        ({"prompt": "x", "model": "wan2.6-i2v"}, "input_reference", "is required"),
        ({"prompt": "x", "input_reference": {"file_id": "file_1"}}, "input_reference", "data URI"),
        ({"prompt": "x", "input_reference": {"image_url": "https://example.com/a.jpg"}}, "input_reference", "base64"),
        ({"prompt": "x", "steps": 1000}, "steps", "less than or equal to 30"),
    ],
)
def test_a_wrong_field_is_named_as_the_caller_sent_it(
    client: openai.OpenAI, body: dict[str, Any], param: str, remedy: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.post("/videos", body=body, cast_to=object)
    assert refused.value.param == param
    assert (refused.value.code, refused.value.type) == ("invalid_field", "invalid_request_error")
    assert remedy in refused.value.message


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v1/videos/{'0' * 32}", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PUT", "/v1/videos", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt", 404, "not_found"),
        ("GET", "/v1/videos?limit=0", 422, "invalid_field"),
        ("GET", "/v1/videos?order=up", 422, "invalid_field"),
        ("GET", "/v1/videos?after=unknown", 422, "invalid_field"),
    ],
)
def test_every_failure_has_the_form_of_openais_errors(http: TestClient, method: str, path: str, status: int, code: str) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert "x-request-id" in response.headers
    assert int(response.headers["content-length"]) == len(response.content)


def test_errors_elsewhere_stay_problems_and_a_head_has_no_body(http: TestClient) -> None:
    assert http.get("/jobs/x").headers["content-type"] == "application/problem+json"
    head = http.head("/v1/nothing")
    assert (head.status_code, head.content) == (404, b"")


def test_a_store_that_is_lost_and_a_quota_that_is_used_up_are_errors_to_try_again(jobs: FakeJobs, accepted: Accepted) -> None:
    with make_http(jobs, accepted, per_minute=1) as http:
        client = openai.OpenAI(base_url="http://testserver/v1", api_key="any", http_client=http, max_retries=0)
        client.videos.create(prompt="a cat")
        with pytest.raises(openai.RateLimitError, match="requests a minute") as limited:
            client.videos.create(prompt="a cat")
        assert limited.value.type == "rate_limit_error"
        assert int(limited.value.response.headers["retry-after"]) >= 1
        jobs.broken = True
        with pytest.raises(openai.InternalServerError, match="store of jobs") as lost:
            client.videos.list()
        assert (lost.value.status_code, lost.value.type) == (503, "server_error")


def test_lists_have_the_callers_videos_in_pages(client: openai.OpenAI, jobs: FakeJobs) -> None:
    ids = [client.videos.create(prompt=f"cat {number}").id for number in range(5)]
    jobs.add(make_job(created_at=NOW + 100))  # it did not come through this interface
    jobs.add(make_job(caller="somebody-else", details={"model": "wan2.6"}))
    first = client.videos.list(limit=2)
    assert ([video.id for video in first.data], first.has_more, first.last_id) == (ids[:2:-1], True, ids[3])
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == ids
    assert [video.id for video in client.videos.list(after=ids[1])] == ids[:1]


def test_everything_that_is_listed_can_be_deleted_meanwhile(client: openai.OpenAI, jobs: FakeJobs) -> None:
    for number in range(5):
        client.videos.create(prompt=f"cat {number}")
    for video in client.videos.list(limit=2):
        client.videos.delete(video.id)
    assert jobs.jobs == {}


def test_a_deletion_may_be_repeated(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    """OpenAI's packages repeat it by themselves where they got no answer."""
    video = client.videos.create(prompt="a cat")
    run(http, jobs.succeed, video.id, b"a video")
    for _ in range(2):
        assert client.videos.delete(video.id).deleted is True
    with pytest.raises(openai.NotFoundError):
        client.videos.delete("0" * 32)


def test_an_expired_video_is_not_listed(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    kept, expired = [client.videos.create(prompt="a cat").id for _ in range(2)]
    run(http, jobs.succeed, expired, b"a video")
    run(http, functools.partial(jobs.change, expires_at=1.0), expired)
    for order in ("asc", "desc"):
        assert [video.id for video in client.videos.list(order=order)] == [kept]


def test_a_video_that_is_being_made_is_cancelled_and_deleted(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    video = client.videos.create(prompt="a cat")
    run(http, jobs.step, video.id, stage="denoising")
    assert http.portal is not None

    async def end_it() -> None:
        await until(lambda: jobs.jobs[video.id].cancel_requested)
        await jobs.change(video.id, state="cancelled")

    ending = http.portal.start_task_soon(end_it)
    assert client.videos.delete(video.id).deleted is True
    ending.result()
    assert jobs.jobs == {}


def test_a_video_that_somebody_else_deletes_meanwhile_is_deleted(
    client: openai.OpenAI, http: TestClient, jobs: FakeJobs
) -> None:
    video = client.videos.create(prompt="a cat")
    run(http, jobs.step, video.id, stage="denoising")
    assert http.portal is not None

    async def delete_it() -> None:
        await until(lambda: jobs.jobs[video.id].cancel_requested)
        del jobs.jobs[video.id]

    deleting = http.portal.start_task_soon(delete_it)
    assert client.videos.delete(video.id).deleted is True
    deleting.result()


def test_a_failed_video_says_why(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    one, other = (client.videos.create(prompt="a cat") for _ in range(2))
    run(http, jobs.change, one.id, state="failed", problem={"type": "urn:ryla:problem:replica-lost", "detail": "it died"})
    run(http, jobs.change, other.id, state="cancelled")
    failed, cancelled = (client.videos.retrieve(video.id) for video in (one, other))
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "replica_lost", "it died")
    assert cancelled.error is not None
    assert (cancelled.status, cancelled.error.code) == ("failed", "cancelled")


def test_the_thumbnail_is_the_latest_frame(client: openai.OpenAI, http: TestClient, jobs: FakeJobs) -> None:
    video = client.videos.create(prompt="a cat")
    with pytest.raises(openai.NotFoundError, match="no preview"):
        client.videos.download_content(video.id, variant="thumbnail")
    jobs.files.content[f"previews/{video.id}/0"] = b"a frame"
    run(http, jobs.step, video.id, stage="decoding", preview=True, preview_marks="metadata, watermark")
    thumbnail = client.videos.download_content(video.id, variant="thumbnail")
    assert (thumbnail.read(), thumbnail.response.headers["content-type"]) == (b"a frame", "image/jpeg")
    assert thumbnail.response.headers["x-provenance"] == "metadata, watermark"
    with pytest.raises(openai.UnprocessableEntityError, match="not made here"):
        client.videos.download_content(video.id, variant="spritesheet")


def test_an_idempotency_key_makes_one_video(client: openai.OpenAI) -> None:
    first, again = (client.videos.create(prompt="a cat", extra_headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.id == again.id


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    models = list(client.models.list())
    assert models[0].id == "wan2.6"
    assert {model.id for model in models} == {name for name in ENDPOINTS if name.startswith("wan")}
    assert client.models.retrieve("wan22-i2v") == models[3]


def test_a_long_prompt_is_not_kept_in_the_record(client: openai.OpenAI, jobs: FakeJobs) -> None:
    video = client.videos.create(prompt="x" * 1001)
    assert video.prompt is None
    assert "xxx" not in json.dumps(jobs.jobs[video.id].details)


FACES = [
    (name, alias) for name in ENDPOINTS if name.endswith("-faceswap") and name.startswith("wan") for alias in ("face", "pairs")
]


@pytest.mark.parametrize(("name", "own"), FACES)
def test_a_face_by_any_of_its_names_is_swapped(http: TestClient, accepted: Accepted, name: str, own: str) -> None:
    schema = ENDPOINTS[name].schema
    for model in {name, name.removesuffix("-faceswap"), name.removesuffix("-faceswap").removesuffix("-i2v")} & set(ENDPOINTS):
        for alias in schema.names[own]:
            for image in ("input_reference", *schema.names["image"]):
                face: Any = [{"reference_image": FACE}] if own == "pairs" else FACE
                picture: Any = {"image_url": FACE} if image == "input_reference" else FACE
                sent = http.post("/v1/videos", json={"prompt": "x", "model": model, image: picture, alias: face})
                assert sent.status_code == 200, sent.text
                endpoint, parsed = accepted.parsed[-1]
                assert (endpoint.name, parsed.ignored) == (name, ())


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"width": "0064.0", "height": " 48"}, "64x48"),
        ({"width": 64.0, "height": 48}, "64x48"),
        ({"size": "064 x 048"}, "64x48"),
        ({}, "64x48"),
    ],
)
def test_the_size_in_the_answer_is_in_whole_pixels(http: TestClient, fields: dict[str, Any], size: str) -> None:
    video = http.post("/v1/videos", json={"prompt": "x", **fields}).json()
    assert video["size"] == size


@pytest.mark.parametrize(
    ("fields", "seconds"), [({"seconds": "1", "fps": 10}, "0.8"), ({"length": 8, "fps": 8}, "0.5"), ({"num_frames": 9}, "0.5")]
)
def test_the_length_in_the_answer_is_that_of_the_frames_that_are_made(
    http: TestClient, accepted: Accepted, fields: dict[str, Any], seconds: str
) -> None:
    video = http.post("/v1/videos", json={"prompt": "x", **fields}).json()
    assert video["seconds"] == seconds == f"{(accepted.last.frames - 1) / accepted.last.fps:g}"


def test_a_list_goes_on_beyond_the_jobs_that_one_page_looks_at(
    client: openai.OpenAI, http: TestClient, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos_module, "MAX_PAGE", 2)
    monkeypatch.setattr(videos_module, "MAX_LISTED", 4)
    made = [jobs.add(make_job(created_at=NOW + at, details={"model": "wan2.6"})).id for at in (1, 2, 13, 14, 15, 16)]
    others = [jobs.add(make_job(created_at=NOW + at)).id for at in (3, 4, 5, 17, 18, 19)]
    assert [video.id for video in client.videos.list(limit=2)] == [made[n] for n in (5, 4, 3, 2, 1, 0)]
    others += [jobs.add(make_job(created_at=NOW + at)).id for at in (6, 7)]
    with pytest.raises(openai.UnprocessableEntityError, match="GET /jobs lists") as refused:
        client.videos.list(after=made[2])
    assert refused.value.param == "after"
    assert [video.id for video in client.videos.list(after=others[0])] == [made[1], made[0]]
    with pytest.raises(openai.UnprocessableEntityError, match="newest first"):
        client.videos.list(order="asc")


def test_ignored_fields_are_named_in_the_answer() -> None:
    with make_client(FakeGraph()) as client:
        body = {"prompt": "x", "sampler": "euler", "caf\u00e9, x": 1}
        video = client.post("/v1/videos", json=body)
        job = client.post("/wan2.6", json=body, headers={"Prefer": "respond-async"})
        assert (video.status_code, job.status_code) == (200, 202)
        for response in (video, job):
            assert response.headers["X-Ignored-Fields"] == "sampler, caf?? x"
            record = client.get(f"/jobs/{response.json()['id']}").json()
            assert record["ignored_fields"] == ["sampler", "caf?? x"]
        plain = client.post("/v1/videos", json={"prompt": "x"})
        assert "X-Ignored-Fields" not in plain.headers


def test_fields_that_were_lowered_are_named_in_every_answer() -> None:
    limits = {"oversize": "fit"}
    with make_client(FakeGraph(), limits=limits) as client:
        body = {"prompt": "x", "width": 832, "height": 480, "steps": 2}
        video = client.post("/v1/videos", json={**body, "seconds": "12"})
        job = client.post("/wan2.6", json={**body, "num_frames": 193}, headers={"Prefer": "respond-async"})
        assert (video.status_code, job.status_code) == (200, 202)
        assert (video.json()["size"], video.json()["seconds"]) == ("256x144", "2")
        for response, frames in ((video, "length"), (job, "num_frames")):
            adjusted = f"width=256; height=144; {frames}=33"
            assert response.headers["X-Adjusted"] == adjusted
            url = f"/jobs/{response.json()['id']}"
            assert client.get(f"{url}/result?wait=30").headers["X-Adjusted"] == adjusted
            assert client.get(url).json()["adjusted_fields"] == {"width": 256, "height": 144, frames: 33}
        plain = client.post("/v1/videos", json={"prompt": "x"})
        assert "X-Adjusted" not in plain.headers
