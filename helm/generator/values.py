"""The chart's values, typed, once: values.yaml, values.schema.json and the chart's README are made from here (`make chart`)."""

from typing import Literal

from pydantic import Field

from helm.pods import (
    Autoscaler,
    ExtraWorkerGroup,
    Head,
    Image,
    Labels,
    Object,
    Pod,
    Quantity,
    Resources,
    Values,
    WorkerGroups,
)


class Incremental(Values):
    """Of `NewClusterWithIncrementalUpgrade`; it needs the Gateway API."""

    gateway_class_name: str = ""
    """Gateway class that KubeRay makes its gateway of. Route to that gateway: `ingress` and `httpRoute` must be off."""
    max_surge_percent: int = Field(default=25, ge=0, le=100)
    """Share of a second cluster that may be there at one time."""
    step_size_percent: int = Field(default=25, ge=1, le=100)
    """Share of the traffic that moves at once."""
    interval_seconds: int = Field(default=60, ge=1)
    """Seconds between two moves."""


class Upgrade(Values):
    """What happens when something changes that is no Serve setting (an image, a group's GPUs, ...)."""

    strategy: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    """`NewCluster`: a second cluster, twice the GPUs for a while. `None`: such changes are ignored."""
    cluster_deletion_delay_seconds: int = Field(default=1800, ge=0)
    """Seconds that the old cluster lives on after the switch: its videos end. As long as `limits.request_timeout_s` loses none."""
    incremental: Incremental = Incremental()
    """Moving in steps."""


class OwnRedis(Values):
    """A Redis of the chart's own: one pod."""

    image: str = "docker.io/library/redis:8-alpine"
    """Its image."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "256Mi"})
    """Its resources."""
    storage: Quantity = "1Gi"
    """Size of its volume; empty: memory only, and a lost Redis pod restarts the cluster."""
    storage_class_name: str = ""
    """Storage class of that volume; empty: the cluster's default."""


class FaultTolerance(Values):
    """Whether a lost head keeps serving. Needs a Redis that outlives it."""

    redis: Literal["none", "own", "external"] = "none"
    """`external`: a managed Redis, best in more than one zone."""
    address: str = ""
    """`host:port` of the external one; `rediss://host:port` for TLS."""
    password_secret: str = ""
    """Secret with the password under the key `password`; must be there before the chart."""
    own: OwnRedis = OwnRedis()
    """The chart's own."""


class Claim(Values):
    """A claim of the chart's own; it stays when the release is uninstalled."""

    create: bool = False
    """Whether to make it."""
    size: Quantity = "100Gi"
    """Its size: all files of docs/models.md are about 80 GB."""
    storage_class_name: str = ""
    """Storage class; empty: the cluster's default."""
    access_modes: list[Literal["ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce"]] = ["ReadWriteMany"]
    """`ReadWriteOnce` ties all GPU pods to one node."""


class Fetch(Values):
    """A job that puts the files on the volume before an install or upgrade goes on. GPUs are not asked for while it runs."""

    image: str = ""
    """Image of the fetching program; empty: the service's own (it has `hf download`)."""
    command: list[str] = []
    """What to run; the volume is at `models.path`. Empty: nothing is fetched. It should leave files alone that are there already."""
    timeout_seconds: int = Field(default=5400, ge=10)
    """Seconds that it may take."""
    env: list[Object] = []
    """Its environment."""
    env_from: list[Object] = []
    """Its environment from Secrets: the object store's credentials."""


class ModelFiles(Values):
    """The model files."""

    path: str = "/models"
    """Where they are mounted, read-only: the paths in `config.models` begin so."""
    volume: Object = {}
    """Any Kubernetes volume source: a claim, NFS, a CSI driver that mounts a bucket, ... Empty: `claim`, or none."""
    claim: Claim = Claim()
    """A claim of the chart's own."""
    fetch: Fetch = Fetch()
    """How the files come there."""
    sha256: dict[str, str] = {}
    """SHA-256 in hex of files, by their path under `path`. Files that differ fail the install or upgrade."""


class Auth(Values):
    """Who may call. Secrets must be there before the chart."""

    api_keys_secret: str = ""
    """Secret whose key `keys` has a line each: a name, and the SHA-256 of the key in hex. Read again when it changes. Empty: open."""
    smoke_key_secret: str = ""
    """Secret whose key `key` is one of those keys, for the smoke test."""
    ray_token_secret: str = ""
    """Secret whose key `auth_token` is Ray's token (dashboard, jobs, GCS). Rotate by a Secret of another name: a new cluster."""


class Service(Values):
    """The Service that clients, Ingress and HTTPRoute reach."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Its type."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Its port."""
    annotations: Labels = {}
    """Its annotations."""


class IngressHost(Values):
    """A host."""

    host: str
    """Its name."""
    path: str = "/"
    """Path prefix."""


class Ingress(Values):
    """A Kubernetes Ingress."""

    enabled: bool = False
    """Whether to make one."""
    class_name: str = ""
    """Ingress class."""
    controller: Literal["nginx", "alb", "other"] = "nginx"
    """Whose annotations for timeouts, body size, health and unbuffered answers are set. Others: set yours in `annotations`."""
    annotations: Labels = {}
    """Further annotations; they win."""
    hosts: list[IngressHost] = []
    """Hosts."""
    tls: list[Object] = []
    """TLS, as Kubernetes has it: `[{secretName, hosts}]`."""


