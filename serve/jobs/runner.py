"""The Runner: the Ray Serve deployment in which jobs are ongoing requests."""

from collections.abc import Callable, Coroutine
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.flow_control import ConsumerEnd
from deployments.telemetry import logs
from serve.config import AppConfig
from serve.jobs.execution import Execution
from serve.jobs.job_runner import JobRunner
from serve.jobs.open_store import open_stores
from serve.jobs.runner_handle import RunnerHandle, detached
from serve.jobs.sweeper import Sweeper
from serve.jobs.take_ups import TakeUps
from serve.jobs.usage_report import UsageReport
from serve.jobs.webhooks.deliveries import WebhookSender
from serve.models import RUNNER
from serve.pipelines.handles import make_handles
from serve.pipelines.pipelines import make_pipelines
from serve.pipelines.readiness import Readiness
from serve.provenance.marking import Marking


@serve.deployment(
    name=RUNNER,
    max_ongoing_requests=1000,  # jobs that wait for their turn are among them
    graceful_shutdown_timeout_s=1800,  # a video takes minutes
    health_check_period_s=10,
    health_check_timeout_s=30,
)
class Runner(JobRunner):
    """Runs jobs by ``JobRunner.run``, and takes up those whose Runner was lost.

    ``models`` are the handles of the model deployments, by the models' API names.
    """

    # Ray awaits an asynchronous constructor.
    async def __init__(self, config: AppConfig, models: dict[str, DeploymentHandle[Any]]) -> None:  # type: ignore[misc]
        logs.name_origins()
        replica = serve.get_replica_context()
        consumer = ConsumerEnd(ray.util.get_node_ip_address())
        await consumer.start()
        readiness = Readiness(replica.app_name)
        handles = make_handles(models, readiness, consumer, window=config.runner.window)
        pipelines = make_pipelines(config, handles)
        await pipelines.decoder.pool.warm_up()
        marking = Marking(config.provenance, demo=config.models == "demo", processes=config.runner.encoder_threads)
        await marking.start()
        store, files = open_stores(config.jobs, replica.app_name)
        await store.open()
        execution = Execution(config, pipelines, readiness=readiness, files=files, marking=marking)
        JobRunner.__init__(self, replica.replica_id.unique_id, config.jobs, execution=execution, store=store, files=files)
        take_ups = TakeUps(RunnerHandle(serve.get_deployment_handle(RUNNER, replica.app_name)))
        sweeper = Sweeper(store, files, lease_s=config.jobs.lease_s, take_up=take_ups.take_up)
        report = UsageReport(store, files)
        loops: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *self.loops(),
            sweeper.watch,
            sweeper.clean,
            report.run,
            marking.watch,
        ]
        if config.jobs.webhooks.enabled:
            loops.append(WebhookSender(store, config.jobs.webhooks).run)
        self._loops = [detached(loop()) for loop in loops]

    def check_health(self) -> None:
        """Raise if one of the loops has ended; Serve then replaces the replica."""
        for loop in self._loops:
            if loop.done():
                raise RuntimeError("a loop of the Runner has ended; the log says why") from loop.exception()
