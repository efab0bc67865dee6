from fractions import Fraction
from typing import Any

import pytest

from serve.config import Hardware
from serve.jobs.results.headers import EXPOSED_HEADERS, JOB_HEADERS, RESULT_HEADERS, Answer, result_headers
from serve.pipelines.meter import Meter
from serve.pipelines.result import Result, SwapTally

SWAP = SwapTally(frames=9, swapped=7, most_faces=2, engine="inswapper", restorer="gfpgan")
IMAGE = Result(b"", "image/png", 1)
VIDEO = Result(b"", "video/mp4", 9, fps=Fraction(16), seed=0)


def values(result: Result, *, ignored: tuple[str, ...] = (), **meter: Any) -> dict[str, str]:
    """Return the headers of a result that are not left out."""
    hardware = {"wan26": Hardware(price_usd_per_hour=3600, num_gpus=1), "face-swapper": Hardware(price_usd_per_hour=36)}
    answer = Answer(
        result=result,
        endpoint="the-endpoint",
        meter=Meter(hardware, **meter),
        ignored_fields=ignored,
        request_id="the-id",
    )
    return result_headers(answer)


def test_an_image_has_neither_rate_nor_seed_nor_swap() -> None:
    assert values(IMAGE) == {
        "X-Model": "the-endpoint",
        "X-Frames": "1",
        "X-GPU-Type": "GPU",
        "X-Execution-Time-Sec": "0.000",
        "X-Cost-USD": "0.000000",
        "X-Provenance": "none",
        "Server-Timing": "",
        "Content-Disposition": 'inline; filename="the-endpoint-the-id.png"',
    }


def test_a_video_says_how_it_was_made() -> None:
    headers = values(
        VIDEO,
        seconds={"wan26": 2.0, "face-swapper": 1.5},
        phases={"swap": 0.0123, "queue": 1},
        acceleration="cache; reused=3/9",
    )
    assert headers["X-Seed"] == "0"
    assert headers["X-Execution-Time-Sec"] == "3.500"
    assert headers["X-Cost-USD"] == "2.015000"
    assert headers["X-Acceleration"] == "cache; reused=3/9"
    assert headers["Server-Timing"] == "queue;dur=1000.0, swap;dur=12.3"


def test_a_swap_counts_its_frames() -> None:
    headers = values(Result(b"", "video/mp4", 9, fps=Fraction(16), swap=SWAP))
    assert {name: value for name, value in headers.items() if "Face" in name or "Frame-" in name or "Swapped" in name} == {
        "X-Frame-Count": "9",
        "X-Frames-Swapped": "7",
        "X-Faces-Found": "2",
        "X-Faces-Uncertain": "0",
        "X-Face-Engine": "inswapper",
        "X-Face-Restorer": "gfpgan",
    }
    assert "X-Seed" not in headers


@pytest.mark.parametrize(
    ("fps", "text"),
    [(Fraction(16), "16"), (Fraction(25, 2), "12.5"), (Fraction(30000, 1001), "29.97"), (Fraction(1, 3), "0.333333")],
)
def test_the_rate_has_six_digits(fps: Fraction, text: str) -> None:
    assert values(Result(b"", "video/mp4", 9, fps=fps))["X-FPS"] == text


@pytest.mark.parametrize(("attempts", "text"), [(1, None), (2, "2")])
def test_attempts_are_only_said_if_there_were_several(attempts: int, text: str | None) -> None:
    assert values(Result(b"", "video/mp4", 9, attempts=attempts)).get("X-Attempts") == text


@pytest.mark.parametrize("odd", ["caf\u00e9", "\u6c34\u5f69", "\U0001f600", "a\r\nX-Evil: 1", "tab\t", "\x7f\x00", "\ud800"])
def test_no_text_of_a_setting_a_file_or_a_caller_breaks_a_header(odd: str) -> None:
    hardware = {"wan26": Hardware(gpu_type=odd, num_gpus=1)}
    meter = Meter(hardware, seconds={"wan26": 1.0}, acceleration=odd)
    meter.loras = f"{odd}=1"
    swap = SwapTally(frames=9, swapped=7, most_faces=2, engine=odd, restorer=odd)
    result = Result(b"", "video/mp4", 9, fps=Fraction(16), swap=swap, adjusted=((odd, 1),), marks=(odd,))
    headers = result_headers(Answer(result=result, endpoint=odd, meter=meter, ignored_fields=(odd,), request_id=odd))
    holding = {"X-Model", "X-GPU-Type", "X-Face-Engine", "X-Face-Restorer", "X-Ignored-Fields", "X-Acceleration", "X-Loras"}
    assert holding | {"X-Adjusted", "X-Provenance", "Content-Disposition"} <= headers.keys()
    for name, value in headers.items():
        assert value.isascii(), name
        assert value.isprintable(), name


def test_ignored_fields_are_fit_for_a_header() -> None:
    assert values(VIDEO, ignored=("sampler", "scheduler"))["X-Ignored-Fields"] == "sampler, scheduler"
    odd = ("a,b", "caf\u00e9", "line\r\nX-Evil: 1", "x" * 500)
    assert values(VIDEO, ignored=odd)["X-Ignored-Fields"] == f"a?b, caf?, line??X-Evil: 1, {'x' * 100}"
    many = values(VIDEO, ignored=tuple(f"field{i}" for i in range(1000)))["X-Ignored-Fields"]
    assert many.split(", ") == [f"field{i}" for i in range(50)]


def test_pages_may_read_every_result_header() -> None:
    names = [header.name for header in RESULT_HEADERS]
    assert len(set(names)) == len(names)
    assert set(EXPOSED_HEADERS) == {*names, "X-Request-Id", *JOB_HEADERS}
    assert {"ETag", "Location", "RateLimit", "Retry-After"} <= set(JOB_HEADERS)


@pytest.mark.parametrize(("damaged", "text"), [(0, None), (3, "3")])
def test_damaged_frames_are_only_said_if_there_were_any(damaged: int, text: str | None) -> None:
    assert values(Result(b"", "video/mp4", 90, damaged=damaged)).get("X-Frames-Damaged") == text
