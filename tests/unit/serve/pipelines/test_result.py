"""The result of a pipeline."""

import dataclasses

from serve.pipelines.result import Result, SwapTally


def test_a_tally_begins_with_nothing_counted_and_no_restorer() -> None:
    assert dataclasses.asdict(SwapTally()) == {
        "frames": 0,
        "swapped": 0,
        "most_faces": 0,
        "uncertain": 0,
        "engine": "",
        "restorer": "none",
    }


def test_a_result_is_that_of_a_first_attempt_without_video_or_swap() -> None:
    result = Result(b"jpeg", "image/jpeg", 1)
    assert (result.fps, result.seed, result.swap, result.attempts) == (None, None, None, 1)
