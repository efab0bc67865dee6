"""The ingress: the Ray Serve deployment that HTTP requests reach."""

from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments.flow_control import ConsumerEnd
from deployments.telemetry import logs
from serve.config import AppConfig
from serve.http.application import Service, make_app
from serve.http.reports.access_log import leave_out_probes
from serve.http.scaling import AT_WORK
from serve.jobs.front_desk import make_jobs
from serve.jobs.runner_handle import RunnerHandle
from serve.models import INGRESS
from serve.pipelines.handles import make_handles
from serve.pipelines.readiness import Readiness


@serve.deployment(
    name=INGRESS,
    max_ongoing_requests=1000,  # the ingress counts requests itself, so that a refusal is a problem
    graceful_shutdown_timeout_s=1800,
    health_check_period_s=10,
    health_check_timeout_s=30,
)
@serve.ingress()
class Ingress:
    """Validates requests, has the Runner run them as jobs, and answers with the results.

    ``models`` are the handles of the model deployments, by the models' API names.
    """

    def __init__(self, config: AppConfig, runner: DeploymentHandle[Any], models: dict[str, DeploymentHandle[Any]]) -> None:
        self._config = config
        self._runner = runner
        self._models = models
        self._service: Service | None = None

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what ``serve.http.scaling`` needs to know of this replica; Serve calls this."""
        return {AT_WORK: 0 if self._service is None else self._service.at_work}

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the ASGI application of this replica; Serve calls this when the replica starts."""
        leave_out_probes()
        logs.name_origins()
        consumer = ConsumerEnd(ray.util.get_node_ip_address())
        await consumer.start()
        application = serve.get_replica_context().app_name
        readiness = Readiness(application)
        handles = make_handles(self._models, readiness, consumer, window=self._config.runner.window)
        jobs = make_jobs(self._config.jobs, application, runs=RunnerHandle(self._runner), consumer=consumer)
        self._service = make_app(self._config, jobs, handles=handles, readiness=readiness)
        return self._service
