"""`python -m benchmarks.jobs_service [REDIS_URL]`: what jobs cost a request of the demo.

It runs the demo over SQLite, and over Redis if the URL of one is given, and prints percentiles of
the time from a request with `Prefer: respond-async` to its 202, and of a small video and a face
swap, each made by turns

- by the pipeline alone, called in this process without a job, and
- as a job that this process waits for, as an ingress replica does for a plain POST.

The second does all that the first does, and the job: the difference of each pair is what it costs.
The times of both vary by more than that, so the median of the differences comes with the interval
that holds it in 95 of 100 runs. No results are marked: marks have costs of their own, which
`benchmarks.provenance` measures.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import ray
import yaml
from ray import serve as ray_serve

from deployments.flow_control import ConsumerEnd
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.config import AppConfig
from serve.http.endpoints import Endpoint, make_endpoints
from serve.http.examples import payload
from serve.http.jobs.submission import Submission, Submissions
from serve.http.negotiation import Preferences
from serve.jobs.front_desk import make_jobs
from serve.jobs.runner_handle import RunnerHandle
from serve.media.samples import PORTRAIT, data_uri
from serve.models import MODELS, RUNNER
from serve.pipelines.context import RequestContext, Step
from serve.pipelines.handles import make_handles
from serve.pipelines.meter import Meter
from serve.pipelines.pipelines import make_pipelines
from serve.pipelines.readiness import Readiness

PORT, APPLICATION = 8391, "ryla"
SMALL_FACE = data_uri(PORTRAIT.read_bytes(), "image/jpeg")
BODIES: dict[str, dict[str, Any]] = {
    "wan2.6": {**payload("wan2.6"), "width": 32, "height": 32, "length": 1, "steps": 1, "cfg": 1},
    "image-faceswap": {"source_image": SMALL_FACE, "reference_image": SMALL_FACE},
}
"""Requests that take the models as little time as possible, since that time varies."""
UNMARKED = {"metadata": {"enabled": False}, "c2pa": {"enabled": False}, "watermark": {"enabled": False}}
MEDIA_TYPES = {"wan2.6": "video/mp4", "image-faceswap": "image/png"}


def main() -> None:
    """Print the figures of each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("redis", nargs="?", help="URL of a Redis")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    # This process joins the cluster, which Ray expects at the address of the machine.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        stores = {"SQLite": {"folder": f"{folder}/jobs"}}
        if options.redis is not None:
            stores["Redis"] = {"store": options.redis, "files": f"file://{folder}/files"}
        for name, jobs in stores.items():
            config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
            config["http_options"]["port"] = PORT
            (application,) = config["applications"]
            application["args"] |= {"jobs": jobs, "provenance": UNMARKED}
            path = Path(folder, f"{name}.yaml")
            path.write_text(yaml.safe_dump(config))
            with running(path) as client:
                # Serve's handles belong to one cluster for as long as their process lives.
                work = (name, client.url, AppConfig.model_validate(application["args"]), options.rounds)
                process = multiprocessing.get_context("spawn").Process(target=measure, args=work)
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(process.exitcode)


def measure(store: str, url: str, config: AppConfig, /, rounds: int) -> None:
    """Print the figures of one running service."""
    times = [submit(url) for _ in range(rounds + 3)][3:]
    print(f"{store}, submit to 202: {percentiles(times)}", flush=True)
    ray.init(address="auto", namespace="serve", log_to_driver=False)
    try:
        with asyncio.Runner() as loop:
            measured = {name: loop.run(compare(name, config, rounds=rounds)) for name in BODIES}
        for name, pairs in measured.items():
            alone, as_job = ([pair[way] for pair in pairs] for way in (0, 1))
            more = [job - without for without, job in pairs]
            print(f"{store}, /{name} by the pipeline alone: {percentiles(alone)}")
            print(f"{store}, /{name} as a job: {percentiles(as_job)}")
            low, high = (1000 * bound for bound in interval_of_median(more))
            print(
                f"{store}, /{name}, what the job adds: median {1000 * statistics.median(more):.1f} ms "
                f"({low:.1f} to {high:.1f} in 95 of 100 runs)",
                flush=True,
            )
    finally:
        ray.shutdown()


def submit(url: str) -> float:
    """Return the seconds from a request to its 202, and wait for the job's end."""
    with httpx.Client(base_url=url, timeout=60) as http:
        http.get("/healthz")  # opens the connection
        begin = time.perf_counter()
        response = http.post("/wan2.6", json=BODIES["wan2.6"], headers={"Prefer": "respond-async"})
        taken = time.perf_counter() - begin
        assert response.status_code == 202, response.text
        path = response.headers["location"]
        while http.get(f"{path}/result", params={"wait": 30}).status_code != 200:
            pass
        http.delete(path)
    return taken


async def compare(name: str, config: AppConfig, *, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of the pipeline alone and of a job, for each round."""
    consumer = ConsumerEnd(ray.util.get_node_ip_address())
    await consumer.start()
    readiness = Readiness(APPLICATION)
    deployments = {model.name: ray_serve.get_deployment_handle(model.deployment, APPLICATION) for model in MODELS}
    handles = make_handles(deployments, readiness, consumer, window=config.runner.window)
    pipelines = make_pipelines(config, handles)
    await pipelines.decoder.pool.warm_up()
    runner = RunnerHandle(ray_serve.get_deployment_handle(RUNNER, APPLICATION))
    jobs = make_jobs(config.jobs, APPLICATION, runner, consumer)
    await jobs.desk.open()
    endpoints = make_endpoints(config)
    submissions = Submissions(jobs.desk, config.jobs, endpoints)
    (endpoint,) = [each for each in endpoints if each.name == name]

    async def alone() -> None:
        request = (await asyncio.to_thread(endpoint.schema.parse, dict(BODIES[name]), strict=False)).request
        context = RequestContext(seed=7, media_type=MEDIA_TYPES[name], meter=Meter({}), observe=_ignore, caller="benchmark")
        await pipelines.run(endpoint.models[0].name, request, context)

    async def as_job() -> None:
        outcome = await jobs.desk.run(*await submissions.prepare(_submission(endpoint)))
        assert outcome.data is not None

    for _ in range(3):
        await alone()
        await as_job()
    pairs = [(await _timed(alone), await _timed(as_job)) for _ in range(rounds)]
    await jobs.desk.close()
    pipelines.decoder.pool.close()
    await consumer.stop()
    return pairs


def _submission(endpoint: Endpoint) -> Submission:
    now = time.time()
    return Submission(
        endpoint=endpoint.name,
        fields=dict(BODIES[endpoint.name]),
        caller="benchmark",
        media_type=MEDIA_TYPES[endpoint.name],
        request_id="benchmark",
        began_at=now,
        timeout_s=600,
        preferences=Preferences(),
    )


def _ignore(step: Step) -> None:
    """Take the steps of a request that nobody follows."""


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds that hold the true median with 95 % confidence, by order statistics."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    middle = (len(values) - 1) / 2
    return ordered[max(0, math.floor(middle - half))], ordered[min(len(values) - 1, math.ceil(middle + half))]


def percentiles(seconds: Sequence[float]) -> str:
    """Return percentiles in milliseconds."""
    ordered = sorted(seconds)
    places = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    parts = [
        f"{label} {ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000:.1f}" for label, share in places.items()
    ]
    return ", ".join(parts) + " ms"


if __name__ == "__main__":
    main()
