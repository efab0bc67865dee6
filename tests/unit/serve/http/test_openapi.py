import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.http.openapi import endpoint_operation, openapi_document, service_operation, warm_operation
from serve.http.version import VERSION
from serve.problems import invalid, invalid_header, invalid_parameter

ENDPOINTS = {endpoint.name: endpoint for endpoint in make_endpoints(AppConfig())}


def content_of(name: str) -> dict[str, Any]:
    """Return the content of a request body, by media type."""
    content: dict[str, Any] = endpoint_operation(ENDPOINTS[name], f"/{name}")["requestBody"]["content"]
    return content


@pytest.mark.slow
def test_the_examples_work_when_pasted(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    tried = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            response = client.post(path, json=content["example"])
            assert response.status_code == 200, (path, response.text)
            assert response.headers["content-type"] in item["post"]["responses"]["200"]["content"]
            tried += 1
    assert tried == 9


def test_the_document_has_a_version_that_the_packaged_swagger_ui_shows(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.0.")
    assert (document["info"]["title"], document["info"]["version"]) == ("ryla-serve", VERSION)
    text = json.dumps(document)
    assert '"null"' not in text  # 3.0 has no such type
    assert '"ge"' not in text  # pydantic's word for "minimum"
    assert set(document["paths"]) >= {"/wan2.6", "/video-faceswap", "/readyz", "/warm", "/limits", "/health", "/healthz", "/"}


def test_every_operation_has_a_link_of_its_own_below_a_described_heading(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]+", name) for name in ids)
    used = {tag for operation in operations for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    assert [tag["name"] for tag in document["tags"]] == ["Videos", "Faces", "Jobs", "OpenAI", "Service"]
    groups = {path: item[method]["tags"] for path, item in document["paths"].items() for method in item}
    assert [groups[path] for path in ("/wan22-i2v-faceswap", "/video-faceswap", "/")] == [["Videos"], ["Faces"], ["Service"]]


def test_operations_of_one_path_stand_together() -> None:
    get, post = {"summary": "get"}, {"summary": "post"}
    document = openapi_document([("/a", "GET", get), ("/a", "POST", post), ("/b", "GET", get)], keys=False)
    assert document["paths"] == {"/a": {"get": get, "post": post}, "/b": {"get": get}}
    assert "security" not in document
    assert "Authorize" not in document["info"]["description"]


def test_keys_are_declared_where_they_are_needed() -> None:
    document = openapi_document([], keys=True)
    assert document["security"] == [{"key": []}]
    assert "Authorize" in document["info"]["description"]
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


def test_a_field_has_its_default_and_its_limits(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = document["paths"]["/wan2.6"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["width"] == {
        "default": 64,
        "description": "Width in pixels.",
        "maximum": 256,
        "minimum": 16,
        "multipleOf": 16,
        "type": "integer",
    }
    length = schema["properties"]["length"]
    assert (length["default"], length["minimum"], length["maximum"]) == (9, 1, 33)
    assert length["description"].endswith("Also called `num_frames`.")
    assert "num_frames" not in schema["properties"]
    assert (schema["properties"]["seed"]["minimum"], schema["properties"]["seed"]["maximum"]) == (0, 2**63 - 1)
    assert "default" not in schema["properties"]["seed"]


@pytest.mark.parametrize("name", ["image-faceswap", "batch-video-faceswap"])
def test_files_are_strings_in_json_and_binary_parts_in_a_form(name: str) -> None:
    source = "source_image" if name == "image-faceswap" else "source_video"
    content = content_of(name)
    json_fields, form_fields = (
        content[media_type]["schema"]["properties"] for media_type in ("application/json", "multipart/form-data")
    )
    assert list(json_fields) == list(form_fields)
    assert json_fields[source]["type"] == "string"
    assert "format" not in json_fields[source]
    assert form_fields[source]["format"] == "binary"
    assert "base64" in json_fields[source]["description"]
    assert "base64" not in str(form_fields)
    text, several = json_fields["reference_image"]["oneOf"]
    assert text == {"type": "string"}
    assert (several["type"], several["items"], several["maxItems"]) == ("array", {"type": "string"}, 8)
    assert form_fields["reference_image"]["items"] == {"type": "string", "format": "binary"}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_endpoint_takes_json_and_a_form_with_the_same_fields(name: str) -> None:
    content = content_of(name)
    assert list(content) == ["application/json", "multipart/form-data"]
    json_schema, form_schema = (entry["schema"] for entry in content.values())
    assert list(json_schema["properties"]) == list(form_schema["properties"])
    assert json_schema["required"] == form_schema["required"]
    files = [field for field, entry in form_schema["properties"].items() if "binary" in str(entry)]
    names = ENDPOINTS[name].schema.names
    assert files == [names[field][0] for field in names if field in ("image", "last_image", "source", "face", "target_face")]


def test_an_operation_says_what_is_answered() -> None:
    operation = endpoint_operation(ENDPOINTS["wan2.6"], "/wan2.6")
    assert operation["operationId"] == "wan2-6"
    assert list(operation["responses"]["200"]["content"]) == ["image/webp", "video/mp4", "image/gif"]
    assert operation["description"] == (
        "Returns `image/webp` by default, or `video/mp4` or `image/gif` if `Accept` asks for it. Uses `wan26`."
    )
    assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"]


def test_a_problem_has_the_fields_of_its_schema() -> None:
    schema = openapi_document([], keys=False)["components"]["schemas"]["Problem"]
    body = json.loads(bytes(invalid("prompt", "is required").response("the-id").body))
    assert set(schema["required"]) <= set(body) == set(schema["properties"])
    kinds = {"string": str, "integer": int, "array": list}
    for name, field in schema["properties"].items():
        assert isinstance(body[name], kinds[field["type"]])
    errors = [
        json.loads(bytes(problem("model", "is unknown").response("the-id").body))["errors"][0]
        for problem in (invalid, invalid_header, invalid_parameter)
    ]
    assert [set(error) for error in errors] == [{source, "detail"} for source in ("pointer", "header", "parameter")]
    assert set().union(*errors) == set(schema["properties"]["errors"]["items"]["properties"])


def test_a_service_route_lists_its_parameters() -> None:
    operation = service_operation("/readyz", "Says whether requests are accepted", query={"model": ["wan26", "face-swapper"]})
    (parameter,) = operation["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("model", "query", False)
    assert parameter["schema"]["enum"] == ["wan26", "face-swapper"]
    assert "parameters" not in service_operation("/health", "Says that the service is reachable")


def test_the_body_of_warm_is_optional() -> None:
    operation = warm_operation(["wan26"])
    assert operation["requestBody"]["required"] is False
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["models"]["items"]["enum"] == ["wan26"]
    assert list(operation["responses"]) == ["202", "default"]
