"""What the graph adds to the time of the models: HTTP, the job, transport, codecs."""

from dataclasses import dataclass
from statistics import median

from serve.client import Answer, Client, check_answer
from serve.http.examples import payload

MEASURED = ("wan2.6", "image-faceswap")
"""The endpoints of which the overhead is measured."""
SHARE = 0.02
SECONDS = 0.03
"""The overhead that is allowed: a share of the whole, or seconds, whichever is more."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """The time of a call, and the part of it that the models did not take: medians in seconds."""

    endpoint: str
    call_s: float
    graph_s: float

    @property
    def kept(self) -> bool:
        """Whether the overhead is within what is allowed."""
        return self.graph_s <= max(SECONDS, SHARE * self.call_s)

    def __str__(self) -> str:
        share = 100 * self.graph_s / self.call_s if self.call_s else 0.0
        bar = f"bar {100 * SHARE:g} % or {1000 * SECONDS:g} ms"
        return (
            f"{'kept' if self.kept else 'MISSED'}: /{self.endpoint}: {self.call_s:.3f} s a call, of which "
            f"{1000 * self.graph_s:.0f} ms ({share:.1f} %) are not the models' ({bar})"
        )


def overhead_of(endpoint: str, answers: list[Answer]) -> Overhead:
    """Return the overhead in answers to calls that were made one after the other."""
    graph = [answer.seconds - float(answer.headers["x-execution-time-sec"]) for answer in answers]
    return Overhead(endpoint=endpoint, call_s=median(answer.seconds for answer in answers), graph_s=median(graph))


def measure_overhead(client: Client, endpoint: str, rounds: int) -> Overhead:
    """Call an endpoint ``rounds`` times after a first call that warms up; raises CallFailed."""
    answers = []
    for number in range(rounds + 1):
        answer = client.call(endpoint, payload(endpoint))
        check_answer(endpoint, answer)
        if number:
            answers.append(answer)
    return overhead_of(endpoint, answers)
