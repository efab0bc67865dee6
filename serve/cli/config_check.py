"""Checks a Serve config file, or a RayService that contains one, before it is deployed."""

import difflib
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.settings import Settings, VideoSettings
from serve.cli.presets import IMPORT_PATH
from serve.cli.store_check import file_system_faults, store_faults
from serve.config import AppConfig, Hardware, ProxySettings
from serve.http.callers.auth import ApiKeys
from serve.http.proxy import IMPORT_PATH as PROXY
from serve.models import INGRESS, MODELS, RUNNER, Model
from serve.provenance.certificates import CertificateRefused, load_identity, load_trust_anchors
from serve.provenance.watermark.secret import SecretRefused, load_secret


class _Variable(BaseModel):
    name: str


class _Container(BaseModel):
    env: list[_Variable] = []


class _PodSpec(BaseModel):
    containers: list[_Container] = Field(min_length=1)


class _Template(BaseModel):
    spec: _PodSpec


class _Head(BaseModel):
    template: _Template


class _Group(_Head):
    groupName: str  # noqa: N815
    resources: dict[str, float] | None = None
    maxReplicas: int = 0  # noqa: N815


class _Cluster(BaseModel):
    headGroupSpec: _Head  # noqa: N815
    workerGroupSpecs: list[_Group]  # noqa: N815


class _Spec(BaseModel):
    rayClusterConfig: _Cluster  # noqa: N815


class _RayService(BaseModel):
    """The part of a RayService that is checked here."""

    spec: _Spec


