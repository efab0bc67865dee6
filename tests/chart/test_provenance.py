"""With what results are marked: the secrets, the authority of time, and who may verify."""

from pathlib import Path

import pytest
import yaml

from serve.config import AppConfig
from serve.provenance_settings import ProvenanceSettings
from tests.chart.pod_specs import cpu_pods, secret_at, workers
from tests.chart.rendering import Json, one, render


def provenance_of(objects: list[Json]) -> ProvenanceSettings:
    """Return the settings of provenance that replicas get."""
    config = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return AppConfig.model_validate(config["applications"][0]["args"]).provenance


def variables(spec: Json) -> dict[str, str]:
    """Return the environment of the Ray container."""
    return {each["name"]: each.get("value", "") for each in spec["containers"][0]["env"]}


def test_the_certificate_comes_from_a_secret_and_other_settings_stay() -> None:
    config = {"provenance": {"c2pa": {"seed": True}, "watermark": {"key_id": 3}}}
    objects = render({"config": config, "provenance": {"certificateSecret": "c2pa", "watermarkSecret": "mark"}})
    settings = provenance_of(objects)
    assert (settings.c2pa.certificate, settings.c2pa.private_key) == (
        Path("/etc/ryla/certificate/chain.pem"),
        Path("/etc/ryla/certificate/key.pem"),
    )
    assert (settings.c2pa.seed, settings.watermark.key_id) == (True, 3)
    assert {secret_at(spec, str(settings.c2pa.private_key)) for spec in cpu_pods(objects)} == {"c2pa"}
    assert {secret_at(spec, str(settings.watermark.key)) for spec in cpu_pods(objects)} == {"mark"}


EVERY_SECRET = {
    "provenance": {"certificateSecret": "c2pa", "watermarkSecret": "mark"},
    "jobs": {"webhookSecret": "hooks", "passwordSecret": "redis"},
}


def secrets_of(spec: Json) -> set[str]:
    """Return the names of the Secrets of a pod, each of which its container mounts."""
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert set(secrets) <= mounted
    return set(secrets.values()) - {"ryla-api-keys"}


@pytest.mark.parametrize(
    ("runner", "ingress", "cpu", "others"),
    [
        ({}, {}, {"c2pa", "mark", "hooks", "redis"}, set()),
        # Where they may run anywhere, the head still has no CPUs for them.
        ({"resources": None}, {"resources": None}, {"c2pa", "mark", "hooks", "redis"}, {"c2pa", "mark", "hooks", "redis"}),
        ({}, {"resources": None}, {"c2pa", "mark", "hooks", "redis"}, {"mark", "hooks", "redis"}),
        ({"num_cpus": 64}, {}, {"mark", "hooks", "redis"}, set()),
        ({"resources": {"ingress": 2}}, {"resources": {"other": 1}}, set(), set()),
    ],
)
def test_secrets_are_only_where_the_ingress_or_the_runner_can_run(
    runner: Json, ingress: Json, cpu: set[str], others: set[str]
) -> None:
    objects = render({**EVERY_SECRET, "config": {"runner": runner, "ingress": ingress}})
    cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
    assert secrets_of(cluster["headGroupSpec"]["template"]["spec"]) == set()
    for group in cluster["workerGroupSpecs"]:
        expected = others if "GPU" in group["resources"] else cpu
        assert secrets_of(group["template"]["spec"]) == expected, group["groupName"]


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"num_cpus": 2}, {"cpu", "l40s", "a100-80g"}),
        ({"num_cpus": 64}, set()),
        ({"num_cpus": 1, "resources": {"accelerator_type:L40S": 0.01}}, {"l40s"}),
    ],
)
def test_options_that_take_the_place_of_the_settings_decide(options: Json, groups: set[str]) -> None:
    objects = render({**EVERY_SECRET, "deployments": {"Runner": {"ray_actor_options": options}}})
    found = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert {group["groupName"] for group in found if "c2pa" in secrets_of(group["template"]["spec"])} == groups


def test_one_pod_for_everything_has_all_secrets() -> None:
    spec = one(render({**EVERY_SECRET, "mode": "pod"}), "Deployment", "ryla")["spec"]["template"]["spec"]
    assert secrets_of(spec) == {"c2pa", "mark", "hooks", "redis"}


def test_without_values_nothing_is_mounted_and_the_defaults_apply() -> None:
    objects = render()
    assert provenance_of(objects) == ProvenanceSettings()
    for spec in workers(objects):
        assert not {"certificate", "watermark"} & {volume["name"] for volume in spec["volumes"]}
        assert "RYLA_OPEN_VERIFY" not in variables(spec)


def test_the_timestamp_authority_can_be_reached_on_its_port() -> None:
    for url, port in (("http://tsa.example", 80), ("https://tsa.example/rfc3161", 443), ("http://tsa.example:318/x:9", 318)):
        peers = [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
        values = {"provenance": {"timestampUrl": url, "timestampPeers": peers}, "networkPolicy": {"egress": {"enabled": True}}}
        objects = render(values)
        assert provenance_of(objects).c2pa.timestamp_url == url
        rules = [
            rule
            for policy in objects
            if policy["kind"] == "NetworkPolicy"
            for rule in policy["spec"].get("egress", [])
            if rule.get("to") == peers
        ]
        assert rules, url
        assert all(rule["ports"] == [{"port": port, "protocol": "TCP"}] for rule in rules), url


def test_the_proxy_knows_that_files_are_verified_without_a_key() -> None:
    objects = render(
        {"config": {"provenance": {"verify": {"open": True}}}, "auth": {"apiKeysSecret": "keys", "smokeKeySecret": "key"}}
    )
    assert provenance_of(objects).verify.open
    for spec in workers(objects):
        assert variables(spec)["RYLA_OPEN_VERIFY"] == "1"
