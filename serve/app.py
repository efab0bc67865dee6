"""The composition root: settings in, a bound Ray Serve application out."""

from typing import Any

from ray.serve import Application

from deployments.face_swapper import FaceSwapper
from deployments.wan22_gguf import Wan22GGUF
from deployments.wan26 import Wan26
from serve.config import AppConfig, Hardware
from serve.ingress import Ingress


def build(args: AppConfig) -> Application:
    """The application that ``args`` describe; what a Serve config file names as ``serve.app:build``."""
    return bind(args, wan26=Wan26, wan22_gguf=Wan22GGUF, face_swapper=FaceSwapper)


def bind(config: AppConfig, *, wan26: Any, wan22_gguf: Any, face_swapper: Any) -> Application:
    """The graph over given deployments: each gets its engine's settings and its models, and is placed as configured."""
    models = None if config.models == "demo" else config.models
    ingress: Any = Ingress
    placed = ingress.options(ray_actor_options={"num_cpus": config.ingress.num_cpus, "resources": config.ingress.resources})
    application: Application = placed.bind(
        config,
        wan26.options(ray_actor_options=_place(config.wan26.hardware)).bind(config.wan26.engine, models and models.wan26),
        wan22_gguf.options(ray_actor_options=_place(config.wan22_gguf.hardware)).bind(
            config.wan22_gguf.engine, models and models.wan22_gguf
        ),
        face_swapper.options(ray_actor_options=_place(config.face_swapper.hardware)).bind(
            config.face_swapper.engine, models and models.faces
        ),
    )
    return application


def _place(hardware: Hardware) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": hardware.num_cpus, "num_gpus": hardware.num_gpus}
    if hardware.accelerator_type is not None:
        options["accelerator_type"] = hardware.accelerator_type
    return options
