"""Settings, presets, negotiation, ordering: all that needs no Ray cluster."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema
from serve.endpoints import make_endpoints
from serve.errors import TITLES, Problem
from serve.meter import Meter
from serve.ordered import map_ordered
from serve.preferences import choose_media_type, preferences, request_timeout
from serve.readiness import MODELS
from serve.schemas import VideoBody

from serve.app import build
from serve.cli import PRESETS, find_preset, serve_environment
from serve.config import AppConfig, Hardware, Limits

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("preset", ["demo", "single-gpu", "production"])
def test_presets_are_serve_config_files_that_build(preset: str) -> None:
    text = yaml.safe_load(find_preset(preset).read_text())
    (application,) = ServeDeploySchema.model_validate(text).applications
    config = AppConfig.model_validate(application.args)
    assert application.import_path == "serve.app:build"
    bound = build(config)
    assert bound is not None
    assert {d.name for d in application.deployments} <= {"Ingress", *MODELS.values()}
    # What the proxy would answer in plain text, the ingress answers first.
    assert text["http_options"]["request_timeout_s"] > config.limits.request_timeout_s
    for deployment in text["applications"][0].get("deployments", []):
        assert "initial_replicas" not in deployment["autoscaling_config"]  # it would reset a warm model at every change


def test_production_places_and_scales_each_model_by_itself() -> None:
    text = yaml.safe_load((PRESETS / "production.yaml").read_text())["applications"][0]
    config = AppConfig.model_validate(text["args"])
    assert (config.wan26.hardware.accelerator_type, config.wan22_gguf.hardware.accelerator_type) == ("L40S", "A100-80G")
    assert config.face_swapper.hardware.accelerator_type == "L40S"
    scales = {d["name"]: d["autoscaling_config"] for d in text["deployments"]}
    for name in MODELS.values():
        assert scales[name]["min_replicas"] == 0
        assert scales[name]["downscale_to_zero_delay_s"] == 300


def test_unknown_and_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        AppConfig.model_validate({"wan27": {}})
    with pytest.raises(ValidationError, match="over its limit"):
        AppConfig.model_validate({"limits": {"max_frames": 5}})


def test_every_setting_is_documented() -> None:
    def missing(model: type, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if not field.description:
                found.append(f"{path}.{name}")
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for kind in kinds:
                if isinstance(kind, type) and hasattr(kind, "model_fields"):
                    found += missing(kind, f"{path}.{name}")
        return found

    assert missing(AppConfig, "AppConfig") == []


def test_the_graph_is_built_without_torch() -> None:
    """The builder runs as a task on any node, which may have no GPU and little memory."""
    code = "import sys, serve.app, serve.config; serve.app.build(serve.config.AppConfig()); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip().splitlines()[-1] == "False"


def test_the_proxy_gets_the_body_limit_of_the_settings(tmp_path: Path) -> None:
    assert serve_environment(PRESETS / "demo.yaml")["RYLA_MAX_BODY_BYTES"] == str(Limits().max_body_bytes)
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["applications"][0]["args"]["limits"]["max_body_bytes"] = 1000
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    assert serve_environment(path)["RYLA_MAX_BODY_BYTES"] == "1000"


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


async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


async def collect(source: AsyncIterator[int], seen: list[int]) -> None:
    async for value in source:
        seen.append(value)  # noqa: PERF401 (what came before an error counts)


async def test_map_ordered_keeps_order_and_its_bound() -> None:
    under_way, most = 0, 0

    async def square(i: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01 * (5 - i % 5))  # later ones are done earlier
        under_way -= 1
        return i * i

    assert [v async for v in map_ordered(count(12), square, 3)] == [i * i for i in range(12)]
    assert most == 3


async def test_map_ordered_passes_errors_on_and_leaves_nothing_running() -> None:
    cancelled = []

    async def fail(i: int) -> int:
        if i == 1:
            raise ValueError("one")
        try:
            await asyncio.sleep(0 if i == 0 else 10)
        except asyncio.CancelledError:
            cancelled.append(i)
            raise
        return i

    seen: list[int] = []
    with pytest.raises(ValueError, match="one"):
        await collect(map_ordered(count(9), fail, 3), seen)
    assert seen == [0]
    assert set(cancelled) <= {2, 3}
    assert len(asyncio.all_tasks()) == 1

    async def broken() -> AsyncIterator[int]:
        yield 0
        raise KeyError("source")

    async def same(i: int) -> int:
        return i

    with pytest.raises(KeyError, match="source"):
        await collect(map_ordered(broken(), same, 2), seen)


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
    with pytest.raises(ValidationError, match=r"wan26_defaults\.distilled_steps is 8, over its limit 6"):
        AppConfig.model_validate(
            {"limits": {"max_steps": 6}, "wan26_defaults": {"steps": 6, "distilled_steps": 8}, "wan22_defaults": {"steps": 6}}
        )


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


async def test_the_seconds_and_the_price_of_all_models_are_summed() -> None:
    meter = Meter(
        {"wan26": Hardware(price_usd_per_hour=3600, accelerator_type="L40S"), "face-swapper": Hardware(price_usd_per_hour=36)}
    )
    meter.work("wan26", 2)
    meter.work("face-swapper", 1)
    meter.work("face-swapper", 0.5)
    meter.phase("swap", 0.0123)
    assert (meter.execution_s, meter.gpu_type) == (3.5, "L40S")
    assert meter.cost_usd == pytest.approx(2 + 1.5 * 0.01)
    assert meter.server_timing() == "swap;dur=12.3"
    meter.clear()
    assert (meter.execution_s, meter.server_timing()) == (0, "")
