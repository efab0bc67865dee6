"""Whether something grows: slopes that single jumps do not bend, and what is left at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MIB = 1 << 20
PER = 1_000
"""The requests by which a slope is stated."""
LEAST_SHARE = 0.2
"""The share of the samples in which a process must be seen: one that has just started grows because
it starts, and those that are replaced often have no time to leak."""
MOST_POINTS = 400
"""The most points that a slope is taken of: the work grows with their square."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median slope of all pairs of points (the Theil-Sen estimate); 0 for one point.

    Less than 29 % of the points can be anywhere without a great effect, and a single jump counts as
    far as it bends the line: memory that a process takes once is not a leak.
    """
    every = max(1, -(-len(points) // MOST_POINTS))
    thinned = points[::every]
    slopes = [(y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(thinned) for x2, y2 in thinned[i + 1 :] if x2 != x1]
    return median(slopes) if slopes else 0.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one process uses. ``private`` is its RSS without memory that others may share.

    The pages of Ray's object store that a process has touched belong to its RSS for ever. They are
    shared, and counted where the object store is.
    """

    name: str
    rss: int
    private: int
    files: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """What all processes use after a number of requests, by their ids."""

    requests: int
    processes: Mapping[int, Usage]


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How the memory of one process changed, in MiB a thousand requests, and how much it has.

    ``later_slope`` is that of the private memory in the later half of the samples: it tells whether
    a process still grows, or has what it needs.
    """

    name: str
    pid: int
    rss_slope: float
    private_slope: float
    later_slope: float
    rss_mib: float
    private_mib: float
    points: int

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.pid}): {self.rss_slope:+.2f} MiB of RSS a thousand requests, {self.private_slope:+.2f} of it "
            f"private ({self.later_slope:+.2f} in the later half); {self.rss_mib:.0f} MiB ({self.private_mib:.0f} private) at "
            f"the end, {self.points} samples"
        )


def trends(samples: Sequence[Sample], *, least_points: int = 5) -> list[Trend]:
    """Return the trend of each process that lives at the end and was seen often enough.

    That is in ``least_points`` samples, and in ``LEAST_SHARE`` of all of them.
    """
    found = []
    for pid, last in (samples[-1].processes if samples else {}).items():
        seen = [(sample.requests, sample.processes[pid]) for sample in samples if pid in sample.processes]
        if len(seen) < max(least_points, LEAST_SHARE * len(samples)):
            continue
        rss = slope([(requests / PER, usage.rss / MIB) for requests, usage in seen])
        private = [(requests / PER, usage.private / MIB) for requests, usage in seen]
        found.append(
            Trend(
                name=last.name,
                pid=pid,
                rss_slope=rss,
                private_slope=slope(private),
                later_slope=slope(private[len(private) // 2 :]),
                rss_mib=last.rss / MIB,
                private_mib=last.private / MIB,
                points=len(seen),
            )
        )
    return sorted(found, key=lambda trend: -trend.private_slope)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What is in use while nothing is asked for: counts by kind of process, and of the cluster."""

    processes: Mapping[str, int]
    files: Mapping[str, int]
    threads: Mapping[str, int]
    actors: Mapping[str, int]
    object_store_bytes: int


def totals(sample: Sample, actors: Mapping[str, int], object_store_bytes: int) -> Totals:
    """Return the totals of a sample."""
    processes: dict[str, int] = {}
    files: dict[str, int] = {}
    threads: dict[str, int] = {}
    for usage in sample.processes.values():
        processes[usage.name] = processes.get(usage.name, 0) + 1
        files[usage.name] = files.get(usage.name, 0) + usage.files
        threads[usage.name] = threads.get(usage.name, 0) + usage.threads
    return Totals(processes=processes, files=files, threads=threads, actors=dict(actors), object_store_bytes=object_store_bytes)


def left(before: Totals, after: Totals, *, leeway: int = 0) -> list[str]:
    """Return a sentence for everything of which there is more than before.

    ``leeway`` files and threads more of each kind of process are not counted.
    """
    found = []
    for what, allowed in (("processes", 0), ("files", leeway), ("threads", leeway), ("actors", 0)):
        then: Mapping[str, int] = getattr(before, what)
        now: Mapping[str, int] = getattr(after, what)
        for name, count in sorted(now.items()):
            if count - then.get(name, 0) > allowed:
                found.append(f"{name}: {count} {what}, {count - then.get(name, 0)} more than before")
    if after.object_store_bytes > before.object_store_bytes:
        more = after.object_store_bytes - before.object_store_bytes
        found.append(f"{more} bytes more than before are in the object store")
    return found


def leaks(found: Sequence[Trend], *, bar: float) -> list[str]:
    """Return a sentence for each process whose private memory grows by more than ``bar``."""
    return [
        f"{trend.name} ({trend.pid}) grows by {trend.private_slope:.2f} MiB a thousand requests (bar {bar:g})"
        for trend in found
        if trend.private_slope > bar
    ]
