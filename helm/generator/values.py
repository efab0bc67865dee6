"""All values of the chart. values.yaml, its schema and the chart's README are generated from them
(`make chart`)."""

from typing import Literal

from pydantic import Field

from helm.generator.base import Labels, Name, Object, Values
from helm.generator.gateway import Gateway
from helm.generator.jobs import Jobs
from helm.generator.model_files import ModelFiles
from helm.generator.network import HttpRoute, IngressValues, NetworkPolicy, Service
from helm.generator.pods import Autoscaler, ExtraWorkerGroup, Head, Image, LogRotation, Pod, Resources, WorkerGroups
from helm.generator.provenance import Provenance
from helm.generator.ray_cluster import FaultTolerance, Upgrade
from serve.models import INGRESS, MODELS, RUNNER

DEPLOYMENTS = (INGRESS, RUNNER, *(model.deployment for model in MODELS))
"""The Ray Serve deployments that `deployments` may configure."""


class Auth(Values):
    """Authentication of callers and of Ray. The Secrets must exist before the chart is
    installed."""

    api_keys_secret: Name = ""
    """Name of the Secret with the API keys. Its key `keys` has one line per API key: a name, and
    the SHA-256 of the API key in hex. Changes apply without a restart. If empty, no API key is
    required."""
    smoke_key_secret: Name = ""
    """Name of the Secret with the API key for the smoke test, under the key `key`. It must be one
    of the API keys."""
    ray_token_secret: Name = ""
    """Name of the Secret with Ray's token (dashboard, job API, GCS), under the key `auth_token`. To
    rotate the token, name another Secret, which starts a new cluster."""
    create_ray_token: bool = False
    """Whether Helm creates that Secret with a random token if it does not exist. It is kept when
    the release is uninstalled. Do not use it with Argo CD, which would change the token with every
    sync."""


class Metrics(Values):
    """Integration with the Prometheus operator and Grafana."""

    pod_monitor: bool = False
    """Whether to create a PodMonitor. Needs the API monitoring.coreos.com/v1."""
    interval: str = "15s"
    """Scrape interval of the PodMonitor."""
    rules: bool = False
    """Whether to create alert rules (PrometheusRule). docs/operations.md explains each alert and
    what to do about it."""
    dashboards: bool = False
    """Whether to create the Grafana dashboards, each as a ConfigMap with the label
    `grafana_dashboard: "1"`."""
    labels: Labels = {}
    """Labels added to the PodMonitor and the PrometheusRule, for your Prometheus to select them."""


