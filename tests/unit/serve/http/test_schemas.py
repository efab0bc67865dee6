import base64
from typing import Any

import pytest

from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.http.schemas import Parsed, Schema
from serve.pipelines.requests import GenerateVideo, SwapImage, SwapVideo
from serve.problems import Problem
from tests.unit.serve.http.service import make_config

SCHEMAS = {endpoint.name: endpoint.schema for endpoint in make_endpoints(AppConfig())}
TEXT = SCHEMAS["wan2.6"]
ONE, TWO, THREE = (base64.b64encode(data).decode() for data in (b"one", b"two", b"three"))


def video(schema: Schema = TEXT, *, strict: bool = True, **fields: Any) -> GenerateVideo:
    """Return a valid request for a video."""
    request = schema.parse({"prompt": "x", **fields}, strict=strict).request
    assert isinstance(request, GenerateVideo)
    return request


def wrong_fields(schema: Schema = TEXT, *, strict: bool = True, **fields: Any) -> dict[str, str]:
    """Return what is wrong with each field."""
    with pytest.raises(Problem) as refused:
        schema.parse(fields, strict=strict)
    assert (refused.value.status, refused.value.slug) == (422, "invalid-field")
    errors = {error.field: error.detail for error in refused.value.errors}
    assert len(errors) == len(refused.value.errors)
    return errors


def test_all_wrong_fields_are_named_at_once() -> None:
    errors = wrong_fields(width=120, cfg=0, length="many", seed=-1, acceleration="warp")
    assert set(errors) == {"prompt", "width", "cfg", "length", "seed", "acceleration"}
    assert errors["prompt"] == "is required"
    assert errors["cfg"] == "input should be greater than or equal to 1"


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t ", "\u3000\u00a0", "\u200b\ufeff", "\u2800\u3164", "\u115f\u1160\uffa0"])
def test_a_prompt_that_shows_nothing_is_missing(prompt: str) -> None:
    assert wrong_fields(prompt=prompt) == {"prompt": "is required"}


@pytest.mark.parametrize("width", [10**400, str(10**400), -(10**30), 1e300, 1.5, True, [64], {"a": 1}])
def test_a_size_that_is_no_size_is_named(width: object) -> None:
    assert list(wrong_fields(prompt="x", width=width)) == ["width"]


def test_null_means_absent() -> None:
    request = video(seed=None, width=None, negative_prompt=None, acceleration=None)
    assert (request.seed, request.width, request.negative_prompt, request.acceleration) == (None, 832, "", "none")
    assert wrong_fields(prompt=None) == {"prompt": "is required"}
    assert "prompt" not in wrong_fields(SCHEMAS["wan22-i2v"])


def test_two_names_of_one_field_may_agree() -> None:
    request = video(length="33", num_frames=33)
    assert (request.num_frames, request.frames) == (33, 33)


def test_two_names_of_one_field_may_not_differ() -> None:
    errors = wrong_fields(prompt="x", length=5, num_frames=9)
    assert errors == {"num_frames": "means the same as `length` and differs from it; send one of them"}
    errors = wrong_fields(SCHEMAS["wan22-i2v"], prompt="x", source_image=ONE, length=5, num_frames=9)
    assert errors == {"length": "means the same as `num_frames` and differs from it; send one of them"}


@pytest.mark.parametrize(
    ("fields", "image", "face"),
    [
        ({"source_image": ONE, "face_image": TWO}, b"one", (b"two",)),
        ({"source_image": ONE, "reference_image": TWO}, b"one", (b"two",)),
        ({"reference_image": ONE, "face_image": TWO}, b"one", (b"two",)),
        ({"source_image": ONE, "face_image": TWO, "reference_image": TWO}, b"one", (b"two",)),
        ({"source_image": ONE, "face_image": [TWO, THREE]}, b"one", (b"two", b"three")),
    ],
)
def test_a_reference_image_beside_a_source_image_is_the_face(
    fields: dict[str, Any], image: bytes, face: tuple[bytes, ...]
) -> None:
    request = SCHEMAS["wan22-i2v-faceswap"].parse(fields, strict=True).request
    assert isinstance(request, GenerateVideo)
    assert (request.image, request.face) == (image, face)


def test_the_two_images_of_a_swap_are_told_apart() -> None:
    schema = SCHEMAS["wan22-i2v-faceswap"]
    assert list(wrong_fields(schema, source_image=ONE, face_image=TWO, reference_image=THREE)) == ["reference_image"]
    assert wrong_fields(schema, reference_image=ONE) == {"face_image": "is required"}
    assert wrong_fields(schema, face_image=ONE) == {"source_image": "is required"}
    assert wrong_fields(schema, source_image=ONE) == {"face_image": "is required"}


