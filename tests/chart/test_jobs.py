"""Where jobs are kept: the store, its password, the bucket, and who may reach them."""

from typing import Any

import pytest
import yaml

from helm.generator.paths import CHART
from serve.config import AppConfig
from serve.job_settings import JobSettings
from tests.chart.pod_specs import cpu_pods, secret_at, workers
from tests.chart.rendering import EVERYTHING, Json, Refused, one, pod_templates, render

OWN: Json = {"faultTolerance": {"redis": "own", "passwordSecret": "redis"}}
WORKERS = ("cpu", "l40s", "a100-80g")


def jobs_of(objects: list[Json]) -> JobSettings:
    """Return the settings of jobs that replicas get."""
    config = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return AppConfig.model_validate(config["applications"][0]["args"]).jobs


def test_the_charts_own_redis_keeps_jobs_apart_from_rays_data() -> None:
    objects = render({**OWN, "jobs": {"store": "own", "address": "", "files": "s3://bucket/x"}})
    jobs = jobs_of(objects)
    service = one(objects, "Service", "ryla-redis")
    assert jobs.store == f"redis://{service['metadata']['name']}:6379/1"
    assert jobs.files == "s3://bucket/x"
    assert {secret_at(spec, str(jobs.store_password_file)) for spec in cpu_pods(objects)} == {"redis"}


def test_an_external_redis_has_its_own_password() -> None:
    external = {"store": "external", "address": "rediss://redis.example.org:6380/3", "passwordSecret": "theirs"}
    objects = render({"jobs": external})
    jobs = jobs_of(objects)
    assert jobs.store == "rediss://redis.example.org:6380/3"
    assert {secret_at(spec, str(jobs.store_password_file)) for spec in cpu_pods(objects)} == {"theirs"}
    assert jobs_of(render()).store_password_file is None


def test_webhooks_are_signed_with_a_secret_and_other_settings_of_jobs_stay() -> None:
    config = {"jobs": {"max_attempts": 5, "webhooks": {"hosts": ["hooks.example"], "max_hours": 2}}}
    objects = render({"config": config, "jobs": {"webhookSecret": "webhooks"}})
    jobs = jobs_of(objects)
    assert jobs.max_attempts == 5
    assert (jobs.webhooks.hosts, jobs.webhooks.max_hours) == (("hooks.example",), 2)
    assert {secret_at(spec, str(jobs.webhooks.secret_file)) for spec in cpu_pods(objects)} == {"webhooks"}


def test_credentials_of_the_bucket_reach_every_ray_container() -> None:
    variable = {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "bucket", "key": "secret"}}}
    objects = render({"jobs": {"env": [variable]}, "serviceAccountName": "ryla"})
    for spec in workers(objects):
        assert variable in spec["containers"][0]["env"]
        assert spec["serviceAccountName"] == "ryla"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jobs": {"store": "embedded", "files": ""}}, "jobs.store is `embedded`"),
        ({"jobs": {"store": "own"}}, "faultTolerance.redis to `own`"),
        ({**OWN, "mode": "pod", "jobs": {"store": "own"}}, "faultTolerance"),
        ({"jobs": {"address": ""}}, "jobs.address is required"),
        ({"jobs": {"files": ""}}, "jobs.files is required"),
        ({"jobs": {"address": "redis://:hunter2@redis:6379/1"}}, "/jobs/address"),
        ({"jobs": {"database": 0}}, "/jobs/database"),
    ],
)
def test_a_store_that_pods_would_not_share_is_refused(values: Json, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        render(values)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"deployments": {"Ingress": {"autoscaling_config": {"max_replicas": 2}}}},
        {"deployments": {"Ingress": {"autoscaling_config": None, "num_replicas": 2}}},
        {"deployments": {"Runner": {"num_replicas": 2}}},
        {"workerGroups": {"cpu": {"maxReplicas": 2}}},
        {"workerGroups": {"l40s": {"enabled": True}}},
        {"extraWorkerGroups": [{"name": "more"}]},
        {
            "workerGroups": {"cpu": {"enabled": False}},
            "extraWorkerGroups": [{"name": "other", "minReplicas": 1, "maxReplicas": 2}],
        },
    ],
)
def test_an_embedded_store_is_for_one_pod_with_one_replica_of_each(change: dict[str, Any]) -> None:
    demo = CHART / "values-demo.yaml"
    assert jobs_of(render(None, demo)).embedded
    with pytest.raises(Refused, match="allow only one replica of each and one worker pod"):
        render(change, demo)


def test_one_pod_needs_no_redis() -> None:
    objects = render(None, CHART / "ci" / "pod-values.yaml")
    assert [name for name, _ in pod_templates(objects)] != []


def test_limited_egress_still_reaches_the_store_the_bucket_and_receivers() -> None:
    def rules(values: Json) -> list[Json]:
        objects = render({"networkPolicy": {"egress": {"enabled": True}}, **values})
        egress: list[Json] = one(objects, "NetworkPolicy", "ryla-ray")["spec"]["egress"]
        return [rule for rule in egress if any("ipBlock" in peer for peer in rule.get("to", []))]

    peers = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    (rule,) = rules({"jobs": {"address": "rediss://redis.example.org:6390/1", "peers": peers}})
    assert rule == {"to": peers, "ports": [{"port": 6390, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]}
    (rule,) = rules({"jobs": {"address": "redis://redis", "files": "file:///shared"}})
    assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
    own = {**OWN, "jobs": {"store": "own", "files": "file:///shared", "webhookSecret": "w"}}
    assert rules(own) == []
    (rule,) = rules({**own, "config": EVERYTHING["config"]})
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]