class Preflight(Values):
    """Job that runs before an install or upgrade.

    It verifies the model files and validates the settings, after the job that fetches the files. If
    either fails, nothing is changed.
    """

    enabled: bool = True
    """Whether to run the preflight job and, if `models.fetch.command` is set, the one that fetches
    model files."""
    timeout_seconds: int = Field(default=900, ge=10)
    """Seconds that the job may take, including pulling the image and verifying model files. The one
    that fetches files has `models.fetch.timeoutSeconds` more."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "2Gi"})
    """Resource requests and limits of each container of the job."""


class Rollout(Values):
    """Job that runs after an install or upgrade.

    It waits for the new version, wakes every model and calls every endpoint.
    """

    enabled: bool = True
    """Whether to run the job. Without it, broken files of a model that is scaled to zero are only
    noticed by its first caller."""
    smoke: bool = True
    """Whether to call every endpoint. This scales up every kind of GPU worker once."""
    timeout_seconds: int = Field(default=3600, ge=10)
    """Seconds that the job may take. Half of them are for the new version to become ready. Helm's
    `--timeout` must be longer."""
    resources: Resources = Resources(requests={"cpu": "200m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    """Resource requests and limits of each container of the job, and of the `helm test` pod."""


class LoadTest(Values):
    """A load test with Locust: a master and its workers, each a Job, against the release's Service.

    Each install or upgrade with `enabled` runs it once. The master's log has the figures, and its
    Job fails if a threshold is missed.
    """

    enabled: bool = False
    """Whether to run the load test."""
    image: str = ""
    """Image of the load test, which has Locust: `make image TARGET=load` builds it."""
    workers: int = Field(default=2, ge=1)
    """Number of pods that send requests."""
    users: int = Field(default=8, ge=1)
    """Number of users at the peak, over all workers."""
    seconds: int = Field(default=300, ge=10)
    """Seconds that the load lasts."""
    shape: Literal["ramp", "spike", "soak"] = "ramp"
    """How the number of users changes: `ramp` grows to the peak, `spike` has a tenth of the peak
    before and after the middle third, and `soak` has the peak all the time."""
    size: Literal["short", "full"] = "full"
    """Size of the requests: `short` ones, which a CPU makes in seconds, or those with the service's
    defaults."""
    thresholds: list[str] = []
    """Conditions that the run must meet besides `errors<=0`, such as `result:wan2.6:p95<=120`."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    """Resource requests and limits of the master and of each worker."""


class ChartValues(Values):
    """All values of the chart."""

    name_override: str = ""
    """Overrides the chart's name in the names of objects."""
    fullname_override: str = ""
    """Overrides the full name of the release in the names of objects."""
    mode: Literal["rayservice", "pod"] = "rayservice"
    """Deployment mode. `rayservice`: a Ray cluster that scales, managed by the KubeRay operator.
    `pod`: everything in one pod, without an operator, for a demo or one large GPU."""
    platform: Literal["generic", "gke", "eks-karpenter", "gfd"] = "generic"
    """Kubernetes platform, which determines the labels and taints of GPU nodes. `gfd`: NVIDIA GPU
    Feature Discovery. `generic`: none are known; set `nodeSelector` and `tolerations` in each
    worker group."""
    common_labels: Labels = {}
    """Labels added to every object, but not to the pods of the service."""
    image: Image = Image()
    """Container image of the service."""
    image_pull_secrets: list[Object] = []
    """Secrets for pulling images from a private registry."""
    preset: Literal["production", "demo", "single-gpu"] = "production"
    """Serve config that `config` and `deployments` are merged into."""
    config: Object = {}
    """Application settings (AppConfig), merged over the preset. **Any change restarts every
    replica.** `null` removes a setting of the preset."""
    deployments: dict[str, Object] = Field(
        default={},
        description=f"Ray Serve settings of each deployment ({', '.join(DEPLOYMENTS)}), merged over the preset. Changes are "
        "applied in place.",
    )
    request_timeout_seconds: int = Field(default=2100, ge=1)
    """Request timeout of Ray Serve in seconds. It must be longer than
    `config.limits.request_timeout_s` and shorter than the load balancer's."""
    env: list[Object] = []
    """Environment variables added to every Ray container."""
    pod_labels: Labels = {}
    """Labels added to every pod of the service, the gateway and the jobs."""
    pod_annotations: Labels = {}
    """Annotations added to every pod of the service and to the preflight job, which fetches model
    files."""
    arch: Literal["amd64", "arm64", ""] = "amd64"
    """CPU architecture of the service image, to which its pods are restricted. If empty, they are
    not restricted."""
    pod_user: int | None = Field(default=10001, ge=1)
    """User and group id of all pods. `null` leaves the choice to the cluster, as OpenShift
    requires."""
    log_format: Literal["json", "text"] = "json"
    """Format of the log lines of Serve's controller, proxies and replicas, in the files below
    `/tmp/ray/session_latest/logs/serve`. `json` writes one object per line, with the ids of the
    request and of its job."""
    log_rotation: LogRotation = LogRotation()
    """Rotation of Ray's log files, which are on the `/tmp` volume of each pod."""
    service_account_name: Name = ""
    """Name of an existing service account for the workers (or the single pod) and the preflight
    job, for example one that may read a bucket."""
    head: Head = Head()
    """The Ray head: GCS, autoscaler, dashboard and Serve controller."""
    autoscaler: Autoscaler = Autoscaler()
    """Ray autoscaler, a sidecar container of the head."""
    worker_groups: WorkerGroups = WorkerGroups()
    """The built-in worker groups, by name. Each can be changed or disabled."""
    extra_worker_groups: list[ExtraWorkerGroup] = []
    """Additional worker groups, each with a `name` and the values of a built-in group. Appending
    one is applied in place."""
    upgrade: Upgrade = Upgrade()
    """How to roll out changes that Ray Serve cannot apply in place."""
    fault_tolerance: FaultTolerance = FaultTolerance()
    """Keeps the service up when the Ray head is lost. Needs Redis."""
    jobs: Jobs = Jobs()
    """Where jobs are kept."""
    provenance: Provenance = Provenance()
    """How results are marked as AI-generated."""
    models: ModelFiles = ModelFiles()
    """Model files: where they are mounted and how they get there."""
    auth: Auth = Auth()
    """Authentication of callers and of Ray."""
    gateway: Gateway = Gateway()
    """Reverse proxy (nginx) in front of the service, which limits what one connection can use."""
    service: Service = Service()
    """Kubernetes Service that clients, the Ingress and the HTTPRoute connect to."""
    ingress: IngressValues = IngressValues()
    """Kubernetes Ingress for the service."""
    http_route: HttpRoute = HttpRoute()
    """Gateway API HTTPRoute for the service."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Network policies for the pods of the release."""
    pod_disruption_budgets: bool = True
    """Whether to create a PodDisruptionBudget for each worker group that has at least two
    `minReplicas`. It keeps all but one of them running while nodes are drained. Smaller groups get
    none, since it would block every drain."""
    metrics: Metrics = Metrics()
    """Integration with the Prometheus operator and Grafana."""
    preflight: Preflight = Preflight()
    """Job that runs before an install or upgrade and validates settings and model files."""
    rollout: Rollout = Rollout()
    """Job that runs after an install or upgrade, waits for the new version and calls every
    endpoint."""
    loadtest: LoadTest = LoadTest()
    """Load test with Locust against the release's Service."""
    pod: Pod = Pod()
    """The single pod, used when `mode` is `pod`."""
