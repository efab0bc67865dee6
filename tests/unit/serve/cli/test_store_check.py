"""`ryla check` refuses what the chart refuses: replicas that would each keep jobs of their own."""

import sys
from typing import Any

import pytest
from fsspec.registry import known_implementations

from serve.cli.store_check import file_system_faults, store_faults
from serve.job_settings import JobSettings
from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.store.job_store import StoreUnavailable

SHARED = JobSettings(store="redis://redis:6379/1", files="s3://bucket/ryla")
ONE_POD = [{"groupName": "cpu", "maxReplicas": 1}]


def found(*deployments: dict[str, Any], groups: list[dict[str, Any]] | None = None, jobs: JobSettings | None = None) -> str:
    """Return the faults of an application, in a cluster with these groups if any are given."""
    service = None if groups is None else {"spec": {"rayClusterConfig": {"workerGroupSpecs": groups}}}
    return "; ".join(store_faults(jobs or JobSettings(), {"deployments": list(deployments)}, service))


@pytest.mark.parametrize(
    ("deployments", "groups"),
    [
        ([{"name": "Ingress", "autoscaling_config": {"max_replicas": 2}}], ONE_POD),
        ([{"name": "Runner", "num_replicas": 2}], ONE_POD),
        ([{"name": "Runner", "num_replicas": "auto"}], ONE_POD),
        ([], [{"groupName": "cpu", "maxReplicas": 2}]),
        ([], [{"groupName": "cpu"}]),  # KubeRay's own default has no limit
        ([], [*ONE_POD, {"groupName": "l40s", "maxReplicas": 1}]),
    ],
)
def test_an_embedded_store_is_for_one_pod_with_one_replica_of_each(
    deployments: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> None:
    fault = found(*deployments, groups=groups)
    assert "allow only one replica of each and one worker pod" in fault
    assert "set args.jobs.store to a Redis and args.jobs.files" in fault
    assert found(*deployments, groups=groups, jobs=SHARED) == ""


def test_one_pod_may_have_an_embedded_store() -> None:
    wan = {"name": "Wan26", "autoscaling_config": {"max_replicas": 4}}
    assert found(wan, {"name": "Ingress", "num_replicas": 1}, groups=ONE_POD) == ""


def test_without_a_cluster_only_what_is_sure_to_be_spread_is_refused() -> None:
    several = {"name": "Ingress", "autoscaling_config": {"max_replicas": 8}}
    assert found(several) == ""  # they may be on one machine, whose disk they share
    spread = [{**several, "max_replicas_per_node": 1}, {"name": "Runner", "num_replicas": 2, "max_replicas_per_node": 1}]
    assert "max_replicas_per_node spreads Ingress and Runner over several" in found(*spread)
    assert found({**several, "max_replicas_per_node": 8}) == ""
    assert found(*spread, jobs=SHARED) == ""


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/ryla", "s3"), ("gs://bucket/ryla", "gcs"), ("gcs://bucket", "gcs")])
def test_a_bucket_whose_package_is_missing_is_found_with_the_extra_that_brings_it(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = url.partition(":")[0]
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    monkeypatch.setitem(known_implementations, protocol, {"class": "no_such_package.Files", "err": "Install it"})
    (fault,) = file_system_faults(JobSettings(files=url))
    assert fault == f"args.jobs.files: {url} cannot be opened on this machine: install `ryla-serve[{extra}]`"
    with pytest.raises(StoreUnavailable, match=rf"install `ryla-serve\[{extra}\]`"):
        FsspecFiles(url)


def test_what_fsspec_knows_needs_no_package() -> None:
    assert list(file_system_faults(JobSettings())) == []
    assert list(file_system_faults(JobSettings(files="file:///shared"))) == []
    (unknown,) = file_system_faults(JobSettings(files="nosuch://x"))
    assert "nosuch" in unknown
