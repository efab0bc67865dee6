"""The Ingress and the HTTPRoute."""

from tests.chart.rendering import EVERYTHING, one, render


def test_gateways_wait_longer_than_the_service_and_do_not_buffer() -> None:
    objects = render(EVERYTHING)
    annotations = one(objects, "Ingress")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert int(annotations[f"{prefix}proxy-read-timeout"]) > 2100
    assert annotations[f"{prefix}proxy-buffering"] == "off"
    assert int(annotations[f"{prefix}proxy-body-size"]) == 64 * 2**20
    # A video must not be generated again when a pod goes away.
    assert annotations[f"{prefix}proxy-next-upstream"] == "off"
    (rule,) = one(objects, "HTTPRoute")["spec"]["rules"]
    assert int(rule["timeouts"]["request"].removesuffix("s")) > 2100
    (header_filter,) = rule["filters"]
    assert set(header_filter["requestHeaderModifier"]["remove"]) == {
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
    }
    assert one(objects, "Ingress")["spec"]["tls"] == [{"secretName": "tls", "hosts": ["video.example"]}]


def test_an_alb_waits_as_long_as_a_request_may_take() -> None:
    ingress = {"enabled": True, "controller": "alb", "hosts": [{"host": "a.example"}]}
    annotations = one(render({"ingress": ingress}), "Ingress")["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/load-balancer-attributes"] == "idle_timeout.timeout_seconds=2160"
    assert annotations["alb.ingress.kubernetes.io/healthcheck-path"] == "/healthz"
    assert not any(name.startswith("nginx") for name in annotations)
