"""Run a minute of load against a fresh demo, and write an HTML report (`make load`)."""

import subprocess
import sys
from pathlib import Path

from serve.cli.console import print_error
from serve.cli.presets import find_preset
from serve.cli.service import running
from serve.client import CallFailed

OUTPUT = Path("test-output")


def main() -> int:
    """Start the demo, run Locust against it, stop it, and return Locust's exit code."""
    locustfile = Path(__file__).with_name("locustfile.py")
    options = ["--headless", "--users", "4", "--spawn-rate", "1", "--run-time", "60s", "--stop-timeout", "60"]
    report = ["--html", str(OUTPUT / "load.html"), "--csv", str(OUTPUT / "load"), "--only-summary"]
    try:
        with running(find_preset("demo")) as client:
            command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", client.url, *options, *report]
            return subprocess.run(command, check=False).returncode
    except CallFailed as e:
        print_error(str(e))
        return 1


if __name__ == "__main__":
    sys.exit(main())
