"""The fields of OpenAI's videos API in the terms of an endpoint, and jobs as its videos."""

from dataclasses import replace
from typing import Any

import pytest

from serve.http.endpoints import VIDEOS, make_endpoints
from serve.http.openai.fields import MAX_PROMPT_CHARS, Order, VideoModels, video_of
from serve.jobs.store.record import Job, Progress
from serve.pipelines.requests import GenerateVideo
from serve.problems import Problem
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs.fake_jobs import NEVER, NOW, make_job

CONFIG = make_config()
ENDPOINTS = make_endpoints(CONFIG)
MODELS = VideoModels(ENDPOINTS)
FIRST = "a first frame"
LOWERING = VideoModels(make_endpoints(make_config(limits={"oversize": "fit"})))


def order(models: VideoModels = MODELS, **sent: Any) -> Order:
    return models.order({"prompt": "a cat", **sent})


def refusal(**sent: Any) -> tuple[str, str]:
    """Return the name of the field that is refused, and why."""
    with pytest.raises(Problem) as refused:
        order(**sent)
    assert refused.value.status == 422
    (error,) = refused.value.errors
    return error.field, refused.value.detail


def test_the_models_are_the_endpoints_that_generate_videos_in_their_order() -> None:
    assert MODELS.names == tuple(endpoint.name for endpoint in ENDPOINTS if endpoint.group == VIDEOS)
    assert not any(name.endswith("image-faceswap") or name.startswith("batch") for name in MODELS.names)


def test_without_a_model_it_is_the_first() -> None:
    assert order().endpoint == order(model=MODELS.names[0]).endpoint == "wan2.6"
    assert order(model=None).endpoint == "wan2.6", "null is as good as nothing"


@pytest.mark.parametrize(
    ("model", "sent", "endpoint"),
    [
        ("wan2.6", {}, "wan2.6"),
        ("wan2.6", {"input_reference": FIRST}, "wan2.6-i2v"),
        ("wan2.6", {"reference_image": FIRST}, "wan2.6-i2v"),
        ("wan2.6", {"reference_image": FIRST, "face_image": "f"}, "wan2.6-i2v-faceswap"),
        ("wan2.6", {"face_image": "f"}, "wan2.6-i2v-faceswap"),
        ("wan2.6-i2v", {"pairs": []}, "wan2.6-i2v-faceswap"),
        ("wan2.6-i2v-faceswap", {"input_reference": FIRST}, "wan2.6-i2v-faceswap"),
        ("wan22-i2v", {"source_image": FIRST, "face_image": "f"}, "wan22-i2v-faceswap"),
        ("wan22-i2v", {"input_reference": FIRST}, "wan22-i2v"),
    ],
)
def test_the_images_of_a_request_choose_the_endpoint(model: str, sent: dict[str, Any], endpoint: str) -> None:
    assert order(model=model, **sent).endpoint == endpoint
    assert order(model=model, **sent).details["model"] == model, "the caller sees the model that it has named"


@pytest.mark.parametrize(("model", "name"), [("wan2.6", "reference_image"), ("wan22-i2v", "source_image")])
@pytest.mark.parametrize("reference", [FIRST, {"image_url": FIRST}])
def test_the_reference_goes_where_the_endpoint_has_its_image(model: str, name: str, reference: object) -> None:
    made = order(model=model, input_reference=reference)
    assert made.fields[name] == FIRST
    assert "input_reference" not in made.fields
    assert made.sent_as[name] == "input_reference"


def test_a_missing_image_is_called_by_the_name_of_the_api() -> None:
    sent_as = order(model="wan2.6-i2v").sent_as
    assert sent_as == {"reference_image": "input_reference"}


def test_the_size_is_width_and_height_and_errors_in_them_are_errors_in_size() -> None:
    for size in ("128x64", " 128 X 64 "):
        made = order(size=size)
        assert (made.fields["width"], made.fields["height"], "size" in made.fields) == (128, 64, False)
        assert made.sent_as == {"width": "size", "height": "size"}
        assert made.details["size"] == "128x64"


@pytest.mark.parametrize(
    ("sent", "frames"),
    [({"seconds": "1"}, 17), ({"seconds": 1, "fps": 8}, 9), ({"seconds": " 0.5 "}, 9), ({"seconds": 1.99}, 32)],
)
def test_seconds_are_frames_with_the_first_one(sent: dict[str, Any], frames: int) -> None:
    made = order(**sent)
    assert made.fields["length"] == frames
    assert "seconds" not in made.fields
    assert made.sent_as == {"length": "seconds", "num_frames": "seconds"}


def test_what_the_answer_says_is_what_is_made() -> None:
    assert order().details == {"model": "wan2.6", "prompt": "a cat", "size": "64x48", "seconds": "0.5"}
    assert order(num_frames=8, fps=8).details["seconds"] == "0.5", "five frames are made of eight"
    assert order(num_frames=9, fps="soon").details["seconds"] == "", "the endpoint refuses it"


def test_a_size_above_the_limits_is_told_as_it_will_be_where_it_is_lowered() -> None:
    assert order(LOWERING, size="512x256").details["size"] == "256x128"
    assert order(size="512x256").details["size"] == "512x256", "here the endpoint refuses it"


