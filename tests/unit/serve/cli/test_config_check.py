"""`ryla check` finds the faults of a configuration before it is deployed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from serve.cli.config_check import documents, faults
from serve.cli.main import app
from serve.cli.presets import PRESETS
from serve.http.proxy import IMPORT_PATH
from tests.unit.serve.provenance.authority import make_authority

Json = dict[str, Any]


@pytest.fixture
def production() -> Json:
    config: Json = json.loads(
        json.dumps(yaml.safe_load((PRESETS / "production.yaml").read_text()))
    )  # nothing shared by an anchor
    config["applications"][0]["args"]["jobs"] = {"store": "redis://redis:6379/1", "files": "file:///shared/ryla"}
    return config


def service(config: Json, groups: list[Json], body: int = 64 * 2**20) -> Json:
    env = [
        {"name": "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "value": IMPORT_PATH},
        {"name": "RYLA_MAX_BODY_BYTES", "value": str(body)},
    ]
    template = {"spec": {"containers": [{"env": env}]}}
    cluster = {
        "headGroupSpec": {"template": template},
        "workerGroupSpecs": [{**group, "template": copy.deepcopy(template)} for group in groups],
    }
    spec = {"serveConfigV2": yaml.safe_dump(config), "rayClusterConfig": cluster}
    return {"kind": "RayService", "metadata": {"name": "ryla"}, "spec": spec}


GROUPS: list[Json] = [
    {"groupName": "cpu", "resources": {"CPU": "4"}},
    {"groupName": "l40s", "maxReplicas": 8, "resources": {"CPU": "8", "GPU": "1", "accelerator_type:L40S": "1"}},
    {"groupName": "a100", "maxReplicas": 4, "resources": {"CPU": "8", "GPU": "1", "accelerator_type:A100-80G": "1"}},
]


def test_a_cluster_that_offers_what_replicas_need_is_right(production: Json) -> None:
    assert faults(production, service(production, GROUPS)) == []


def test_a_replica_that_no_group_can_take_is_found(production: Json) -> None:
    found = faults(production, service(production, GROUPS[:2]))
    assert len(found) == 1
    assert found[0].startswith(
        "args.wan22_gguf.hardware needs CPU 4, GPU 1, accelerator_type:A100-80G 0.001, which no worker group"
    )
    undeclared = [GROUPS[0], {"groupName": "l40s", "resources": {"CPU": "8", "GPU": "1"}}, GROUPS[2]]
    assert [text.split(" needs")[0] for text in faults(production, service(production, undeclared))] == [
        "args.wan26.hardware",
        "args.face_swapper.hardware",
    ]


def test_two_models_that_share_too_few_gpus_are_found(production: Json) -> None:
    few = [GROUPS[0], {**GROUPS[1], "maxReplicas": 4}, GROUPS[2]]
    assert faults(production, service(production, few)) == [
        "worker group l40s has at most 4 GPUs, but its deployments may need Wan26 4 and FaceSwapper 4: "
        "raise its maxReplicas or lower their max_replicas"
    ]


def test_a_proxy_without_our_middleware_or_with_another_limit_is_found(production: Json) -> None:
    bare = service(production, GROUPS)
    bare["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"].pop(0)
    assert faults(production, bare) == [
        "the head: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH must be serve.http.proxy:middlewares"
    ]
    assert len(faults(production, service(production, GROUPS, body=5))) == 4


def test_a_proxy_with_other_limits_than_the_settings_is_found(production: Json) -> None:
    production["applications"][0]["args"]["proxy"] = {"max_connections": 50}
    found = faults(production, service(production, GROUPS))
    assert len(found) == 4
    assert found[0] == 'the head: RYLA_PROXY must be args.proxy as JSON, {"max_connections":50}'
    right = service(production, GROUPS)
    cluster = right["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        env = group["template"]["spec"]["containers"][0]["env"]
        env[:] = [
            *(entry for entry in env if entry["name"] != "RYLA_PROXY"),
            {"name": "RYLA_PROXY", "value": '{"max_connections": 50}'},
        ]
    assert faults(production, right) == []


def test_harmful_settings_of_serve_are_found(production: Json) -> None:
    production["http_options"]["request_timeout_s"] = 1800
    application = production["applications"][0]
    deployments = {deployment["name"]: deployment for deployment in application["deployments"]}
    deployments["Wan26"]["autoscaling_config"]["initial_replicas"] = 0
    application["deployments"].append({"name": "Wan27"})
    first, second, third = faults(production)
    assert first.startswith("http_options.request_timeout_s is 1800")
    assert second == "deployments.Wan26: initial_replicas resets a running model at every change of the config; leave it out"
    assert third.startswith("deployments: unknown deployment Wan27; available: FaceSwapper, Ingress, Runner, Wan22GGUF, Wan26")


def test_every_wrong_field_is_named(production: Json) -> None:
    production["applications"][0]["args"]["wan26"]["engine"]["compil"] = True
    production["applications"][0]["args"]["limits"] = {"max_frames": 0}
    found = faults(production)
    assert [text.split(":")[0] for text in found] == ["args.wan26.engine.compil", "args.limits.max_frames"]


def test_missing_model_files_are_named(production: Json, tmp_path: Path) -> None:
    text = yaml.safe_dump(production).replace("/models/", f"{tmp_path}/")
    config = yaml.safe_load(text)
    (tmp_path / "GFPGANv1.4.onnx").touch()
    found = faults(config, files=True)
    assert f"args.models.wan26.text: {tmp_path}/Wan2.1-T2V-1.3B-Diffusers does not exist on this machine" in found
    assert len(found) == 7
    assert not any("GFPGAN" in line for line in found)
    args = config["applications"][0]["args"]
    args["models"]["wan26"] = {"text": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}
    args["wan26"]["engine"] = {"allow_hub": True}
    assert not any("wan26" in line for line in faults(config, files=True)), "what is fetched need not be there"


def test_the_command_reads_manifests_and_fails_loudly(production: Json, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump_all([{"kind": "ConfigMap"}, service(production, GROUPS)]))
    bad.write_text(yaml.safe_dump(service(production, GROUPS[:1])))
    empty = tmp_path / "empty.yaml"
    empty.write_text("kind: ConfigMap\n")
    run = CliRunner().invoke
    assert run(app, ["check", str(good)]).output.strip() == "No faults in 1 configuration(s)."
    failed = run(app, ["check", "-"], input=bad.read_text())
    assert failed.exit_code == 1
    assert failed.output.count("RayService ryla: args.") == 3
    assert run(app, ["check", str(empty)]).exit_code == 1
    assert [name for name, _, _ in documents(good.read_text())] == ["RayService ryla"]


def test_a_config_that_serve_itself_would_refuse_is_refused(production: Json) -> None:
    production["http_options"]["port"] = "eighty"
    (fault,) = faults(production)
    assert fault.startswith("http_options.port: ")
    del production["applications"][0]["import_path"]
    assert any(line.startswith("applications.0.import_path: ") for line in faults(production))


def test_a_config_without_our_application_is_refused(production: Json) -> None:
    production["applications"][0]["import_path"] = "other:app"
    assert faults(production) == ["no application has the import_path serve.app:build"]


def test_the_demo_needs_no_model_files() -> None:
    demo: Json = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    assert faults(demo, files=True) == []


def test_configs_are_found_among_other_documents(production: Json) -> None:
    text = yaml.safe_dump_all([None, ["a list"], {"kind": "ConfigMap"}, production])
    ((name, config, around),) = documents(text)
    assert (name, config, around) == ("Serve config", production, None)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("spec", "rayClusterConfig"), ["spec.rayClusterConfig: Field required"]),
        (("spec", "rayClusterConfig", "workerGroupSpecs"), ["spec.rayClusterConfig.workerGroupSpecs: Field required"]),
        (("spec", "rayClusterConfig", "headGroupSpec"), ["spec.rayClusterConfig.headGroupSpec: Field required"]),
        (
            ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0),
            ["spec.rayClusterConfig.headGroupSpec.template.spec.containers: List should have at least 1 item"],
        ),
        (
            ("spec", "rayClusterConfig", "workerGroupSpecs", 1, "groupName"),
            ["spec.rayClusterConfig.workerGroupSpecs.1.groupName: Field required"],
        ),
    ],
)
def test_a_part_that_a_rayservice_lacks_is_named(production: Json, path: tuple[Any, ...], found: list[str]) -> None:
    lacking: Any = copy.deepcopy(service(production, GROUPS))
    part = lacking
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    result = CliRunner().invoke(app, ["check", "-"], input=yaml.safe_dump(lacking))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    faults_found = faults(production, lacking)
    assert len(faults_found) == len(found)
    assert all(fault.startswith(start) for fault, start in zip(faults_found, found, strict=True))


def test_a_rayservice_whose_resources_are_no_numbers_is_refused(production: Json) -> None:
    wrong = service(production, [{**GROUPS[0], "resources": {"CPU": "four"}}])
    (fault,) = faults(production, wrong)
    assert fault.startswith("spec.rayClusterConfig.workerGroupSpecs.0.resources.CPU: ")


def test_a_certificate_that_cannot_sign_is_found_where_its_files_are(production: Json, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    args = production["applications"][0]["args"]
    files = authority.files(key, authority.issue(key), written=other)
    args["provenance"] = {"c2pa": {name: str(path) for name, path in files.items()}}
    assert faults(production) == [], "the files are on other machines"
    (fault,) = faults(production, keys=True)
    assert fault.startswith("args.provenance.c2pa: the key in ")
    authority.files(key, authority.issue(key))
    assert faults(production, keys=True) == []
    args["provenance"]["verify"] = {"trust_anchors": str(tmp_path / "nowhere.pem")}
    (fault,) = faults(production, keys=True)
    assert fault == f"args.provenance.verify.trust_anchors: {tmp_path / 'nowhere.pem'} cannot be read on this machine"
    (tmp_path / "root.der").write_bytes(b"\x30\x82\xff")
    (tmp_path / "short").write_bytes(b"short")
    args["provenance"]["verify"] = {"trust_anchors": str(tmp_path / "root.der")}
    args["provenance"]["watermark"] = {"keys": [str(tmp_path / "short")]}
    secret, anchors = faults(production, keys=True)
    assert secret.startswith("args.provenance.watermark.keys: ")
    assert "must hold 16 to 4096 bytes" in secret
    assert anchors.startswith("args.provenance.verify.trust_anchors: ")
    assert "is not a file of certificates in PEM" in anchors
