"""The order in which queued jobs start: fair between callers, oldest first for each of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A job that has not ended, as far as turns are concerned.

    ``number`` grows with each job that is created; ``running`` says that its turn has come.
    """

    id: str
    caller: str
    slot: str
    number: int
    running: bool


def queue(jobs: Iterable[Waiting], *, served: Collection[str] = ()) -> list[Waiting]:
    """Return the queued ``jobs`` of one slot in the order in which they start.

    Callers take turns: each next job is the oldest of the caller that has the fewest jobs running
    or ahead in the queue; among equals, of a caller that is not in ``served``, because it has had
    no turn in this round; among equals again, of the caller whose oldest job is older. So a caller
    with a hundred jobs delays another caller's first one by at most one job.
    """
    running: Counter[str] = Counter()
    waiting: dict[str, list[Waiting]] = {}
    for job in sorted(jobs, key=lambda job: job.number):
        if job.running:
            running[job.caller] += 1
        else:
            waiting.setdefault(job.caller, []).append(job)
    # The n-th waiting job of a caller starts when the caller has had n more turns.
    ranked = [
        (running[caller] + place, caller in served, job.number, job)
        for caller, theirs in waiting.items()
        for place, job in enumerate(theirs)
    ]
    return [job for _, _, _, job in sorted(ranked, key=lambda entry: entry[:3])]


def startable(jobs: Sequence[Waiting], *, limit: int, max_running: int, served: Collection[str] = ()) -> list[Waiting]:
    """Return the queued ``jobs`` of one slot that may start now, in order.

    At most ``limit`` jobs run in the slot, and at most ``max_running`` of one caller.
    """
    running = Counter(job.caller for job in jobs if job.running)
    room = limit - running.total()
    chosen: list[Waiting] = []
    for job in queue(jobs, served=served):
        if len(chosen) >= room:
            break
        if running[job.caller] < max_running:
            running[job.caller] += 1
            chosen.append(job)
    return chosen


def served_after(served: Collection[str], started: Iterable[Waiting]) -> frozenset[str]:
    """Return who has had a turn in the round once ``started`` have begun, in their order.

    Without it a single place would go to the oldest job each time, since nothing runs when it is
    free: one caller's hundred jobs would all go first. The second turn of a caller begins a round.
    """
    after = frozenset(served)
    for job in started:
        after = frozenset({job.caller}) if job.caller in after else after | {job.caller}
    return after
