"""Wrong values are refused with a message that names them."""

import pytest

from helm.generator.manifests import KUBERNETES
from helm.generator.paths import CHART
from tests.chart.rendering import REQUIRED, Json, Refused, helm, render


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"platfrom": "gke"}, "additional properties 'platfrom' not allowed"),
        ({"platform": "aks"}, "/platform': value must be one of 'generic', 'gke', 'eks-karpenter', 'gfd'"),
        ({"image": {"tag": 1.0}}, "/image/tag': got number, want string"),
        ({"image": {"digest": "latest"}}, "/image/digest': 'latest' does not match pattern"),
        ({"workerGroups": {"h100": {}}}, "/workerGroups': additional properties 'h100' not allowed"),
        ({"workerGroups": {"l40s": {"gpus": "one"}}}, "/workerGroups/l40s/gpus': got string, want integer"),
        ({"workerGroups": {"l40s": {"minReplicas": 9}}}, "worker group l40s: minReplicas (9) must not exceed maxReplicas (8)"),
        ({"config": {"wan27": {}}}, "/config': additional properties 'wan27' not allowed"),
        ({"config": {"limits": {"max_frames": 0}}}, "max_frames"),
        ({"config": {"wan26": {"engine": {"attention": "fast"}}}}, "attention"),
        ({"deployments": {"Wan27": {}}}, "/deployments': additional properties 'Wan27' not allowed"),
        ({"deployments": {"Wan26": {"autoscaling_config": {"min": 1}}}}, "additional properties 'min' not allowed"),
        ({"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade"}}, "upgrade.incremental.gatewayClassName is required"),
        (
            {
                "upgrade": {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "istio"}},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
            },
            "disable ingress and httpRoute",
        ),
        ({"auth": {"rayTokenSecret": "My_Token"}}, "/auth/rayTokenSecret': 'My_Token' does not match pattern"),
        ({"faultTolerance": {"passwordSecret": "-redis"}}, "/faultTolerance/passwordSecret': '-redis' does not match pattern"),
        ({"auth": {"createRayToken": True}}, "auth.createRayToken needs a name for the Secret: set auth.rayTokenSecret"),
        ({"fullnameOverride": "1-ryla"}, 'would be called "1-ryla"'),
        ({"fullnameOverride": "Ryla"}, "choose another release name, or set fullnameOverride"),
        ({"faultTolerance": {"redis": "own"}}, "faultTolerance.passwordSecret is required"),
        ({"faultTolerance": {"redis": "external", "passwordSecret": "r"}}, "faultTolerance.address is required"),
        ({"models": {"sha256": {"a": "0"}}}, "need a volume: set models.volume or models.claim.create"),
        ({"models": {"volume": {"emptyDir": {}}, "fetch": {"command": ["true"]}}}, "emptyDir, which is empty in each new pod"),
        ({"models": {"volume": {"ephemeral": {}}, "sha256": {"a": "0"}}}, "ephemeral, which is empty in each new pod"),
        ({"ingress": {"enabled": True}}, "ingress.hosts must name at least one host"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs must name at least one Gateway"),
        ({"service": {"port": 0}}, "/service/port"),
        ({"models": {"claim": {"create": True}}}, "models.claim.create creates an empty volume: set models.fetch.command"),
        ({"auth": {"apiKeysSecret": "keys"}}, "auth.apiKeysSecret requires auth.smokeKeySecret"),
        (
            {"mode": "pod", "auth": {"rayTokenSecret": "t"}},
            "mode: pod does not support metrics.podMonitor, metrics.rules, auth.rayTokenSecret",
        ),
    ],
)
def test_wrong_values_are_refused(values: Json, message: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize("names", [["l40s"], ["h100", "h100"]])
def test_a_duplicate_worker_group_name_is_refused(names: list[str]) -> None:
    """KubeRay would accept the RayService but never create its cluster."""
    with pytest.raises(Refused, match=f"the name {names[-1]} is already used by another worker group"):
        render({"extraWorkerGroups": [{"name": name, "accelerator": "H100", "gpus": 1} for name in names]})


def test_a_release_name_that_is_no_name_of_a_service_is_refused() -> None:
    """KubeRay would refuse the RayService without a word to Helm."""
    command = ["template", "2nd", str(CHART), "--kube-version", KUBERNETES, "-f", str(REQUIRED)]
    with pytest.raises(Refused, match="choose another release name, or set fullnameOverride"):
        helm(*command)
    assert helm(*command, "--set", "fullnameOverride=second")