def sent_as(schema: Schema, **fields: Any) -> Parsed:
    """Return a parsed request without a prompt of its own."""
    return schema.parse(fields, strict=False)


def test_the_names_that_the_caller_used_are_kept() -> None:
    parsed = sent_as(SCHEMAS["wan22-i2v-faceswap"], source_image=ONE, reference_image=TWO, length=5)
    assert {name: parsed.sent_as[name] for name in ("image", "face", "num_frames", "width")} == {
        "image": "source_image",
        "face": "reference_image",
        "num_frames": "length",
        "width": "width",
    }
    parsed = sent_as(SCHEMAS["wan22-i2v-faceswap"], reference_image=ONE, face_image=TWO)
    assert (parsed.sent_as["image"], parsed.sent_as["face"]) == ("reference_image", "face_image")


def test_unknown_fields_are_ignored_unless_the_request_is_strict() -> None:
    fields: dict[str, Any] = {"prompt": "x", "sampler": "euler", "scheduler": None}
    assert TEXT.parse(fields, strict=False).ignored == ("sampler", "scheduler")
    assert wrong_fields(**fields) == dict.fromkeys(
        ("sampler", "scheduler"), "unknown field, and `Prefer: handling=strict` was sent"
    )
    assert set(wrong_fields(prompt="x", sampler="euler", cfg=0)) == {"sampler", "cfg"}


def test_a_field_of_another_endpoint_is_unknown() -> None:
    assert TEXT.parse({"prompt": "x", "face_image": ONE, "image": ONE}, strict=False).ignored == ("face_image", "image")


def test_a_distilled_model_has_its_own_steps_and_no_guidance() -> None:
    """A guidance scale without effect is refused, and a negative prompt without effect is named."""
    assert (video().steps, video().cfg) == (30, 6)
    distilled = video(acceleration="distilled")
    assert (distilled.steps, distilled.cfg) == (4, 1)
    assert video(acceleration="distilled", steps=8, cfg="1").steps == 8
    errors = wrong_fields(prompt="x", acceleration="distilled", cfg=3)
    assert errors == {"cfg": "a distilled model runs without guidance: leave it out, or send 1"}
    errors = wrong_fields(prompt="x", acceleration="distilled", negative_prompt="blurred")
    assert errors == {"negative_prompt": "has no effect without guidance, and `Prefer: handling=strict` was sent"}
    parsed = TEXT.parse({"prompt": "x", "negative_prompt": "blurred", "cfg": 1}, strict=False)
    assert parsed.ignored == ("negative_prompt",)
    assert TEXT.parse({"prompt": "x", "negative_prompt": "blurred"}, strict=True).ignored == ()


def test_guidance_may_end_early() -> None:
    """Where there is no guidance, a share of it is named as a negative prompt is."""
    request = video(acceleration={"guidance_until": 0.5, "method": "cache"})
    assert (request.acceleration, request.guidance_until, request.cfg) == ("cache", 0.5, 6)
    assert video(acceleration='{"guidance_until": 0.5}').guidance_until == 0.5
    assert video().guidance_until == 1
    errors = wrong_fields(prompt="x", acceleration={"guidance_until": 2}, cfg=0)
    assert set(errors) == {"acceleration", "cfg"}
    assert set(wrong_fields(prompt="x", acceleration={"method": "distilled", "guidance_until": 0.5})) == {"acceleration"}
    fields: dict[str, Any] = {"prompt": "x", "negative_prompt": "blurred", "cfg": 1, "acceleration": {"guidance_until": 0.5}}
    assert TEXT.parse(fields, strict=False).ignored == ("negative_prompt", "acceleration.guidance_until")
    assert set(wrong_fields(**fields)) == {"negative_prompt", "acceleration.guidance_until"}


def test_a_profile_has_the_defaults_of_what_it_stands_for() -> None:
    assert (video(acceleration="fastest").acceleration, video(acceleration="fastest").steps) == ("distilled", 4)
    fast = video(acceleration="fast")
    assert (fast.acceleration, fast.cache_every, fast.steps, fast.cfg) == ("cache", 3, 30, 6)
    assert set(wrong_fields(prompt="x", acceleration="fastest", cfg=3)) == {"cfg"}


def test_a_share_of_guidance_is_no_field_of_its_own() -> None:
    assert TEXT.parse({"prompt": "x", "guidance_until": 0.5}, strict=False).ignored == ("guidance_until",)


