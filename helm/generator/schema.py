"""The JSON schema of the chart's values, which Helm checks on every install and upgrade."""

from typing import Any

from ray.serve.schema import DeploymentSchema

from helm.generator.values import DEPLOYMENTS, ChartValues
from serve.config import AppConfig

Json = dict[str, Any]


def values_schema() -> Json:
    """Return values.schema.json, which refuses unknown keys.

    `config` has the schema of AppConfig, `deployments` that of Ray Serve.
    """
    schema = ChartValues.model_json_schema(by_alias=True)
    settings, deployment = AppConfig.model_json_schema(), DeploymentSchema.model_json_schema()
    schema["$defs"] |= {f"AppConfig.{name}": value for name, value in settings.pop("$defs").items()}
    schema["$defs"] |= {f"Serve.{name}": value for name, value in deployment.pop("$defs").items()}
    deployment["properties"].pop("name")  # it is the key in `deployments`
    deployment.pop("required")
    _make_strict(deployment)
    schema["properties"]["config"] |= _with_owner(_optional(settings), "AppConfig")
    schema["properties"]["deployments"] |= {
        "additionalProperties": False,
        "properties": dict.fromkeys(DEPLOYMENTS, _with_owner(deployment, "Serve")),
    }
    schema["$defs"] = {name: _definition(name, value) for name, value in schema["$defs"].items()}
    schema["properties"]["global"] = {"type": "object", "description": "Reserved by Helm."}
    cleaned: Json = _clean({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    return cleaned


def _definition(name: str, schema: Json) -> Json:
    owner = name.partition(".")[0]
    if owner == "AppConfig":
        settings: Json = _with_owner(_optional(schema), owner)
        return settings
    if name == "Serve.AutoscalingConfig":
        schema["additionalProperties"] = False
    return _with_owner(schema, owner) if owner == "Serve" else schema


def _make_strict(deployment: Json) -> None:
    """Refuse unknown keys, also in `autoscaling_config`, where Serve accepts any object."""
    deployment["additionalProperties"] = False
    scaling = deployment["properties"]["autoscaling_config"]
    scaling["anyOf"] = [variant for variant in scaling["anyOf"] if "additionalProperties" not in variant]


def _optional(schema: Json) -> Json:
    """Return ``schema`` with nothing required, and with null, which removes a preset's setting."""
    properties = {
        name: {"description": value.get("description", ""), "anyOf": [value, {"type": "null"}]}
        for name, value in schema.get("properties", {}).items()
    }
    return {key: value for key, value in schema.items() if key != "required"} | (
        {"properties": properties} if properties else {}
    )


def _with_owner(value: Any, owner: str) -> Any:
    """Return ``value`` with its references pointing to the definitions of ``owner``."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/$defs/", f"#/$defs/{owner}.")
            if key == "$ref" and f"/{owner}." not in item
            else _with_owner(item, owner)
            for key, item in value.items()
        }
    return [_with_owner(item, owner) for item in value] if isinstance(value, list) else value


def _clean(value: Any, *, names: bool = False) -> Any:
    """Return ``value`` with each description on one line, without pydantic's titles and defaults.

    The defaults are in values.yaml. ``names`` says that the keys are names of properties, which
    may be called `title` or `default` themselves.
    """
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    if names:
        return {key: _clean(item) for key, item in value.items()}
    return {
        key: " ".join(item.split()) if key == "description" else _clean(item, names=key in ("properties", "$defs"))
        for key, item in value.items()
        if key not in ("title", "default")
    }
