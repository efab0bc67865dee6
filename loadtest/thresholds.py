"""The thresholds that a load test must keep, such as `seconds:image-faceswap:p95<=5`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loadtest.measures import MEASURES, STATISTICS, Measures, statistic

ERRORS = "errors"
"""The subject of a threshold for the number of unexpected errors."""
_FORM = re.compile(r"(?:(?P<measure>\w+):(?P<endpoint>[\w.*-]+):(?P<statistic>\w+)|errors)(?P<sign><=|>=)(?P<limit>[0-9.e+-]+)")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """One threshold: a statistic of a measure, or the number of errors, against a limit."""

    subject: str
    at_most: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the threshold that ``text`` describes; raise ValueError with the remedy."""
        found = _FORM.fullmatch(text.replace(" ", ""))
        if found is None:
            raise ValueError(f"`{text}` must have the form MEASURE:ENDPOINT:STATISTIC<=LIMIT, or errors<=LIMIT")
        if found["measure"] is not None:
            if found["measure"] not in MEASURES:
                raise ValueError(f"`{text}`: unknown measure `{found['measure']}`; there are {', '.join(MEASURES)}")
            if found["statistic"] not in STATISTICS:
                raise ValueError(f"`{text}`: unknown statistic `{found['statistic']}`; there are {', '.join(STATISTICS)}")
        try:
            limit = float(found["limit"])
        except ValueError:
            raise ValueError(f"`{text}`: `{found['limit']}` is not a number") from None
        subject = text.replace(" ", "").split("<=")[0].split(">=")[0]
        return cls(subject=subject, at_most=found["sign"] == "<=", limit=limit)

    def value(self, measures: Measures) -> float | None:
        """Return the value that is compared; None if it was never measured."""
        if self.subject == ERRORS:
            return float(measures.error_count)
        measure, endpoint, name = self.subject.split(":")
        values = measures.of(measure, endpoint)
        return statistic(values, name) if values.count or name == "count" else None

    def __str__(self) -> str:
        return f"{self.subject} {'<=' if self.at_most else '>='} {self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """Whether a threshold was kept. What was never measured keeps none."""

    threshold: Threshold
    value: float | None

    @property
    def kept(self) -> bool:
        """Whether the threshold was kept."""
        if self.value is None:
            return False
        return self.value <= self.threshold.limit if self.threshold.at_most else self.value >= self.threshold.limit

    def __str__(self) -> str:
        measured = "never measured" if self.value is None else f"{self.value:.4g}"
        return f"{'kept' if self.kept else 'MISSED'}: {self.threshold}: {measured}"


def judge(thresholds: Sequence[Threshold], measures: Measures) -> list[Verdict]:
    """Return a verdict for each threshold, in their order."""
    return [Verdict(threshold, threshold.value(measures)) for threshold in thresholds]
