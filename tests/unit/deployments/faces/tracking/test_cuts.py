"""Scene cuts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.faces.tracking.cuts import CutFinder
from serve.media.samples import pan, portrait, stranger


def test_cuts_are_found_and_pans_noise_and_zooms_are_not_cuts() -> None:
    def cuts(frames: Sequence[Any]) -> list[int]:
        finder = CutFinder()
        return [i for i, frame in enumerate(frames) if finder.starts_scene(frame)]

    one, other = pan(stranger(), count=20, width=192, height=224), pan(portrait(), count=20, width=192, height=224)
    assert cuts([*one, *other, *one]) == [20, 40]
    rng = np.random.default_rng(1)
    noisy = [np.clip(frame + rng.normal(0, 25, frame.shape), 0, 255).astype(np.uint8) for frame in one]
    assert cuts(noisy) == []
    fast = [np.roll(one[0], 24 * i, axis=1) for i in range(8)]
    assert cuts(fast) == []
    assert cuts([np.full((3, 2, 3), 10 * i, np.uint8) for i in range(5)]) == []


def test_the_first_frame_and_repeated_frames_start_no_scene() -> None:
    finder = CutFinder()
    frame = portrait()
    assert [finder.starts_scene(frame) for _ in range(3)] == [False] * 3
    assert finder.starts_scene(np.ascontiguousarray(255 - frame))
