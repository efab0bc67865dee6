"""A distribution in little memory, which can be sent to another process and added to others."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

GROWTH = 1.02
"""How much wider each bucket is than the one below, and so the relative error of a quantile."""
SMALLEST = 1e-9
"""The lower end of the first bucket. Smaller values, 0 among them, are counted there."""


@dataclass
class Histogram:
    """Counts of values that are not negative, in buckets whose bounds grow by ``GROWTH``."""

    counts: Counter[int] = field(default_factory=Counter)
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0

    def add(self, value: float) -> None:
        """Count a value. Raises ValueError for one that is negative or not finite."""
        if not 0 <= value < math.inf:
            raise ValueError(f"a histogram takes no {value}")
        self.counts[_bucket(value)] += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def count(self) -> int:
        """The number of values."""
        return self.counts.total()

    @property
    def mean(self) -> float:
        """The mean of the values; 0 if there are none."""
        return self.total / self.count if self.counts else 0.0

    def quantile(self, share: float) -> float:
        """Return the smallest value that ``share`` of the values do not exceed, within 2 %.

        Raises ValueError if there are no values, or if ``share`` is not from 0 to 1.
        """
        if not self.counts or not 0 <= share <= 1:
            raise ValueError(f"there is no {share:g} quantile of {self.count} values")
        rank = max(1, math.ceil(share * self.count - 1e-9))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                break
        return min(max(SMALLEST * GROWTH**bucket, self.least), self.most)

    def merge(self, other: "Histogram") -> None:
        """Count the values of ``other`` as well."""
        self.counts += other.counts
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def to_json(self) -> dict[str, Any]:
        """Return the histogram as JSON can hold it."""
        counts = {str(bucket): count for bucket, count in self.counts.items()}
        return {"counts": counts, "total": self.total, "least": self.least if self.counts else None, "most": self.most}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the histogram that ``to_json`` wrote."""
        counts = Counter({int(bucket): int(count) for bucket, count in raw["counts"].items()})
        least = math.inf if raw["least"] is None else float(raw["least"])
        return cls(counts=counts, total=float(raw["total"]), least=least, most=float(raw["most"]))


def _bucket(value: float) -> int:
    return 0 if value <= SMALLEST else math.ceil(math.log(value / SMALLEST) / math.log(GROWTH))
