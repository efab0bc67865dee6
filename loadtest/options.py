"""The options of the load test besides those of Locust."""

from argparse import ArgumentParser, ArgumentTypeError

from loadtest.payloads import SIZES
from loadtest.stages import SHAPES
from loadtest.thresholds import Threshold


def add_options(parser: ArgumentParser) -> None:
    """Add the options of our own to Locust's."""
    parser.add_argument("--shape", choices=list(SHAPES), default="ramp", help="how the number of users changes")
    parser.add_argument(
        "--size", choices=list(SIZES), default="short", help="short requests for a CPU, or the examples in full"
    )
    parser.add_argument("--answers", type=int, default=0, help="end before the time is over, after so many answers")
    parser.add_argument("--report", default="", help="file of the HTML report with our own measures")
    parser.add_argument(
        "--threshold",
        action="append",
        type=_threshold,
        default=[],
        help="what must be kept, such as `seconds:image-faceswap:p95<=5` or `result:*:p99<=60`; repeatable",
    )


def _threshold(text: str) -> str:
    """Return a threshold that can be read, as text: Locust sends all options to its workers."""
    try:
        Threshold.parse(text)
    except ValueError as e:
        raise ArgumentTypeError(str(e)) from None
    return text