class HttpRoute(Values):
    """A Gateway API HTTPRoute."""

    enabled: bool = False
    """Whether to make one."""
    parent_refs: list[Object] = []
    """The Gateways it belongs to."""
    hostnames: list[str] = []
    """Hosts."""
    annotations: Labels = {}
    """Annotations."""


class NetworkPolicy(Values):
    """Who reaches what: Ray's own ports only the cluster's pods, the dashboard and metrics those named here, port 8000 the callers."""

    enabled: bool = True
    """Whether to make them. Your network plugin must enforce them."""
    callers: list[Object] = [{"namespaceSelector": {}}]
    """Peers that may reach port 8000: your ingress controller or gateway. The default is every pod of the cluster."""
    operator: list[Object] = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
    ]
    """KubeRay's operator: it needs the dashboard (8265) and port 8000."""
    monitoring: list[Object] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    """Prometheus: metrics ports."""
    dashboard: list[Object] = []
    """Further peers that may open the Ray dashboard. `kubectl port-forward` needs none."""


class Metrics(Values):
    """For the Prometheus operator and Grafana."""

    pod_monitor: bool = False
    """Whether to make a PodMonitor; needs monitoring.coreos.com/v1."""
    interval: str = "15s"
    """How often it scrapes."""
    rules: bool = False
    """Whether to make alert rules (PrometheusRule). docs/operations.md says what each means and what to do."""
    dashboards: bool = False
    """Whether to make Grafana dashboards, a ConfigMap each, labelled `grafana_dashboard: "1"`."""
    labels: Labels = {}
    """Labels that your Prometheus selects by."""


class Preflight(Values):
    """A job before an install or upgrade: settings checked, model files fetched and verified. If it fails, nothing is changed."""

    enabled: bool = True
    """Whether to run it."""
    timeout_seconds: int = Field(default=900, ge=10)
    """Seconds that it may take, the image's pull and the reading of verified files included; `models.fetch` has its own besides."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "2Gi"})
    """Its resources."""


class Rollout(Values):
    """A job after an install or upgrade: waits for the new version, wakes every model and calls every endpoint."""

    enabled: bool = True
    """Whether to run it. Without it broken model files of a model that sleeps are found by its first caller."""
    smoke: bool = True
    """Whether to call the endpoints. It brings every GPU kind up once."""
    timeout_seconds: int = Field(default=3600, ge=10)
    """Seconds that it may take, half of them until the new version is up; give `helm --timeout` more."""
    resources: Resources = Resources(requests={"cpu": "200m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    """Its resources."""


class ChartValues(Values):
    """All values."""

    name_override: str = ""
    """Instead of the chart's name in the names of objects."""
    fullname_override: str = ""
    """Instead of release and chart in the names of objects."""
    mode: Literal["rayservice", "pod"] = "rayservice"
    """`rayservice`: a cluster that scales, by KubeRay. `pod`: everything in one pod, no operator needed: a demo, or one large GPU."""
    platform: Literal["generic", "gke", "eks-karpenter", "gfd"] = "generic"
    """How nodes are labelled and tainted by accelerator. `gfd`: NVIDIA's GPU feature discovery. `generic`: say so in each group."""
    common_labels: Labels = {}
    """Labels of every object."""
    image: Image = Image()
    """The service's image."""
    image_pull_secrets: list[Object] = []
    """Secrets for it."""
    preset: Literal["production", "demo", "single-gpu"] = "production"
    """The Serve config that `config` and `deployments` change."""
    config: Object = {}
    """Settings of the application (AppConfig), over the preset's. **A change restarts every replica.** `null` removes the preset's."""
    deployments: dict[str, Object] = {}
    """What Serve sets per deployment (Ingress, Wan26, Wan22GGUF, FaceSwapper), over the preset's. A change is applied in place."""
    request_timeout_seconds: int = Field(default=2100, ge=1)
    """Serve's own limit of a request: over `config.limits.request_timeout_s`, under the load balancer's."""
    env: list[Object] = []
    """Further environment of every Ray container."""
    pod_annotations: Labels = {}
    """Annotations of every pod of the service, and of the job that fetches model files."""
    service_account_name: str = ""
    """Service account of the workers and of the job that fetches: an identity that may read the bucket. It must be there before."""
    head: Head = Head()
    """The head."""
    autoscaler: Autoscaler = Autoscaler()
    """The autoscaler."""
    worker_groups: WorkerGroups = WorkerGroups()
    """Workers."""
    extra_worker_groups: list[ExtraWorkerGroup] = []
    """Further groups, added at the end: in place."""
    upgrade: Upgrade = Upgrade()
    """Upgrades."""
    fault_tolerance: FaultTolerance = FaultTolerance()
    """Of the head."""
    models: ModelFiles = ModelFiles()
    """The model files."""
    auth: Auth = Auth()
    """Keys."""
    service: Service = Service()
    """The Service."""
    ingress: Ingress = Ingress()
    """Ingress."""
    http_route: HttpRoute = HttpRoute()
    """HTTPRoute."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Network policies."""
    pod_disruption_budgets: bool = True
    """Whether a drain leaves all but one of a group's `minReplicas` pods. Groups with fewer than two have none: no drain is blocked."""
    metrics: Metrics = Metrics()
    """Metrics."""
    preflight: Preflight = Preflight()
    """Before."""
    rollout: Rollout = Rollout()
    """After."""
    pod: Pod = Pod()
    """Of `mode: pod`."""
