"""How probable it is that frames without a watermark seem to have one."""

import math

from serve.provenance.watermark.payload import PAYLOAD_BITS

_BENTKUS = 3.18


def rate_of(match: float, tries: float) -> float:
    """Return a bound on the probability of a match as good by chance, in any of ``tries`` places.

    For whatever frames, a match is a weighted sum of independent random signs, with weights of norm
    1: those of the secret. Its tail is at most 3.18 times that of the normal distribution (Bentkus
    and Dzindzalieta, *A tight Gaussian bound for weighted sums of Rademacher random variables*,
    2015), and there are as many sums as tries and payloads.
    """
    return tries * 2.0**PAYLOAD_BITS * _BENTKUS * math.erfc(match / math.sqrt(2)) / 2
