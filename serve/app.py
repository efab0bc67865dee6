"""Builds the bound Ray Serve application from the settings."""

from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from demo.face_models import face_models
from deployments.face_swapper import FaceSwapper
from deployments.wan22_gguf import Wan22GGUF
from deployments.wan26 import Wan26
from serve.config import AppConfig, Hardware, IngressSettings, RunnerSettings
from serve.http.ingress import Ingress
from serve.jobs.runner import Runner
from serve.model_files import video_model_files
from serve.models import FACE_SWAPPER, MODELS, WAN22_GGUF, WAN26, Model

DEPLOYMENTS: Mapping[Model, Any] = {WAN26: Wan26, WAN22_GGUF: Wan22GGUF, FACE_SWAPPER: FaceSwapper}
"""The Ray Serve deployment of each model."""


def build(args: AppConfig) -> Application:
    """Return the application for ``args``. Serve config files name it ``serve.app:build``."""
    return bind(args, DEPLOYMENTS)


def bind(config: AppConfig, deployments: Mapping[Model, Any]) -> Application:
    """Return the graph over ``deployments``, each with its settings and model files."""
    files = model_files(config)
    models = {
        model.name: deployments[model]
        .options(ray_actor_options=actor_options(config.deployment_of(model).hardware))
        .bind(config.deployment_of(model).engine, files[model])
        for model in MODELS
    }
    runner: Any = Runner
    jobs = runner.options(ray_actor_options=_cpu_options(config.runner)).bind(config, models)
    ingress: Any = Ingress
    application: Application = ingress.options(ray_actor_options=_cpu_options(config.ingress)).bind(config, jobs, models)
    return application


def _cpu_options(settings: IngressSettings | RunnerSettings) -> dict[str, Any]:
    return {"num_cpus": settings.num_cpus, "resources": settings.resources}


def model_files(config: AppConfig) -> dict[Model, Any]:
    """Return where the files of each model are: those of the demo, or as configured.

    The demo's face models are given by a function, because each replica prepares them on its own
    machine.
    """
    faces = face_models if config.models == "demo" else config.models.faces
    return {**video_model_files(config), FACE_SWAPPER: faces}


def actor_options(hardware: Hardware) -> dict[str, Any]:
    """Return the placement of a replica, as Ray takes it."""
    options: dict[str, Any] = {"num_cpus": hardware.num_cpus, "num_gpus": hardware.num_gpus}
    if hardware.accelerator_type is not None:
        options["accelerator_type"] = hardware.accelerator_type
    return options
