"""Published matrices and curves of colour spaces."""

import numpy as np

P3, BT2020 = 12, 9
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
FROM_XYZ = {
    P3: np.array([[2.4934969, -0.9313836, -0.4027108], [-0.8294890, 1.7626641, 0.0236247], [0.0358458, -0.0761724, 0.9568845]]),
    BT2020: np.array(
        [[1.7166512, -0.3556708, -0.2533663], [-0.6666844, 1.6164812, 0.0157685], [0.0176399, -0.0427706, 0.9421031]]
    ),
}
"""Published matrices, not those that the code computes from chromaticities."""


def pq(nits: np.ndarray) -> np.ndarray:
    """Return the values by which PQ codes these luminances."""
    power = (nits / 10_000) ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))
