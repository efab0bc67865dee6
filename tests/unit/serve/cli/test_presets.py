"""The Serve config files of the package, and files of the user."""

from pathlib import Path

import pytest
import typer
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.app import build
from serve.cli.console import error_console
from serve.cli.presets import PRESETS, address, find_preset, listening_on
from serve.config import AppConfig
from serve.models import INGRESS, MODELS, RUNNER


@pytest.mark.parametrize("preset", ["demo", "single-gpu", "production"])
def test_presets_are_serve_config_files_that_build(preset: str) -> None:
    text = yaml.safe_load(find_preset(preset).read_text())
    (application,) = ServeDeploySchema.model_validate(text).applications
    config = AppConfig.model_validate(application.args)
    assert application.import_path == "serve.app:build"
    bound = build(config)
    assert bound is not None
    assert {d.name for d in application.deployments} <= {INGRESS, RUNNER, *(model.deployment for model in MODELS)}
    # What the proxy would answer in plain text, the ingress answers first.
    assert text["http_options"]["request_timeout_s"] > config.limits.request_timeout_s
    for deployment in text["applications"][0].get("deployments", []):
        assert "initial_replicas" not in deployment["autoscaling_config"]  # it would reset a warm model at every change


def test_production_places_and_scales_each_model_by_itself() -> None:
    text = yaml.safe_load((PRESETS / "production.yaml").read_text())["applications"][0]
    config = AppConfig.model_validate(text["args"])
    scales = {d["name"]: d["autoscaling_config"] for d in text["deployments"]}
    for model in MODELS:
        assert config.deployment_of(model).hardware.accelerator_type == model.accelerator
        assert scales[model.deployment]["min_replicas"] == 0
        assert scales[model.deployment]["downscale_to_zero_delay_s"] == 300


def test_a_file_of_the_user_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    assert find_preset(str(path)) == path
    assert find_preset("demo") == PRESETS / "demo.yaml"


def test_an_unknown_preset_is_answered_with_those_that_exist() -> None:
    with error_console.capture() as printed, pytest.raises(typer.Exit) as exit_:
        find_preset("demmo")
    assert exit_.value.exit_code == 2
    assert printed.get().strip() == "no preset or file is named demmo; presets: demo, production, single-gpu"


def test_another_address_is_written_to_a_copy(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"http_options": {"port": 9000}, "applications": []}))
    before = config.read_text()
    copy = listening_on(config, "0.0.0.0")
    assert (copy.name, config.read_text()) == ("mine.yaml", before)
    assert yaml.safe_load(copy.read_text())["http_options"] == {"port": 9000, "host": "0.0.0.0"}
    assert address(copy) == "127.0.0.1:9000"


@pytest.mark.parametrize(
    ("options", "reached_at"),
    [
        ({}, "127.0.0.1:8000"),
        ({"host": "10.0.0.7", "port": 81}, "10.0.0.7:81"),
        ({"host": "0.0.0.0"}, "127.0.0.1:8000"),
        ({"host": "::"}, "[::1]:8000"),
        ({"host": "::1", "port": 81}, "[::1]:81"),
    ],
)
def test_the_address_of_a_service_is_one_that_can_be_called(
    tmp_path: Path, options: dict[str, object], reached_at: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"http_options": options}))
    assert address(path) == reached_at
