"""Settings become a bound graph: where replicas are placed, and what each gets."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from ray.serve import Deployment

from serve.app import bind, build, model_files
from serve.config import AppConfig
from serve.models import FACE_SWAPPER, MODELS, WAN22_GGUF, WAN26, Model

ROOT = Path(__file__).parents[3]
FILES = {
    "wan26": {"text": "/models/wan"},
    "wan22_gguf": {"folder": "/models/a14b", "high_noise": "/models/high.gguf", "low_noise": "/models/low.gguf"},
    "faces": {"analysis": "/models/buffalo_l", "swapper": "/models/inswapper_128.onnx"},
}


class RecordingDeployment:
    """A deployment that keeps what it is placed on and bound to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.actor_options: dict[str, Any] = {}
        self.bound: tuple[Any, ...] = ()

    def options(self, *, ray_actor_options: dict[str, Any]) -> "RecordingDeployment":
        """Keep the options."""
        self.actor_options = ray_actor_options
        return self

    def bind(self, *args: Any) -> str:
        """Keep the arguments; return a name in place of a bound deployment."""
        self.bound = args
        return f"bound {self.name}"


def bound(**settings: Any) -> tuple[AppConfig, dict[Model, RecordingDeployment], Any]:
    """Return the config, the deployments of the models and the bound ingress."""
    config = AppConfig.model_validate(settings)
    deployments = {model: RecordingDeployment(model.name) for model in MODELS}
    application: Any = bind(config, {model: cast(Deployment, each) for model, each in deployments.items()})
    return config, deployments, application._bound_deployment


def test_every_model_is_placed_on_the_hardware_of_its_own_settings() -> None:
    gpu = {"num_cpus": 4, "num_gpus": 1, "accelerator_type": "L40S"}
    _, deployments, _ = bound(wan26={"hardware": gpu}, face_swapper={"hardware": {"num_cpus": 0.5}})
    assert deployments[WAN26].actor_options == gpu
    assert deployments[WAN22_GGUF].actor_options == {"num_cpus": 1, "num_gpus": 0}
    assert deployments[FACE_SWAPPER].actor_options == {"num_cpus": 0.5, "num_gpus": 0}


def test_every_model_gets_its_engine_settings_and_its_files() -> None:
    config, deployments, _ = bound(models=FILES, wan26={"engine": {"threads": 3}})
    files = model_files(config)
    for model, deployment in deployments.items():
        assert deployment.bound == (config.deployment_of(model).engine, files[model])
    assert deployments[WAN26].bound[0].threads == 3
    assert deployments[WAN26].bound[1].text == "/models/wan"
    assert deployments[WAN22_GGUF].bound[1].high_noise == Path("/models/high.gguf")
    assert deployments[FACE_SWAPPER].bound[1].swapper == Path("/models/inswapper_128.onnx")


def test_the_ingress_gets_all_settings_and_the_models_by_their_names_in_the_api() -> None:
    config, _, ingress = bound(ingress={"num_cpus": 0.5, "resources": {"ingress": 1}})
    assert ingress.name == "Ingress"
    assert ingress.ray_actor_options == {"num_cpus": 0.5, "resources": {"ingress": 1}}
    settings, runner, models = ingress.init_args
    assert settings == config
    assert runner._bound_deployment.name == "Runner"
    assert models == {name: f"bound {name}" for name in ("wan26", "wan22-gguf", "face-swapper")}


def test_the_demo_brings_its_own_files() -> None:
    files: dict[Model, Any] = model_files(AppConfig())
    assert Path(files[WAN26].text).is_dir()
    assert files[WAN22_GGUF].high_noise.is_file()
    # Each replica calls the function, and so prepares the files on its own machine.
    assert files[FACE_SWAPPER]().detector.is_file()


def test_a_serve_config_file_can_name_the_builder() -> None:
    application: Any = build(AppConfig())
    assert application._bound_deployment.name == "Ingress"


@pytest.mark.slow
def test_the_graph_is_built_without_torch() -> None:
    """The builder runs as a task on any node, which may have no GPU and little memory."""
    code = "import sys, serve.app, serve.config; serve.app.build(serve.config.AppConfig()); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip().splitlines()[-1] == "False"
