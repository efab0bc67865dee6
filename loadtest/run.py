"""`make load`: two minutes of load against a fresh demo, and two reports.

First it calls an idle service, one call after the other, for what the graph adds to the time of the
models. Our own report, `test-output/load.html`, has the thresholds and the measures of videos and
jobs; Locust's, `test-output/load-requests.html`, has its charts of requests. The command fails if
the graph's time or a threshold is missed, and says in one line why a service did not start.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from loadtest.overhead import MEASURED, measure_overhead
from loadtest.stages import SHAPES
from serve.cli.console import print_error
from serve.cli.presets import find_preset
from serve.cli.service import running
from serve.client import CallFailed

OUTPUT = Path("test-output")
STOP_S = 60
"""Seconds that users have at the end to finish what they do."""
THRESHOLDS = ("retry_after:*:count<=0",)
"""What holds besides the thresholds of every run: these few users fill no queue."""


def locust_command(url: str, options: argparse.Namespace) -> list[str]:
    """Return the command that loads the service at ``url``."""
    locustfile = Path(__file__).with_name("locustfile.py")
    load = ["--headless", "--users", str(options.users), "--run-time", f"{options.seconds}s", "--shape", options.shape]
    report = ["--report", str(OUTPUT / "load.html"), "--html", str(OUTPUT / "load-requests.html")]
    table = ["--csv", str(OUTPUT / "load"), "--only-summary"]
    kept = [word for threshold in (*THRESHOLDS, *options.threshold) for word in ("--threshold", threshold)]
    start = [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", url, "--stop-timeout", str(STOP_S)]
    return [*start, *load, *report, *table, *kept]


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the demo, run Locust against it, and stop it.

    Return Locust's exit code, or 1 if Locust is content but the graph adds more than it may.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo", help="demo, single-gpu, production, or a Serve config file")
    parser.add_argument("--users", type=int, default=4, help="the most users at a time")
    parser.add_argument("--seconds", type=int, default=120, help="how long the load lasts")
    parser.add_argument("--shape", choices=list(SHAPES), default="ramp")
    parser.add_argument(
        "--rounds", type=int, default=5, help="calls by which the graph's overhead is measured; 0 leaves it out"
    )
    parser.add_argument(
        "--threshold", action="append", default=[], help="what must be kept as well; see loadtest/locustfile.py"
    )
    options = parser.parse_args(arguments)
    try:
        with running(find_preset(options.preset)) as client:
            overheads = [measure_overhead(client, endpoint, options.rounds) for endpoint in MEASURED if options.rounds]
            print(*overheads, sep="\n", flush=True)
            # Locust imports this package, from whatever folder the command was given in.
            root = str(Path(__file__).parents[1])
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
            limit_s = options.seconds + STOP_S + 120
            command = locust_command(client.url, options)
            code = subprocess.run(command, check=False, env=environment, timeout=limit_s).returncode
    except CallFailed as e:
        print_error(str(e))
        return 1
    except typer.Exit as e:  # it was said why
        return e.exit_code
    except subprocess.TimeoutExpired as e:
        print_error(f"Locust has not ended after {e.timeout:g} s")
        return 1
    missed = [overhead for overhead in overheads if not overhead.kept]
    for overhead in missed:
        print_error(str(overhead))
    return code or int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