def test_a_video_over_the_limits_is_refused_with_the_limit() -> None:
    schema = next(endpoint.schema for endpoint in make_endpoints(make_config()) if endpoint.name == "wan2.6")
    errors = wrong_fields(schema, prompt="x", width=256, height=256, length=37)
    assert errors["width"].startswith("256 x 256 is 65536 pixels; at most 50000 pixels are accepted (see /limits)")
    assert errors["length"] == "at most 33 frames are accepted (see /limits)"
    assert video(schema, width=256, height=176, length=36).frames == 33  # rounded down before it is checked
    assert list(wrong_fields(schema, prompt="x", width=272)) == ["width"]
    assert list(wrong_fields(schema, prompt="x", steps=31)) == ["steps"]


def test_prompts_have_a_longest_length() -> None:
    assert video(prompt="x" * 5000, negative_prompt="y" * 5000).prompt == "x" * 5000
    assert set(wrong_fields(prompt="x" * 5001, negative_prompt="y" * 5001)) == {"prompt", "negative_prompt"}


def test_an_image_swap_is_parsed() -> None:
    request = SCHEMAS["image-faceswap"].parse({"source_image": b"one", "reference_image": [b"two", TWO]}, strict=True).request
    assert isinstance(request, SwapImage)
    assert (request.source, request.face, request.faces) == (b"one", (b"two", b"two"), "largest")
    errors = wrong_fields(SCHEMAS["image-faceswap"], source_image=ONE, reference_image=[ONE] * 9, faces="most", face_index=-1)
    assert set(errors) == {"reference_image", "faces", "face_index"}
    assert errors["reference_image"] == "9 images were sent; send 1 to 8 images of one person"


def test_a_video_swap_has_a_rate_up_to_the_limit() -> None:
    schema = SCHEMAS["batch-video-faceswap"]
    request = schema.parse({"source_video": ONE, "reference_image": TWO, "fps": "29.97"}, strict=True).request
    assert isinstance(request, SwapVideo)
    assert request.rate == pytest.approx(29.97)
    assert list(wrong_fields(schema, source_video=ONE, reference_image=TWO, fps=121)) == ["fps"]
    absent = schema.parse({"source_video": ONE, "reference_image": TWO}, strict=True).request
    assert isinstance(absent, SwapVideo)
    assert absent.rate is None


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_has_every_field_under_its_first_name(name: str) -> None:
    schema = SCHEMAS[name].json_schema()
    assert list(schema["properties"]) == [public[0] for public in SCHEMAS[name].names.values()]
    for field, entry in schema["properties"].items():
        assert entry.get("type") or entry.get("oneOf"), field
        assert "title" not in entry
    required = {"wan2.6": ["prompt"], "image-faceswap": ["source_image", "reference_image"]}
    if name in required:
        assert sorted(schema["required"]) == sorted(required[name])


def test_a_misspelt_field_is_named_with_the_one_that_was_meant() -> None:
    schema = next(endpoint.schema for endpoint in make_endpoints(AppConfig()) if endpoint.name == "image-faceswap")
    with pytest.raises(Problem) as refused:
        schema.parse({"sauce_image": "aGk=", "reference_image": "aGk=", "sampler": "euler"}, strict=False)
    assert [(error.field, error.detail) for error in refused.value.errors] == [
        ("source_image", "is required"),
        ("sauce_image", "unknown field; did you mean `source_image`?"),
    ]
    with pytest.raises(Problem) as refused:
        schema.parse({"source_image": "aGk=", "reference_image": "aGk=", "restore_faces": True}, strict=True)
    (error,) = refused.value.errors
    assert error.detail.endswith("`Prefer: handling=strict` was sent; did you mean `restore_face`?")


@pytest.mark.parametrize("strict", [False, True])
def test_a_body_of_too_many_fields_is_refused_before_any_name_is_compared(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.http.schemas.difflib", None)
    with pytest.raises(Problem) as refused:
        TEXT.parse({f"promp{number}": 1 for number in range(101)}, strict=strict)
    assert (refused.value.status, refused.value.slug) == (422, "invalid-field")
    assert refused.value.detail == "the body has 101 fields; send at most 100"
    assert refused.value.errors == ()


@pytest.mark.parametrize("strict", [False, True])
def test_the_first_unknown_fields_are_named_and_long_names_are_cut(strict: bool) -> None:
    unknown: dict[str, Any] = {f"promp{number}": 1 for number in range(99)}
    errors = wrong_fields(TEXT, strict=strict, **unknown)
    assert set(errors) == {"prompt", *(f"promp{number}" for number in range(20))}
    assert errors["promp19"].endswith("; did you mean `prompt`?")
    if strict:
        long: dict[str, Any] = {"prompt": "x", "x" * 10**6: 1}
        assert "x" * 100 in wrong_fields(TEXT, **long)
