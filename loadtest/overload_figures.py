"""The figures of an overload, from what became of each request, and the bars for them."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from loadtest.open_loop import Outcome

PEAK_SHARE = 0.9
"""The share of the largest goodput that must be left under any overload."""
AT_ONCE_S = 1.0
"""Seconds within which 95 % of the refusals must come."""
DISHONEST_S = 2.0
"""Seconds by which a Retry-After may be wrong, besides its own length."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of the values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered) - 1e-9)) - 1] if ordered else 0.0


def capacity(outcomes: Sequence[Outcome]) -> float:
    """Return the results a second of callers who wait for their answers."""
    accepted = [outcome for outcome in outcomes if outcome.accepted]
    if not accepted:
        return 0.0
    return len(accepted) / (max(o.ended for o in accepted) - min(o.begun for o in outcomes))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The figures of one phase, in which ``factor`` times the capacity was asked for."""

    factor: float
    sent: int
    accepted: int
    refused: int
    errors: int
    goodput: float
    """Results a second that came while requests were sent."""
    latency_s: tuple[float, float, float]
    """p50, p95 and p99 of the accepted requests, and so of their wait in the queue."""
    refusal_p95_s: float
    said_s: float
    """The median of what refusals said about when to come back."""
    dishonest: int
    """Refusals whose Retry-After was wrong: long before or after there was room."""
    drain_s: float
    """How long the last accepted request was answered after the last one was sent."""
    error_texts: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the figures as lines."""
        p50, p95, p99 = self.latency_s
        return [
            f"{self.factor:g} times capacity: {self.sent} sent, {self.accepted} accepted, {self.refused} refused, "
            f"{self.errors} failed; goodput {self.goodput:.2f}/s",
            f"  accepted: p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s; refusals: p95 {self.refusal_p95_s:.3f} s, "
            f"Retry-After {self.said_s:g} s (median), {self.dishonest} of them wrong; queue empty after {self.drain_s:.1f} s",
            *(f"  error: {text}" for text in self.error_texts),
        ]


def phase_of(outcomes: Sequence[Outcome], *, factor: float, seconds: float) -> Phase:
    """Return the figures of ``outcomes``, whose requests began within ``seconds``."""
    begun = min((o.begun for o in outcomes), default=0.0)
    accepted = [o for o in outcomes if o.accepted]
    refused = [o for o in outcomes if o.refused]
    faulty = [o for o in outcomes if o.error]
    in_time = sum(o.ended <= begun + seconds for o in accepted)
    latencies = [o.seconds for o in accepted]
    said = [o.retry_after_s for o in refused if o.retry_after_s is not None]
    return Phase(
        factor=factor,
        sent=len(outcomes),
        accepted=len(accepted),
        refused=len(refused),
        errors=len(faulty),
        goodput=in_time / seconds,
        latency_s=(percentile(latencies, 0.5), percentile(latencies, 0.95), percentile(latencies, 0.99)),
        refusal_p95_s=percentile([o.seconds for o in refused], 0.95),
        said_s=median(said) if said else 0.0,
        dishonest=len(dishonest(outcomes)),
        drain_s=max(0.0, max((o.ended for o in accepted), default=0.0) - max((o.begun for o in outcomes), default=0.0)),
        error_texts=tuple(sorted({o.error for o in faulty}))[:5],
    )


def dishonest(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the refusals whose Retry-After was wrong.

    There was room when the next request was accepted that began after the refusal. A whole number
    of seconds cannot say less than 1, and a guess may be off by its own length: beyond both it is
    wrong. Refusals after which nobody was accepted are not judged.
    """
    starts = sorted(o.begun for o in outcomes if o.accepted)
    wrong = []
    for outcome in outcomes:
        if not outcome.refused or outcome.retry_after_s is None:
            continue
        place = bisect_left(starts, outcome.ended)
        if place == len(starts):
            continue
        room_s = starts[place] - outcome.ended
        if abs(outcome.retry_after_s - room_s) > max(DISHONEST_S, min(outcome.retry_after_s, room_s)):
            wrong.append(outcome)
    return wrong


def recovery_s(outcomes: Sequence[Outcome], *, ended: float, usual_s: float) -> float | None:
    """Return how long after ``ended`` the first request began that was as quick as usual.

    Requests were sent one after the other. None if there was none, and all later ones count: one
    quick answer between slow ones is not a recovery.
    """
    slow = [o for o in outcomes if not o.accepted or o.seconds > usual_s]
    after = max((o.ended for o in slow), default=ended)
    quick = [o for o in outcomes if o.accepted and o.seconds <= usual_s and o.begun >= after]
    return None if not quick else max(0.0, min(o.begun for o in quick) - ended)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """What a run must keep. ``bound_s`` is how long a full queue takes, with slack."""

    bound_s: float
    recovery_s: float = 10.0
    beside: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Overload:
    """All figures of a run. ``recovered_s`` is None if the service did not recover in time.

    ``alone_s`` and ``beside_s`` are the times of short swaps without and with long videos and films
    beside them; both are empty if that was left out.
    """

    phases: Sequence[Phase]
    recovered_s: float | None
    alone_s: Sequence[float] = field(default_factory=tuple)
    beside_s: Sequence[float] = field(default_factory=tuple)

    def slowdown(self) -> float | None:
        """Return how many times longer a short swap takes beside long work, by the median."""
        if not self.alone_s or not self.beside_s:
            return None
        return median(self.beside_s) / median(self.alone_s)

    def misses(self, bars: Bars) -> list[str]:
        """Return a sentence for each bar that was missed."""
        found = []
        peak = max((phase.goodput for phase in self.phases), default=0.0)
        for phase in self.phases:
            at = f"at {phase.factor:g} times capacity"
            if phase.goodput < PEAK_SHARE * peak:
                found.append(f"{at} the goodput is {phase.goodput:.2f}/s, less than {PEAK_SHARE:.0%} of the peak {peak:.2f}/s")
            if phase.latency_s[2] > bars.bound_s:
                found.append(f"{at} 1 % of the accepted requests take {phase.latency_s[2]:.1f} s (bar {bars.bound_s:.1f})")
            if phase.refusal_p95_s > AT_ONCE_S:
                found.append(f"{at} 5 % of the refusals take {phase.refusal_p95_s:.2f} s (bar {AT_ONCE_S:g})")
            if phase.errors:
                found.append(f"{at} {phase.errors} requests failed: {'; '.join(phase.error_texts)}")
            if phase.dishonest > 0.05 * phase.refused:
                found.append(f"{at} the Retry-After of {phase.dishonest} of {phase.refused} refusals was wrong")
        if self.recovered_s is None:
            found.append("the service was not as quick as before until the program gave up")
        elif self.recovered_s > bars.recovery_s:
            found.append(f"the service was as quick as before after {self.recovered_s:.1f} s (bar {bars.recovery_s:g})")
        slowdown = self.slowdown()
        if slowdown is not None and slowdown > bars.beside:
            found.append(f"short swaps take {slowdown:.1f} times as long beside long work (bar {bars.beside:g})")
        return found
