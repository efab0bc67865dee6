"""Checks a Serve config file, or the RayService that carries one, before a cluster sees it: `ryla check`."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from serve.config import AppConfig, Hardware
from serve.readiness import MODELS

IMPORT_PATH = "serve.app:build"
PROXY = "serve.proxy:middlewares"


def documents(text: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Of a YAML text: the name, Serve config and RayService (None in a plain config file) of each Serve config in it."""
    for document in yaml.safe_load_all(text):
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "RayService":
            config = yaml.safe_load(document["spec"]["serveConfigV2"])
            yield f"RayService {document['metadata']['name']}", config, document
        elif "applications" in document:
            yield "Serve config", document, None


def faults(config: dict[str, Any], service: dict[str, Any] | None = None, *, files: bool = False) -> list[str]:
    """What is wrong, a sentence each; none: all is well. ``files``: also whether the model files are on this machine."""
    try:
        schema = ServeDeploySchema.model_validate(config)
    except ValidationError as e:
        return _sentences("", e)
    ours = [application for application in schema.applications if application.import_path == IMPORT_PATH]
    if not ours:
        return [f"no application has the import_path {IMPORT_PATH}"]
    found: list[str] = []
    for application in ours:
        try:
            settings = AppConfig.model_validate(application.args)
        except ValidationError as e:
            found += _sentences("args.", e)
            continue
        found += _serve_faults(settings, config)
        if files:
            found += [f"args.{name}: there is no {path} here" for name, path in model_paths(settings) if not path.exists()]
        if service is not None:
            found += [*_service_faults(settings, service), *_room_faults(settings, config, service)]
    return found


def model_paths(settings: AppConfig) -> Iterator[tuple[str, Path]]:
    """Setting and path of each model file or folder that ``settings`` name; not of what may be fetched from a hub."""
    if settings.models == "demo":
        return
    hub = {"wan26": settings.wan26.engine.allow_hub, "wan22_gguf": settings.wan22_gguf.engine.allow_hub}
    for name, models in settings.models:
        for field, path in models:
            fetched = isinstance(path, str) and hub.get(name, False) and not Path(path).is_absolute()
            if path is not None and not fetched:
                yield f"models.{name}.{field}", Path(path)


def _serve_faults(settings: AppConfig, config: dict[str, Any]) -> Iterator[str]:
    timeout = (config.get("http_options") or {}).get("request_timeout_s")
    if timeout is not None and timeout <= settings.limits.request_timeout_s:
        yield (
            f"http_options.request_timeout_s is {timeout}, not over args.limits.request_timeout_s, "
            f"{settings.limits.request_timeout_s}: callers would get the proxy's plain 408 instead of our 504"
        )
    known = {"Ingress", *MODELS.values()}
    for application in config["applications"]:
        for deployment in application.get("deployments", []):
            name, scale = deployment["name"], deployment.get("autoscaling_config") or {}
            if name not in known:
                yield f"deployments: there is no deployment {name}, only {', '.join(sorted(known))}"
            if scale.get("initial_replicas") is not None:
                yield f"deployments.{name}: initial_replicas resets a running model at every change; leave it out"


def _service_faults(settings: AppConfig, service: dict[str, Any]) -> Iterator[str]:
    cluster = service["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    offers = {name: _resources(group) for name, group in groups.items()}
    for name, hardware in _placed(settings):
        if not any(_fits(hardware, offer) for offer in offers.values()):
            wants = ", ".join(f"{key} {value:g}" for key, value in _wants(hardware).items())
            yield f"args.{name} wants {wants}, which no worker group declares in its `resources`: {offers}"
    pods = {"the head": cluster["headGroupSpec"], **{f"worker group {name}": group for name, group in groups.items()}}
    for name, group in pods.items():
        given = {e["name"]: e.get("value") for e in group["template"]["spec"]["containers"][0].get("env", [])}
        if given.get("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH") != PROXY:
            yield f"{name}: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH must be {PROXY}"
        if given.get("RYLA_MAX_BODY_BYTES") != str(settings.limits.max_body_bytes):
            yield f"{name}: RYLA_MAX_BODY_BYTES must be args.limits.max_body_bytes, {settings.limits.max_body_bytes}"


def _room_faults(settings: AppConfig, config: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Deployments that share one group of GPUs and may together want more than it has: one would starve the other."""
    scales = {
        deployment["name"]: (deployment.get("autoscaling_config") or {}).get("max_replicas", 1)
        for application in config["applications"]
        for deployment in application.get("deployments", [])
    }
    wanted: dict[str, dict[str, float]] = {}
    groups = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    for model, name in (("wan26", "Wan26"), ("wan22_gguf", "Wan22GGUF"), ("face_swapper", "FaceSwapper")):
        hardware = getattr(settings, model).hardware
        fitting = [group for group, spec in groups.items() if _fits(hardware, _resources(spec))]
        if hardware.num_gpus and len(fitting) == 1:
            wanted.setdefault(fitting[0], {})[name] = scales.get(name, 1) * hardware.num_gpus
    for group, shares in wanted.items():
        room = groups[group].get("maxReplicas", 0) * _resources(groups[group])["GPU"]
        if sum(shares.values()) > room:
            who = " and ".join(f"{name} {share:g}" for name, share in shares.items())
            yield f"worker group {group} has at most {room:g} GPUs, and {who} may be wanted: raise its maxReplicas or lower max_replicas"


def _placed(settings: AppConfig) -> Iterator[tuple[str, Hardware]]:
    yield "ingress", Hardware(num_cpus=settings.ingress.num_cpus)
    for name in ("wan26", "wan22_gguf", "face_swapper"):
        yield f"{name}.hardware", getattr(settings, name).hardware


def _wants(hardware: Hardware) -> dict[str, float]:
    wants = {"CPU": hardware.num_cpus, "GPU": hardware.num_gpus}
    if hardware.accelerator_type is not None:
        wants[f"accelerator_type:{hardware.accelerator_type}"] = 0.001  # what Ray asks for
    return {name: value for name, value in wants.items() if value}


def _resources(group: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in (group.get("resources") or {}).items()}


def _fits(hardware: Hardware, offer: dict[str, float]) -> bool:
    return all(offer.get(name, -math.inf) >= value for name, value in _wants(hardware).items())


def _sentences(prefix: str, error: ValidationError) -> list[str]:
    return [f"{prefix}{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
