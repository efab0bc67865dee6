"""Settings, presets, negotiation, ordering: all that needs no Ray cluster."""

import base64
from pathlib import Path

import pytest
from serve.endpoints import make_endpoints
from serve.errors import TITLES, Problem
from serve.preferences import choose_media_type, preferences, request_timeout
from serve.schemas import VideoBody

from serve.config import AppConfig

ROOT = Path(__file__).parents[2]


OFFERED = ("image/webp", "video/mp4")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "image/webp"),
        ("*/*", "image/webp"),
        ("video/*", "video/mp4"),
        ("video/mp4;q=0.5, image/webp;q=0.4", "video/mp4"),
        ("image/webp;q=0, */*", "video/mp4"),
        ("text/html, */*;q=0.1", "image/webp"),
        ("application/json", None),
        ("image/webp;q=0", None),
    ],
)
def test_accept(accept: str | None, chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(Problem) as refused:
            choose_media_type(accept, OFFERED)
        assert refused.value.status == 406
    else:
        assert choose_media_type(accept, OFFERED) == chosen


def test_prefer_and_timeout() -> None:
    assert preferences(["respond-async, wait=10", 'Handling="Strict"; x=1']) == {
        "respond-async": "",
        "wait": "10",
        "handling": "strict",
    }
    assert request_timeout(None, 1800) == 1800
    assert request_timeout("2.5", 1800) == 2.5
    assert request_timeout("9999", 1800) == 1800
    for bad in ("0", "-1", "nan", "soon", "inf"):
        with pytest.raises(Problem):
            request_timeout(bad, 1800)


def test_aliases_and_extremes_of_the_schema() -> None:
    endpoints = {endpoint.name: endpoint.schema for endpoint in make_endpoints(AppConfig())}
    text, swap = endpoints["wan2.6"], endpoints["wan22-i2v-faceswap"]
    same = text.parse({"prompt": "x", "length": "33", "num_frames": 33}, strict=True).body
    assert isinstance(same, VideoBody)
    assert same.frames == 33
    for width in (10**400, str(10**400), -(10**30), 1e300):
        with pytest.raises(Problem) as refused:
            text.parse({"prompt": "x", "width": width}, strict=True)
        assert [e.field for e in refused.value.errors] == ["width"]
    one, two, three = (base64.b64encode(data).decode() for data in (b"one", b"two", b"three"))
    cases = (
        ({"source_image": one, "face_image": two}, (b"one", (b"two",))),
        ({"source_image": one, "reference_image": two}, (b"one", (b"two",))),
        ({"reference_image": one, "face_image": two}, (b"one", (b"two",))),
        ({"source_image": one, "face_image": two, "reference_image": two}, (b"one", (b"two",))),
    )
    for given, expected in cases:
        body = swap.parse(given, strict=True).body
        assert isinstance(body, VideoBody)
        assert (body.image, body.face) == expected
    with pytest.raises(Problem) as refused:
        swap.parse({"source_image": one, "face_image": two, "reference_image": three}, strict=True)
    assert [e.field for e in refused.value.errors] == ["reference_image"]


def test_a_distilled_model_has_its_own_steps_and_no_guidance() -> None:
    """What would do nothing is not silently taken: a guidance scale is refused, a negative prompt named."""
    schema = next(endpoint.schema for endpoint in make_endpoints(AppConfig()) if endpoint.name == "wan2.6")

    def body(**fields: object) -> VideoBody:
        parsed = schema.parse({"prompt": "x", **fields}, strict=True).body
        assert isinstance(parsed, VideoBody)
        return parsed

    assert (body().steps, body().cfg) == (30, 6)
    quick = body(acceleration="distilled")
    assert (quick.steps, quick.cfg) == (4, 1)
    assert body(acceleration="distilled", steps=8, cfg="1").steps == 8
    for field, given in (("cfg", 3), ("negative_prompt", "blurred")):
        with pytest.raises(Problem) as refused:
            body(acceleration="distilled", **{field: given})
        assert [e.field for e in refused.value.errors] == [field]
        assert "without guidance" in refused.value.errors[0].detail
    parsed = schema.parse({"prompt": "x", "negative_prompt": "blurred", "cfg": 1}, strict=False)
    assert parsed.ignored == ("negative_prompt",)
    assert schema.parse({"prompt": "x", "negative_prompt": "blurred"}, strict=True).ignored == ()


def test_no_module_is_over_400_lines() -> None:
    folders = ("serve", "deployments", "demo", "loadtest", "benchmarks", "tests")
    sizes = {path: len(path.read_text().splitlines()) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): lines for path, lines in sizes.items() if lines > 400} == {}


def test_every_problem_and_setting_variable_is_in_the_docs() -> None:
    http = (ROOT / "docs" / "http.md").read_text()
    assert [slug for slug in TITLES if f"`{slug}`" not in http] == []
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in operations
    assert "RYLA_MAX_BODY_BYTES" in operations
    for endpoint in make_endpoints(AppConfig()):
        assert all(f"`{path}`" in http for path in endpoint.paths)
        assert all(any(alias in http for alias in names) for names in endpoint.schema.names.values())
