"""`python -m benchmarks.autoscaling`: scaling by waiting GPU seconds against Serve's own policy.

It simulates a day of one video model with cold starts. The decisions are made by Ray Serve's own
code: its default policy, its delays and its averages, once fed with the number of requests and once
with the GPU seconds that they need, from the pace of the model. It prints, for each policy, the
GPU hours that are paid for, and how long requests wait and take, as means over several days.

A request that has waited its turn needs its GPU seconds whatever the policy. So the policies differ
in the wait: for a replica to be free, or to start.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any
from unittest import mock

from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.autoscaling_policy import _apply_autoscaling_config, replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingConfig, AutoscalingContext

DAY_S = 86_400
JOBS, WORK, MEAN = "jobs", "work_s", "mean_s"
"""The metrics that a policy by work is fed with: requests that have not ended, the seconds of GPU
that they need, and the mean seconds of the latest requests."""
LATEST = 20
"""The number of the latest requests of which the mean is taken."""
WIDE = 32
"""Slots that let Serve see the queue."""
MIX = ((0.30, 3.0), (0.45, 25.0), (0.20, 93.0), (0.05, 300.0))
"""The shares of requests, and the GPU seconds of each: a distilled draft, the default video, 81
frames, and 81 frames at 720p. They are three times those that docs/performance.md has for an H100.
"""
PEAK_HOUR = 15.0

Policy = Callable[[AutoscalingContext], tuple[float, dict[str, Any]]]


@dataclass(frozen=True)
class Request:
    """A request: when it comes, and the GPU seconds that it needs."""

    at: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is simulated, as the preset `production` has it."""

    cold_start_s: float = 120.0
    slots: int = 4
    max_replicas: int = 4
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 300.0
    target: float = 1.0


@dataclass
class _Replica:
    ready_at: float
    begun_at: float
    free_at: float = 0.0
    stopping: bool = False


@dataclass
class Outcome:
    """What a day cost and how its requests fared, in seconds."""

    waits: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    gpu_s: float = 0.0
    starts: int = 0

    def p95_wait(self) -> float:
        """Return how long 95 % of the requests waited at most."""
        return _quantile(self.waits, 0.95)

    def p95(self) -> float:
        """Return how long 95 % of the requests took at most."""
        return _quantile(self.times, 0.95)


def day(rng: random.Random, *, peak_gpus: float, bursts: int) -> list[Request]:
    """Return the requests of a day, in order.

    ``peak_gpus`` is how many GPUs the requests of the busiest hour would keep busy, and at night
    there is a twentieth of them. ``bursts`` callers send ten requests of one kind at once.
    """
    mean_s = sum(share * seconds for share, seconds in MIX)
    peak_rate = peak_gpus / mean_s
    requests = []
    at = 0.0
    while (at := at + rng.expovariate(peak_rate)) < DAY_S:
        if rng.random() < load_at(at):
            requests.append(Request(at, _seconds(rng)))
    for _ in range(bursts):
        at, seconds = rng.uniform(0, DAY_S), _seconds(rng)
        requests += [Request(at + i * 0.1, seconds) for i in range(10)]
    return sorted(requests, key=lambda request: request.at)


def load_at(second: float) -> float:
    """Return the share of the peak's load at a time of the day, from 0.05 to 1."""
    hours = second / 3600 - PEAK_HOUR
    return 0.05 + 0.95 * max(0.0, math.cos(math.pi * hours / 14)) ** 2


