import math

import pytest

from serve.provenance.watermark.bound import rate_of
from serve.provenance.watermark.payload import PAYLOAD_BITS


def test_the_bound_covers_the_normal_tail_of_all_payloads_and_tries() -> None:
    tail = math.erfc(9 / math.sqrt(2)) / 2
    assert rate_of(9, 1) >= 2**PAYLOAD_BITS * tail
    assert rate_of(9, 50) == pytest.approx(50 * rate_of(9, 1))


def test_a_better_match_has_a_lower_bound() -> None:
    assert rate_of(10, 1) < rate_of(9, 1) < rate_of(0, 1)
