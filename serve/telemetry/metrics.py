"""The table of all metrics of the service, which docs/operations.md lists.

Those of the model deployments are declared in ``deployments.telemetry.metrics``.
"""

from typing import Literal

from deployments.telemetry import metrics as deployments
from deployments.telemetry.metric import Counter, Gauge, Histogram, Label
from serve.route_table import ENDPOINTS

Outcome = Literal["succeeded", "accepted", "refused", "busy", "timeout", "failed", "cancelled", "left"]
Layer = Literal["metadata", "signature", "watermark"]
"""A way in which a result says that it was generated."""
OUTCOMES: tuple[Outcome, ...] = ("succeeded", "accepted", "refused", "busy", "timeout", "failed", "cancelled", "left")

ENDPOINT = Label("endpoint", tuple(ENDPOINTS))
"""The names of all endpoints that make something."""
OUTCOME = Label("outcome", OUTCOMES)
STAGE = Label("stage", ("queue", "start", "denoise", "decode", "swap", "encode"))
"""The phases that `Server-Timing` lists."""
STATE = Label("state", ("queued", "starting", "running"))
DELIVERY = Label("outcome", ("delivered", "repeated", "failed"))
LAYER = Label("layer", ("metadata", "signature", "watermark"))

REQUESTS = Counter(
    name="ryla_requests_total",
    description="Requests to the endpoints that make something, by what they were answered with.",
    labels=(ENDPOINT, OUTCOME),
)
REQUEST_SECONDS = Histogram(
    name="ryla_request_duration_seconds",
    description="Time from the arrival of a request to its answer.",
    labels=(ENDPOINT,),
    unit="seconds",
)
JOBS_ENDED = Counter(
    name="ryla_jobs_ended_total",
    description="Jobs that have ended. Every request that is not refused at once is one.",
    labels=(ENDPOINT, deployments.MODEL, OUTCOME),
)
JOB_SECONDS = Histogram(
    name="ryla_job_duration_seconds",
    description="Time from the acceptance of a job to its success.",
    labels=(ENDPOINT, deployments.MODEL),
    unit="seconds",
)
QUEUE_SECONDS = Histogram(
    name="ryla_queue_seconds",
    description="Time that a job waits for its turn and for a free replica.",
    labels=(ENDPOINT, deployments.MODEL),
    unit="seconds",
)
STAGE_SECONDS = Histogram(
    name="ryla_stage_duration_seconds",
    description="Time that a job spends in each stage.",
    labels=(ENDPOINT, deployments.MODEL, STAGE),
    unit="seconds",
)
COLD_STARTS = Counter(
    name="ryla_cold_starts_total",
    description="Jobs that waited for a model to start, by that model.",
    labels=(ENDPOINT, deployments.MODEL),
    only="after a cold start",
)
FRAMES = Counter(
    name="ryla_frames_total",
    description="Frames and images in results.",
    labels=(ENDPOINT, deployments.MODEL),
)
WORK_SECONDS = Counter(
    name="ryla_work_seconds_total",
    description="Seconds for which replicas of a model worked on requests that succeeded.",
    labels=(ENDPOINT, deployments.MODEL),
    unit="seconds",
)
COST = Counter(
    name="ryla_cost_usd_total",
    description="Price of those seconds, as in the header X-Cost-USD.",
    labels=(ENDPOINT, deployments.MODEL),
    unit="USD",
    only="if prices are set",
)
JOBS = Gauge(
    name="ryla_jobs",
    description="Jobs in the store that have not ended. Each Runner reports all of them, so take the maximum.",
    labels=(STATE,),
)
JOBS_OVERDUE = Gauge(
    name="ryla_jobs_overdue",
    description="Jobs that have not ended a minute after their deadline. Take the maximum.",
)
OLDEST_QUEUED_SECONDS = Gauge(
    name="ryla_oldest_queued_job_seconds",
    description="Age of the oldest job that waits for its turn, or 0. Take the maximum.",
    unit="seconds",
)
STORE_REACHABLE = Gauge(
    name="ryla_store_reachable",
    description="1 if the Runner reaches the store of jobs, else 0. Take the minimum.",
)
KEPT_BYTES = Gauge(
    name="ryla_kept_bytes",
    description="Size of the files that are kept for jobs. Each Runner reports all of them, so take the maximum.",
    unit="bytes",
)
KEPT_BYTES_OF_ONE = Gauge(
    name="ryla_kept_bytes_of_one_caller",
    description="Size of the files of the caller who has most of them. Take the maximum.",
    unit="bytes",
)
FREE_BYTES = Gauge(
    name="ryla_free_bytes",
    description="Bytes that are free on the disk with the files of jobs. Take the minimum.",
    unit="bytes",
    only="if the files are in a folder",
)
WEBHOOKS = Counter(
    name="ryla_webhook_deliveries_total",
    description="Attempts to deliver a webhook: delivered, to be repeated, or failed for good.",
    labels=(DELIVERY,),
    only="with webhooks",
)
PROVENANCE_FAILURES = Counter(
    name="ryla_provenance_failures_total",
    description="Results that could not be marked as generated, by the way of marking.",
    labels=(LAYER,),
    only="after a failure",
)
CERTIFICATE_EXPIRY = Gauge(
    name="ryla_certificate_expiry_timestamp_seconds",
    description="When the certificate that signs results expires, in seconds since the epoch.",
    unit="seconds",
    only="with a certificate",
)

METRICS: tuple[Counter | Gauge | Histogram, ...] = (
    REQUESTS,
    REQUEST_SECONDS,
    JOBS_ENDED,
    JOB_SECONDS,
    QUEUE_SECONDS,
    STAGE_SECONDS,
    COLD_STARTS,
    FRAMES,
    WORK_SECONDS,
    COST,
    JOBS,
    JOBS_OVERDUE,
    OLDEST_QUEUED_SECONDS,
    STORE_REACHABLE,
    KEPT_BYTES,
    KEPT_BYTES_OF_ONE,
    FREE_BYTES,
    WEBHOOKS,
    PROVENANCE_FAILURES,
    CERTIFICATE_EXPIRY,
    *deployments.METRICS,
)
"""Every metric of the service."""


def outcome_of_status(status: int) -> Outcome:
    """Return the outcome that an HTTP status means."""
    if status < 400:
        return "accepted" if status in (202, 303) else "succeeded"
    special: dict[int, Outcome] = {429: "busy", 499: "left", 503: "busy", 504: "timeout"}
    return special.get(status, "refused" if status < 500 else "failed")


def record_provenance_failure(layer: Layer) -> None:
    """Count a result that could not be marked in the way that ``layer`` names."""
    PROVENANCE_FAILURES.add(layer=layer)


def record_certificate_expiry(at: float) -> None:
    """Note when the certificate that signs results expires, in seconds since the epoch."""
    CERTIFICATE_EXPIRY.set(at)