def by_work(drain_s: float) -> Policy:
    """Return a policy that starts as many replicas as end all known work within ``drain_s``.

    More replicas than requests would be idle.
    """

    def policy(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        if context.current_num_replicas == 0:
            return context.target_num_replicas, {}
        metrics = context.aggregated_metrics or {}
        jobs, work_s = (sum(metrics.get(name, {}).values()) for name in (JOBS, WORK))
        return min(jobs, work_s / drain_s), {}

    return policy


def simulate(requests: Sequence[Request], policy: Policy, setting: Setting) -> Outcome:
    """Return what becomes of the requests of a day."""
    config = AutoscalingConfig(
        min_replicas=0,
        max_replicas=setting.max_replicas,
        target_ongoing_requests=setting.target,
        upscale_delay_s=setting.upscale_delay_s,
        downscale_delay_s=setting.downscale_delay_s,
        downscale_to_zero_delay_s=setting.downscale_delay_s,
    )
    decide = _apply_autoscaling_config(policy)
    identity = DeploymentID(name="Wan26", app_name="ryla")
    runner = ReplicaID("runner", identity)
    window = round(config.look_back_period_s)
    recent: deque[tuple[float, float, float]] = deque()
    sums = [0.0, 0.0, 0.0]
    replicas: list[_Replica] = []
    waiting: deque[Request] = deque()
    running: list[tuple[float, _Replica]] = []
    state: dict[str, Any] = {}
    latest: deque[float] = deque(maxlen=LATEST)
    outcome = Outcome()
    coming = deque(requests)
    target = 0
    now = 0.0
    with _clock() as clock:
        while coming or waiting or running or replicas:
            clock.now = now
            while coming and coming[0].at <= now:
                waiting.append(coming.popleft())
            running = [(end, replica) for end, replica in running if end > now]
            for replica in [r for r in replicas if r.stopping and r.free_at <= now]:
                outcome.gpu_s += now - replica.begun_at
                replicas.remove(replica)
            for replica in replicas:
                if waiting and not replica.stopping and replica.ready_at <= now and replica.free_at <= now:
                    request = waiting.popleft()
                    replica.free_at = now + request.seconds
                    running.append((replica.free_at, replica))
                    latest.append(request.seconds)
                    outcome.waits.append(now - request.at)
                    outcome.times.append(replica.free_at - request.at)
            unended = len(waiting) + len(running)
            work_s = sum(r.seconds for r in waiting) + sum(end - now for end, _ in running)
            # Serve sees the requests that have their turn, and no others.
            recent.append((min(setting.slots, unended), unended, work_s))
            gone = recent.popleft() if len(recent) > window else (0.0, 0.0, 0.0)
            sums = [total + new - old for total, new, old in zip(sums, recent[-1], gone, strict=True)]
            # Rounded, since what is left of a sum of nothing is not exactly nothing.
            requests_seen, jobs_seen, work_seen = (round(total / len(recent), 6) for total in sums)
            context = AutoscalingContext(
                deployment_id=identity,
                deployment_name=identity.name,
                app_name=identity.app_name,
                current_num_replicas=sum(r.ready_at <= now and not r.stopping for r in replicas),
                target_num_replicas=target,
                running_replicas=[],
                total_num_requests=requests_seen,
                total_queued_requests=None,
                aggregated_metrics={
                    JOBS: {runner: jobs_seen},
                    WORK: {runner: work_seen},
                    MEAN: {runner: fmean(latest or [0.0])},
                },
                raw_metrics=None,
                capacity_adjusted_min_replicas=0,
                capacity_adjusted_max_replicas=setting.max_replicas,
                policy_state=state,
                last_scale_up_time=None,
                last_scale_down_time=None,
                current_time=now,
                config=config,
            )
            decided, state = decide(context)
            target = max(0, min(setting.max_replicas, math.ceil(decided)))
            _apply(target, replicas, now, setting, outcome)
            now += 1.0
            if not (replicas or waiting or running or requests_seen) and coming:
                now = max(now, math.floor(coming[0].at))
    return outcome


def _apply(target: int, replicas: list[_Replica], now: float, setting: Setting, outcome: Outcome) -> None:
    """Start or stop replicas: those that start first, then idle ones; a busy one ends its work."""
    kept = [replica for replica in replicas if not replica.stopping]
    for _ in range(target - len(kept)):
        replicas.append(_Replica(ready_at=now + setting.cold_start_s, begun_at=now))
        outcome.starts += 1
    kept.sort(key=lambda replica: (replica.ready_at <= now, replica.free_at > now))
    for replica in kept[: max(0, len(kept) - target)]:
        replica.stopping = True


@dataclass
class _Clock:
    now: float = 0.0

    def time(self) -> float:
        """Return the time of the simulation."""
        return self.now


@contextmanager
def _clock() -> Iterator[_Clock]:
    """Have Serve's delays pass by the time of the simulation."""
    clock = _Clock()
    with mock.patch("ray.serve.autoscaling_policy.time", clock):
        yield clock


def _seconds(rng: random.Random) -> float:
    (seconds,) = rng.choices([seconds for _, seconds in MIX], [share for share, _ in MIX])
    return seconds * rng.uniform(0.9, 1.1)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1] if ordered else 0.0