def documents(text: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Yield a name, the Serve config and its RayService for each Serve config in ``text``.

    ``text`` is YAML. The RayService is None where the config stands alone. Raises ValueError for
    text that is not YAML and for a RayService without a Serve config.
    """
    try:
        found = list(yaml.safe_load_all(text))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = "" if mark is None else f", at line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"not valid YAML ({getattr(e, 'problem', None) or e}{where})") from None
    for document in found:
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "RayService":
            try:
                name, config = document["metadata"]["name"], yaml.safe_load(document["spec"]["serveConfigV2"])
            except (KeyError, TypeError, AttributeError, yaml.YAMLError):
                raise ValueError("a RayService without a name or a valid spec.serveConfigV2") from None
            yield f"RayService {name}", config, document
        elif "applications" in document:
            yield "Serve config", document, None


def faults(
    config: dict[str, Any], service: dict[str, Any] | None = None, *, files: bool = False, keys: bool = False
) -> list[str]:
    """Return a sentence for each fault of a Serve config.

    With ``service`` the RayService around it is checked too, with ``files`` whether this machine
    has the model files and what opens the files of jobs, and with ``keys`` whether it can read the
    callers' keys and sign with the certificate of provenance.
    """
    try:
        schema = ServeDeploySchema.model_validate(config)
        if service is not None:
            _RayService.model_validate(service)
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
        found += store_faults(settings.jobs, application.model_dump(include={"deployments"}, exclude_unset=True), service)
        if files:
            found += file_system_faults(settings.jobs)
            found += [
                f"args.{name}: {path} does not exist on this machine"
                for name, path in model_paths(settings)
                if not os.path.exists(path)
            ]
        if keys:
            found += [*_key_faults(settings), *_certificate_faults(settings)]
        if service is not None:
            found += [*_service_faults(settings, service), *_room_faults(settings, config, service)]
    return found


def _key_faults(settings: AppConfig) -> Iterator[str]:
    if settings.ingress.api_keys is not None:
        try:
            ApiKeys(settings.ingress.api_keys)
        except OSError as e:
            yield f"args.ingress.api_keys: {settings.ingress.api_keys} cannot be read: {e.strerror}"
        except ValueError as e:  # a UnicodeDecodeError is one too
            yield f"args.ingress.api_keys: {e}"


def _certificate_faults(settings: AppConfig) -> Iterator[str]:
    provenance = settings.provenance
    if provenance.c2pa.enabled:
        try:
            load_identity(provenance.c2pa)
        except CertificateRefused as e:
            yield f"args.provenance.c2pa: {e}"
    mark, anchors = provenance.watermark, provenance.verify.trust_anchors
    files: list[tuple[str, Path | None, Callable[[Path], object]]] = [
        ("watermark.key", mark.key, load_secret),
        *(("watermark.keys", path, partial(load_secret, setting="provenance.watermark.keys")) for path in mark.keys),
        ("verify.trust_anchors", anchors, load_trust_anchors),
    ]
    for name, path, load in files:
        if path is None:
            continue
        if not os.access(path.expanduser(), os.R_OK):
            yield f"args.provenance.{name}: {path} cannot be read on this machine"
            continue
        try:
            load(path)
        except (CertificateRefused, SecretRefused) as e:
            yield f"args.{e}"


def model_paths(settings: AppConfig) -> Iterator[tuple[str, Path]]:
    """Yield the setting and the path of each model file or folder that ``settings`` name.

    A model that may be fetched from a hub, and a folder in a bucket, have no path here.
    """
    if settings.models == "demo":
        return
    for model in MODELS:
        from_hub = _allows_hub(settings, model)
        files: Settings = getattr(settings.models, model.files)
        kinds = {name for name, field in type(files).model_fields.items() if get_origin(field.annotation) is Literal}
        for field, path in files:
            fetched = isinstance(path, str) and ("://" in path or (from_hub and not Path(path).is_absolute()))
            if isinstance(path, str | Path) and not fetched and field not in kinds:
                yield f"models.{model.files}.{field}", Path(path)


def _allows_hub(settings: AppConfig, model: Model) -> bool:
    engine = settings.deployment_of(model).engine
    return isinstance(engine, VideoSettings) and engine.allow_hub


def _serve_faults(settings: AppConfig, config: dict[str, Any]) -> Iterator[str]:
    timeout = (config.get("http_options") or {}).get("request_timeout_s")
    if timeout is not None and timeout <= settings.limits.request_timeout_s:
        yield (
            f"http_options.request_timeout_s is {timeout}, which must be larger than args.limits.request_timeout_s, "
            f"{settings.limits.request_timeout_s}: otherwise callers get the proxy's plain-text 408 instead of our 504"
        )
    known = {INGRESS, RUNNER, *(model.deployment for model in MODELS)}
    for application in config["applications"]:
        for deployment in application.get("deployments", []):
            name, scale = deployment["name"], deployment.get("autoscaling_config") or {}
            if name not in known:
                yield f"deployments: unknown deployment {name}; available: {', '.join(sorted(known))}"
            if scale.get("initial_replicas") is not None:
                yield f"deployments.{name}: initial_replicas resets a running model at every change of the config; leave it out"


def _service_faults(settings: AppConfig, service: dict[str, Any]) -> Iterator[str]:
    cluster = service["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    offers = {name: _resources(group) for name, group in groups.items()}
    for name, hardware in _hardware(settings):
        if not any(_fits(hardware, offer) for offer in offers.values()):
            needs = ", ".join(f"{key} {value:g}" for key, value in _needs(hardware).items())
            yield f"args.{name} needs {needs}, which no worker group declares in its `resources`: {offers}"
    pods = {"the head": cluster["headGroupSpec"], **{f"worker group {name}": group for name, group in groups.items()}}
    for name, group in pods.items():
        given = {e["name"]: e.get("value") for e in group["template"]["spec"]["containers"][0].get("env", [])}
        if given.get("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH") != PROXY:
            yield f"{name}: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH must be {PROXY}"
        if given.get("RYLA_MAX_BODY_BYTES") != str(settings.limits.max_body_bytes):
            yield f"{name}: RYLA_MAX_BODY_BYTES must be args.limits.max_body_bytes, {settings.limits.max_body_bytes}"
        if ProxySettings.model_validate_json(given.get("RYLA_PROXY") or "{}") != settings.proxy:
            yield f"{name}: RYLA_PROXY must be args.proxy as JSON, {settings.proxy.model_dump_json(exclude_defaults=True)}"


def _room_faults(settings: AppConfig, config: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each worker group that may need more GPUs than it can have.

    One deployment would then starve another.
    """
    scales = {
        deployment["name"]: (deployment.get("autoscaling_config") or {}).get("max_replicas", 1)
        for application in config["applications"]
        for deployment in application.get("deployments", [])
    }
    wanted: dict[str, dict[str, float]] = {}
    groups = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    for model in MODELS:
        hardware = settings.deployment_of(model).hardware
        fitting = [group for group, spec in groups.items() if _fits(hardware, _resources(spec))]
        if hardware.num_gpus and len(fitting) == 1:
            wanted.setdefault(fitting[0], {})[model.deployment] = scales.get(model.deployment, 1) * hardware.num_gpus
    for group, shares in wanted.items():
        room = groups[group].get("maxReplicas", 0) * _resources(groups[group])["GPU"]
        if sum(shares.values()) > room:
            who = " and ".join(f"{name} {share:g}" for name, share in shares.items())
            yield (
                f"worker group {group} has at most {room:g} GPUs, but its deployments may need {who}: "
                "raise its maxReplicas or lower their max_replicas"
            )


def _hardware(settings: AppConfig) -> Iterator[tuple[str, Hardware]]:
    yield "ingress", Hardware(num_cpus=settings.ingress.num_cpus)
    yield "runner", Hardware(num_cpus=settings.runner.num_cpus)
    for model in MODELS:
        yield f"{model.setting}.hardware", settings.deployment_of(model).hardware


def _needs(hardware: Hardware) -> dict[str, float]:
    """Return the Ray resources that a replica needs."""
    needs = {"CPU": hardware.num_cpus, "GPU": hardware.num_gpus}
    if hardware.accelerator_type is not None:
        # This is the amount that Ray requests.
        needs[f"accelerator_type:{hardware.accelerator_type}"] = 0.001
    return {name: value for name, value in needs.items() if value}


def _resources(group: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in (group.get("resources") or {}).items()}


def _fits(hardware: Hardware, offer: dict[str, float]) -> bool:
    return all(offer.get(name, -math.inf) >= value for name, value in _needs(hardware).items())


def _sentences(prefix: str, error: ValidationError) -> list[str]:
    found = []
    for e in error.errors():
        path, text = e["loc"], e["msg"]
        if e["type"] == "extra_forbidden":
            text = f"unknown setting{_hint(path)}"
        found.append(f"{prefix}{'.'.join(map(str, path))}: {text}")
    return found


def _hint(path: tuple[int | str, ...]) -> str:
    """Return "; did you mean ...?" for a setting of AppConfig that does not exist, or nothing."""
    model: Any = AppConfig
    for name in path[:-1]:
        field = model.model_fields.get(name)
        models = [] if field is None else [t for t in (field.annotation, *get_args(field.annotation)) if _is_settings(t)]
        if not models:
            return ""
        model = models[0]
    nearest = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)
