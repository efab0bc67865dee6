"""The arithmetic of a soak test."""

import random
from collections.abc import Mapping

import pytest

from loadtest.growth import MIB, Sample, Totals, Usage, leaks, left, slope, totals, trends


def usage(name: str = "ingress", mib: float = 100, *, shared: float = 0, files: int = 10, threads: int = 5) -> Usage:
    return Usage(name=name, rss=int((mib + shared) * MIB), private=int(mib * MIB), files=files, threads=threads)


def in_use(**changed: object) -> Totals:
    fields: dict[str, object] = {
        "processes": {"ingress": 1},
        "files": {"ingress": 20},
        "threads": {"ingress": 9},
        "actors": {"Ingress": 1},
        "object_store_bytes": 0,
    }
    return Totals(**(fields | changed))  # type: ignore[arg-type]


def test_the_slope_of_a_line_is_exact() -> None:
    assert slope([(x, 3 * x + 7) for x in range(50)]) == pytest.approx(3)
    assert slope([(1, 1)]) == 0
    assert slope([]) == 0


def test_noise_and_outliers_hardly_bend_the_slope() -> None:
    rng = random.Random(3)
    points = [(x / 10, 2 * x / 10 + rng.gauss(0, 1)) for x in range(200)]
    points[::10] = [(x, 500.0) for x, _ in points[::10]]
    assert slope(points) == pytest.approx(2, abs=0.2)


def test_memory_that_is_taken_once_early_is_no_leak() -> None:
    points = [(x, 50.0 if x < 10 else 200.0) for x in range(100)]
    assert slope(points) == 0


def test_a_long_run_is_thinned_without_a_change_of_its_slope() -> None:
    assert slope([(x, 0.5 * x) for x in range(10_000)]) == pytest.approx(0.5)


def test_trends_are_of_the_processes_that_live_at_the_end() -> None:
    def at(number: int) -> Mapping[int, Usage]:
        grown = {1: usage(mib=100 + number), 2: usage("runner", shared=number * 5)}
        return grown if number == 9 else {**grown, 3: usage("worker", 10)}

    samples = [Sample(1000 * number, at(number)) for number in range(10)]
    first, second = trends(samples)
    assert (first.name, first.pid) == ("ingress", 1)
    assert first.private_slope == pytest.approx(1)
    assert second.private_slope == 0
    assert second.rss_slope == pytest.approx(5)
    assert leaks([first, second], bar=0.5) == ["ingress (1) grows by 1.00 MiB a thousand requests (bar 0.5)"]
    assert leaks([first, second], bar=1.5) == []


def test_a_process_that_was_hardly_seen_has_no_trend() -> None:
    samples = [Sample(n, {1: usage()} | ({2: usage("new")} if n > 7 else {})) for n in range(10)]
    assert [trend.pid for trend in trends(samples)] == [1]


def test_a_process_that_has_just_started_has_no_trend() -> None:
    samples = [Sample(n, {1: usage()} | ({2: usage("new", mib=n)} if n >= 90 else {})) for n in range(100)]
    assert [trend.pid for trend in trends(samples)] == [1]


def test_the_later_half_tells_whether_a_process_still_grows() -> None:
    samples = [Sample(1000 * n, {1: usage(mib=100 + min(n, 40)), 2: usage(mib=100 + n)}) for n in range(100)]
    grows, filled = trends(samples)
    assert grows.pid == 2
    assert grows.later_slope == pytest.approx(1)
    assert filled.private_slope > 0.1
    assert filled.later_slope == 0
    assert "(+0.00 in the later half)" in str(filled)


def test_totals_add_up_the_processes_of_a_kind() -> None:
    sample = Sample(0, {1: usage("worker", files=3, threads=1), 2: usage("worker", files=4, threads=2), 3: usage()})
    found = totals(sample, {"Ingress": 1}, 7)
    assert found.processes == {"worker": 2, "ingress": 1}
    assert found.files == {"worker": 7, "ingress": 10}
    assert found.threads == {"worker": 3, "ingress": 5}
    assert (found.actors, found.object_store_bytes) == ({"Ingress": 1}, 7)


def test_fewer_of_everything_leaves_nothing() -> None:
    after = in_use(processes={}, files={"ingress": 19}, threads={"ingress": 9}, actors={})
    assert left(in_use(object_store_bytes=5), after) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"processes": {"ingress": 1, "worker": 2}}, "worker: 2 processes, 2 more than before"),
        ({"files": {"ingress": 21}}, "ingress: 21 files, 1 more than before"),
        ({"threads": {"ingress": 12}}, "ingress: 12 threads, 3 more than before"),
        ({"actors": {"Ingress": 2}}, "Ingress: 2 actors, 1 more than before"),
        ({"object_store_bytes": 9}, "9 bytes more than before are in the object store"),
    ],
)
def test_everything_that_is_left_is_named(changed: dict[str, object], said: str) -> None:
    assert left(in_use(), in_use(**changed)) == [said]


def test_the_leeway_is_for_files_and_threads_only() -> None:
    after = in_use(files={"ingress": 22}, threads={"ingress": 11}, actors={"Ingress": 2})
    assert left(in_use(), after, leeway=2) == ["Ingress: 2 actors, 1 more than before"]
