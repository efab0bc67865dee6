import pytest
from starlette.testclient import TestClient

from serve.config import AppConfig, VideoDefaults
from serve.http.endpoints import Endpoint, hint_for, make_endpoints
from serve.http.examples import payload
from serve.media import EXTENSIONS
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26
from tests.unit.serve.fake_graph import FakeGraph

ENDPOINTS = make_endpoints(AppConfig())
NAMES = [endpoint.name for endpoint in ENDPOINTS]
ANIMATION, VIDEO, IMAGE = (
    ("image/webp", "video/mp4", "image/gif"),
    ("video/mp4", "image/webp", "image/gif"),
    ("image/jpeg", "image/png", "image/webp"),
)


def endpoint_named(name: str, config: AppConfig | None = None) -> Endpoint:
    """Return one row of the table."""
    endpoints = ENDPOINTS if config is None else make_endpoints(config)
    return next(endpoint for endpoint in endpoints if endpoint.name == name)


def test_the_table_has_the_paths_of_the_contract() -> None:
    assert {endpoint.name: endpoint.paths for endpoint in ENDPOINTS} == {
        "wan2.6": ("/wan2.6",),
        "wan2.6-i2v": ("/wan2.6-i2v",),
        "wan2.6-i2v-faceswap": ("/wan2.6-i2v-faceswap",),
        "wan22-i2v": ("/wan22-i2v",),
        "wan22-i2v-faceswap": ("/wan22-i2v-faceswap",),
        "image-faceswap": ("/image-faceswap",),
        "batch-video-faceswap": ("/batch-video-faceswap", "/video-faceswap"),
    }


@pytest.mark.parametrize(
    ("name", "media_types", "models"),
    [
        ("wan2.6", ANIMATION, (WAN26,)),
        ("wan2.6-i2v", ANIMATION, (WAN26,)),
        ("wan2.6-i2v-faceswap", VIDEO, (WAN26, FACE_SWAPPER)),
        ("wan22-i2v", ANIMATION, (WAN22_GGUF,)),
        ("wan22-i2v-faceswap", VIDEO, (WAN22_GGUF, FACE_SWAPPER)),
        ("image-faceswap", IMAGE, (FACE_SWAPPER,)),
        ("batch-video-faceswap", VIDEO, (FACE_SWAPPER,)),
    ],
)
def test_each_row_says_what_is_offered(name: str, media_types: tuple[str, ...], models: tuple[object, ...]) -> None:
    endpoint = endpoint_named(name)
    assert (endpoint.media_types, endpoint.models) == (media_types, models)
    assert set(media_types) <= set(EXTENSIONS)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("wan2.6", {"num_frames": ("length", "num_frames"), "source": ("source_video",)}),
        ("wan2.6-i2v", {"image": ("reference_image",)}),
        ("wan2.6-i2v-faceswap", {"image": ("reference_image",), "face": ("face_image", "reference_face")}),
        ("wan22-i2v", {"num_frames": ("num_frames", "length"), "image": ("source_image", "reference_image")}),
        ("wan22-i2v-faceswap", {"image": ("source_image", "reference_image"), "face": ("face_image",)}),
        ("image-faceswap", {"source": ("source_image",), "face": ("reference_image",)}),
        ("batch-video-faceswap", {"source": ("source_video",), "face": ("reference_image",)}),
    ],
)
def test_each_endpoint_has_its_own_names_for_fields(name: str, public: dict[str, tuple[str, ...]]) -> None:
    names = endpoint_named(name).schema.names
    assert {field: names[field] for field in public} == public
    others = set(names) - set(public) - {"num_frames"}
    assert all(names[field] == (field,) for field in others)


def test_a_prompt_is_required_only_by_the_smaller_model() -> None:
    required = {name: endpoint_named(name).schema.json_schema()["required"] for name in NAMES}
    assert {name: sorted(fields) for name, fields in required.items()} == {
        "wan2.6": ["prompt"],
        "wan2.6-i2v": ["prompt", "reference_image"],
        "wan2.6-i2v-faceswap": ["face_image", "prompt", "reference_image"],
        "wan22-i2v": ["source_image"],
        "wan22-i2v-faceswap": ["face_image", "source_image"],
        "image-faceswap": ["reference_image", "source_image"],
        "batch-video-faceswap": ["reference_image", "source_video"],
    }


def test_swap_fields_are_only_where_a_face_is_swapped() -> None:
    assert {name for name in NAMES if "target_face" in endpoint_named(name).schema.names} == {
        name for name in NAMES if "faceswap" in name
    }
    assert "require_face" not in endpoint_named("image-faceswap").schema.names
    assert endpoint_named("wan22-i2v-faceswap").schema.second_reference
    assert not any(endpoint_named(name).schema.second_reference for name in NAMES if name != "wan22-i2v-faceswap")


@pytest.mark.slow
def test_defaults_come_from_the_settings_of_the_model() -> None:
    config = AppConfig(
        wan26_defaults=VideoDefaults(width=320, steps=7, distilled_steps=3), wan22_defaults=VideoDefaults(width=640)
    )
    width = {
        name: endpoint_named(name, config).schema.json_schema()["properties"]["width"]["default"]
        for name in NAMES
        if name.startswith("wan")
    }
    assert width == {
        "wan2.6": 320,
        "wan2.6-i2v": 320,
        "wan2.6-i2v-faceswap": 320,
        "wan22-i2v": 640,
        "wan22-i2v-faceswap": 640,
    }
    assert endpoint_named("wan2.6", config).schema.distilled == {"steps": 3, "cfg": 1}


@pytest.mark.parametrize("name", NAMES)
def test_each_endpoint_runs_on_its_own_models(client: TestClient, graph: FakeGraph, name: str) -> None:
    assert client.post(f"/{name}", json=payload(name)).status_code == 200
    used = {
        model.name
        for model, calls in (
            (WAN26, graph.wan26.requests),
            (WAN22_GGUF, graph.wan22.requests),
            (FACE_SWAPPER, graph.swapper.swapped),
        )
        if calls
    }
    assert used == {model.name for model in endpoint_named(name).models}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_path_hints_at_the_field_that_was_meant(endpoint: Endpoint) -> None:
    fields = [name for names in endpoint.schema.names.values() for name in names]
    for path in endpoint.paths:
        for field in fields:
            assert hint_for(path.strip("/"), field[:1] + "x" + field[1:]).startswith("; did you mean `"), (path, field)
            assert hint_for(path.strip("/"), field) == "", "a field that is known needs no hint"
        assert hint_for(path.strip("/"), "zzz") == ""


def test_an_unknown_path_has_no_hints() -> None:
    assert hint_for("wan3", "promt") == ""