def by_mean_work(drain_s: float) -> Policy:
    """Return a policy like ``by_work`` that knows how long requests took lately, and no more.

    It needs only what replicas can report, and what Serve itself sees of the queue.
    """

    def policy(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        if context.current_num_replicas == 0:
            return context.target_num_replicas, {}
        mean_s = sum((context.aggregated_metrics or {}).get(MEAN, {}).values())
        return context.total_num_requests * min(1.0, mean_s / drain_s), {}

    return policy


def policies(setting: Setting) -> dict[str, tuple[Policy, Setting]]:
    """Return what is compared, by name.

    With as many slots as replicas, Serve's default sees no more than these many requests. With more
    of them it sees the queue.
    """
    default = replica_queue_length_autoscaling_policy
    wide = replace(setting, slots=WIDE)
    found: dict[str, tuple[Policy, Setting]] = {}
    for target in (1, 1.5, 2):
        found[f"requests, target {target:g}, {setting.slots} slots"] = (default, replace(setting, target=target))
    for target in (1, 1.5, 2, 3, 4):
        found[f"requests, target {target:g}, {WIDE} slots"] = (default, replace(wide, target=target))
    for drain_s in (120, 240):
        found[f"mean GPU seconds, {drain_s:g} s, {WIDE} slots"] = (by_mean_work(drain_s), wide)
    for drain_s in (60, 120, 180, 240):
        found[f"GPU seconds, {drain_s:g} s"] = (by_work(drain_s), setting)
    return found


def main() -> None:
    """Print a line for each policy and each load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=2, help="days, each with requests of its own, whose means are printed")
    parser.add_argument("--peaks", type=float, nargs="+", default=[1.0, 3.0], help="GPUs that the busiest hour needs")
    parser.add_argument("--bursts", type=int, default=12, help="callers a day who send ten requests at once")
    parser.add_argument("--cold-start", type=float, default=120, help="seconds that a replica takes to start")
    parser.add_argument("--price", type=float, default=1.95, help="USD an hour of one GPU")
    options = parser.parse_args()
    setting = Setting(cold_start_s=options.cold_start)
    for peak in options.peaks:
        days = [day(random.Random(seed), peak_gpus=peak, bursts=options.bursts) for seed in range(options.days)]
        count = sum(map(len, days)) / len(days)
        busy_h = fmean(sum(request.seconds for request in requests) for requests in days) / 3600
        print(f"peak of {peak:g} GPUs: {count:.0f} requests a day, {busy_h:.1f} GPU hours of work", flush=True)
        for name, (policy, changed) in policies(setting).items():
            outcomes = [simulate(requests, policy, changed) for requests in days]
            hours = fmean(o.gpu_s for o in outcomes) / 3600
            print(
                f"  {name}: {hours:.2f} GPU hours ({hours * options.price:.2f} USD), wait p50 "
                f"{fmean(_quantile(o.waits, 0.5) for o in outcomes):.0f} s, p95 {fmean(o.p95_wait() for o in outcomes):.0f} s; "
                f"took p95 {fmean(o.p95() for o in outcomes):.0f} s; {fmean(o.starts for o in outcomes):.0f} starts",
                flush=True,
            )


if __name__ == "__main__":
    main()