@pytest.mark.parametrize("seconds", ["4", "8", "12"])
def test_a_length_above_the_limits_is_told_as_it_will_be_where_it_is_lowered(seconds: str) -> None:
    made = order(LOWERING, seconds=seconds)
    assert made.details["seconds"] == "2"
    endpoint = next(endpoint for endpoint in ENDPOINTS if endpoint.name == made.endpoint)
    lowering = replace(endpoint.schema, limits=make_config(limits={"oversize": "fit"}).limits)
    request = lowering.parse(made.fields, strict=False).request
    assert isinstance(request, GenerateVideo)
    assert (request.frames, request.adjusted) == (33, (("length", 33),))
    with pytest.raises(Problem, match="at most 2 seconds are accepted at 16 frames a second"):
        LOWERING.order({"prompt": "a cat", "seconds": seconds}, strict=True)


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [("x" * MAX_PROMPT_CHARS, "x" * MAX_PROMPT_CHARS), ("x" * (MAX_PROMPT_CHARS + 1), None), (7, None)],
)
def test_a_prompt_is_kept_with_the_job_up_to_a_length(prompt: object, kept: str | None) -> None:
    made = order(prompt=prompt)
    assert made.details["prompt"] == kept
    assert made.fields["prompt"] == prompt


@pytest.mark.parametrize(
    ("sent", "field", "reason"),
    [
        ({"model": "sora-2"}, "model", "unknown model `sora-2`; available: wan2.6, "),
        ({"model": "x" * 99}, "model", f"unknown model `{'x' * 50}`; "),
        ({"model": ["wan2.6"]}, "model", "unknown model"),
        ({"model": "image-faceswap"}, "model", "unknown model"),
        ({"input_reference": {"file_id": "1"}}, "input_reference", "there are no file ids"),
        ({"input_reference": {"image_url": "a", "file_id": "1"}}, "input_reference", "there are no file ids"),
        ({"size": "64"}, "size", "such as `832x480`"),
        ({"size": 64}, "size", "such as `832x480`"),
        ({"size": "100000x64"}, "size", "such as `832x480`"),
        ({"size": "64x64", "height": 64}, "size", "send one or the other"),
        ({"seconds": "1", "num_frames": 9}, "seconds", "means the same as `length`; send one of them"),
        ({"seconds": "-1"}, "seconds", "positive number"),
        ({"seconds": "1e3"}, "seconds", "positive number"),
        ({"seconds": False}, "seconds", "positive number"),
        ({"seconds": "0.000"}, "seconds", "positive number"),
        ({"seconds": "1", "fps": 0}, "fps", "a number from 1 to"),
        ({"seconds": "1", "fps": "nan"}, "fps", "a number from 1 to"),
        ({"seconds": "1", "fps": "9" * 5000}, "fps", "a number from 1 to"),
        ({"seconds": "2.1"}, "seconds", "at most 2 seconds are accepted at 16 frames a second"),
        ({"seconds": "1.5", "fps": 30}, "seconds", "at most 1.06 seconds are accepted at 30 frames a second"),
    ],
)
def test_what_contradicts_the_api_is_refused_by_its_name(sent: dict[str, Any], field: str, reason: str) -> None:
    refused, detail = refusal(**sent)
    assert refused == field
    assert reason in detail


def test_a_model_that_takes_no_image_says_so() -> None:
    alone = VideoModels([endpoint for endpoint in ENDPOINTS if endpoint.name == "wan2.6"])
    with pytest.raises(Problem, match="makes videos from a prompt only; leave it out") as refused:
        alone.order({"prompt": "x", "input_reference": FIRST})
    assert refused.value.errors[0].field == "input_reference"


@pytest.mark.parametrize(
    ("fields", "status", "progress"),
    [
        ({}, "queued", 0),
        ({"state": "starting", "progress": Progress(stage="starting", percent=3.9)}, "queued", 3),
        ({"state": "running", "progress": Progress(stage="denoising", percent=40.6)}, "in_progress", 40),
        ({"state": "succeeded", "finished_at": NOW + 9.7, "progress": Progress(percent=97)}, "completed", 100),
        ({"state": "failed", "finished_at": NOW + 9, "progress": Progress(percent=12)}, "failed", 12),
        ({"state": "cancelled", "finished_at": NOW + 9}, "failed", 0),
    ],
)
def test_a_job_is_a_video_in_the_states_of_the_api(fields: dict[str, Any], status: str, progress: int) -> None:
    job = make_job(details=order().details, **fields)
    video = video_of(job)
    assert (video["id"], video["object"], video["status"], video["progress"]) == (job.id, "video", status, progress)
    assert video["completed_at"] == (int(NOW) + 9 if status == "completed" else None)
    assert (video["created_at"], video["expires_at"], video["seed"]) == (int(NOW), int(NEVER), 7)
    assert (video["model"], video["prompt"], video["size"], video["seconds"]) == ("wan2.6", "a cat", "64x48", "0.5")


def test_only_a_job_that_goes_on_has_time_left() -> None:
    progress = Progress(stage="denoising", eta_s=4.5)
    assert video_of(make_job(state="running", progress=progress))["eta_seconds"] == 4.5
    assert video_of(make_job(state="succeeded", progress=progress))["eta_seconds"] is None


def test_a_job_that_came_another_way_is_a_video_of_its_endpoint() -> None:
    video = video_of(make_job(endpoint="wan22-i2v"))
    assert (video["model"], video["prompt"], video["size"], video["seconds"]) == ("wan22-i2v", None, "", "")


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (make_job(), None),
        (make_job(state="succeeded"), None),
        (make_job(state="cancelled"), {"code": "cancelled", "message": "the job was cancelled"}),
        (
            make_job(state="failed", problem={"type": "urn:ryla:problem:replica-lost", "detail": "it died"}),
            {"code": "replica_lost", "message": "it died"},
        ),
        (make_job(state="failed"), {"code": "internal", "message": "the job failed"}),
    ],
)
def test_an_error_has_a_code_of_the_problem_and_its_detail(job: Job, error: dict[str, str] | None) -> None:
    assert video_of(job)["error"] == error
