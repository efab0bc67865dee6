"""Values of the network: the Service, Ingress, HTTPRoute and network policies."""

from typing import Literal

from pydantic import Field

from helm.generator.base import Labels, Name, Object, Values


class Service(Values):
    """The Kubernetes Service that clients, the Ingress and the HTTPRoute connect to."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service, for example `ClusterIP`."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the Service, through which clients reach port 8000 of the pods."""
    annotations: Labels = {}
    """Annotations added to the Service."""


class IngressHost(Values):
    """A host of the Ingress."""

    host: str
    """Name of the host, for example `ryla.example.com`."""
    path: str = "/"
    """Prefix of the paths that are routed to the service."""


class IngressValues(Values):
    """A Kubernetes Ingress for the service."""

    enabled: bool = False
    """Whether to create an Ingress."""
    class_name: Name = ""
    """Ingress class. If empty, the cluster's default is used."""
    controller: Literal["nginx", "alb", "other"] = "nginx"
    """Ingress controller. For `nginx` and `alb` the chart adds annotations for timeouts, body size,
    health checks and unbuffered responses. For `other`, set them in `annotations`."""
    annotations: Labels = {}
    """Annotations added to the Ingress. They override those of the chart."""
    hosts: list[IngressHost] = []
    """Hosts of the Ingress, each with `host` and `path`."""
    tls: list[Object] = []
    """TLS configuration of the Ingress: `[{secretName, hosts}]`."""


class HttpRoute(Values):
    """A Gateway API HTTPRoute for the service."""

    enabled: bool = False
    """Whether to create an HTTPRoute."""
    parent_refs: list[Object] = []
    """Gateways that the route attaches to."""
    hostnames: list[str] = []
    """Host names that the route matches. If empty, it matches every host."""
    annotations: Labels = {}
    """Annotations added to the HTTPRoute."""


class Egress(Values):
    """Limits on the connections that the Ray pods open."""

    enabled: bool = False
    """Whether the Ray pods may only connect to one another, to the chart's Redis, to DNS and to the
    peers below."""
    api_server: list[Object] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
    """Peers that match the Kubernetes API server, which the autoscaler on the head calls on the
    ports 443 and 6443. Its address differs between clusters, so by default it may be any."""
    allow: list[Object] = []
    """Further rules (`{to, ports}`), for example for an external Redis or the storage that a volume
    driver in the pod reads."""


class NetworkPolicy(Values):
    """Network policies for the pods of the release.

    Ray's own ports are open to those pods only; port 8000, the dashboard and the metrics ports to
    the peers listed here.
    """

    enabled: bool = True
    """Whether to create network policies. The cluster's network plugin must enforce them."""
    callers: list[Object] = [{"namespaceSelector": {}}]
    """Peers that may connect to the gateway, or to Serve's proxies without it: your ingress
    controller. By default, every pod of the Kubernetes cluster."""
    operator: list[Object] = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
    ]
    """Peers that match the KubeRay operator, which needs the dashboard (port 8265) and port
    8000."""
    operator_namespace: Name = ""
    """Namespace of the KubeRay operator. If empty, a pod in any namespace that carries the
    operator's labels is admitted, so set it where others may create pods."""
    egress: Egress = Egress()
    """Limits on what the Ray pods may connect to."""
    monitoring: list[Object] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    """Peers that may scrape the metrics ports: your Prometheus."""
    dashboard: list[Object] = []
    """Additional peers that may open the Ray dashboard. `kubectl port-forward` works without an
    entry."""
