"""The Serve config inside the RayService: the preset with `config` and `deployments` merged in."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.cli.config_check import documents, faults
from serve.cli.presets import PRESETS
from serve.config import AppConfig, Limits
from tests.chart.rendering import VALUES, one, pod_templates, render, serve_config


def test_the_default_is_the_production_preset() -> None:
    config, preset = serve_config(render()), yaml.safe_load((PRESETS / "production.yaml").read_text())
    # Where jobs are kept is different in every installation.
    assert config["applications"][0]["args"].pop("jobs") == {"store": "redis://redis:6379/1", "files": "s3://bucket/ryla"}
    assert [part.pop("logging_config") for part in (config, config["applications"][0])] == [{"encoding": "JSON"}] * 2
    assert config == preset


def test_log_lines_are_json_or_text_in_every_process_of_serve() -> None:
    """The settings of the application are those of replicas, and the others of the proxies."""
    for values in ({}, {"preset": "single-gpu"}):
        written = ServeDeploySchema.model_validate(serve_config(render(values)))
        assert written.logging_config is not None
        assert written.logging_config.encoding == "JSON"
        (application,) = written.applications
        assert application.logging_config is not None
        assert application.logging_config.encoding == "JSON"
    text = serve_config(render({"logFormat": "text"}))
    assert "logging_config" not in text
    assert "logging_config" not in text["applications"][0]


def test_config_and_deployments_are_merged_over_the_preset() -> None:
    objects = render(
        {
            "config": {
                "limits": {"max_frames": 33, "max_body_bytes": 1000},
                "wan26": {"hardware": {"num_cpus": 0}, "engine": {"warm_up": None, "compile": False}},
            },
            "deployments": {"Wan26": {"autoscaling_config": {"min_replicas": 1}, "max_queued_requests": 5}},
        }
    )
    application = serve_config(objects)["applications"][0]
    settings = AppConfig.model_validate(application["args"])
    assert settings.limits.max_frames == 33
    assert settings.wan26.hardware.num_cpus == 0  # zero and false are values, too
    assert settings.wan26.engine.compile is False
    assert settings.wan26.engine.warm_up == ()  # null removed the preset's
    assert settings.wan26.hardware.accelerator_type == "L40S"
    wan26 = next(d for d in application["deployments"] if d["name"] == "Wan26")
    assert (wan26["autoscaling_config"]["min_replicas"], wan26["autoscaling_config"]["max_replicas"]) == (1, 4)
    assert wan26["max_queued_requests"] == 5
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    environment = {e["name"]: e.get("value") for e in head["spec"]["containers"][0]["env"]}
    assert environment["RYLA_MAX_BODY_BYTES"] == "1000"


def test_the_body_limit_of_the_proxy_is_the_default_setting() -> None:
    environment = one(render(), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert {"name": "RYLA_MAX_BODY_BYTES", "value": str(Limits().max_body_bytes)} in environment


def test_the_proxies_find_keys_and_origins_in_their_environment() -> None:
    """They check both before they read a body."""
    origins = ["https://a.example", "https://b.example"]
    values = {"auth": {"apiKeysSecret": "keys", "smokeKeySecret": "key"}, "config": {"ingress": {"cors_origins": origins}}}
    for name, template in pod_templates([one(render(values), "RayService")]):
        (container,) = template["spec"]["containers"]
        environment = {e["name"]: e.get("value") for e in container["env"]}
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert environment["RYLA_API_KEYS"] == f"{mounts['api-keys']}/keys", name
        assert environment["RYLA_CORS_ORIGINS"] == " ".join(origins), name
        assert environment["RYLA_PROXY"] == "{}", name


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_the_settings_of_every_values_file_are_valid(file: Path) -> None:
    for name, config, service in documents(yaml.safe_dump_all(render(None, file))):
        assert faults(config, service) == [], name
