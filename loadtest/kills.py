"""`make kills`: each kind of process of a fresh demo is killed with SIGKILL, again and again.

After each kill a face swap with known pixels is asked for until it is answered. The service must
answer with these bytes within a minute, or `ryla serve` must have ended with an exit code other
than 0, so that its supervisor starts it again, as this command then does. While it recovers, a call
may fail with a problem, but no answer may have other bytes.
"""

import argparse
import contextlib
import hashlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
import psutil

from loadtest.processes import PROCESSES, running_processes
from serve.cli.console import print_error
from serve.cli.service import COMMAND, START_TIMEOUT_S
from serve.client import CallFailed, Client
from serve.http.examples import payload

ENDPOINT = "image-faceswap"
URL = "http://127.0.0.1:8000"
LIMIT_S = 60.0


@dataclass
class Outcome:
    """What the kills of one kind of process led to."""

    recovered_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    """Seconds after which `ryla serve` had ended with an exit code other than 0."""
    hung: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.recovered_s) + len(self.ended_s) + self.hung} kills"]
        for name, seconds in (("answered again", self.recovered_s), ("ended", self.ended_s)):
            if seconds:
                parts.append(f"{name} {len(seconds)} times after {min(seconds):.1f} to {max(seconds):.1f} s")
        return ", ".join([*parts, f"{self.hung} hung, {self.wrong} wrong answers"])


class Service:
    """A `ryla serve demo` that can be started again."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the service, wait until all models are ready, and return the bytes' digest."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, "demo"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        with Client(URL) as client:
            deadline = time.monotonic() + START_TIMEOUT_S
            while client.waiting_for() is not None:
                if self.exit_code() is not None or time.monotonic() > deadline:
                    raise CallFailed(f"the service did not start; see {self._log}")
                time.sleep(0.5)
        digest = ask()
        if digest is None:
            raise CallFailed(f"the service started but does not answer; see {self._log}")
        return digest

    def exit_code(self) -> int | None:
        """Return the exit code of the service if it has ended."""
        return None if self._process is None else self._process.poll()

    def find(self, kind: str) -> psutil.Process | None:
        """Return a running process of the service of this kind."""
        assert self._process is not None
        return next(iter(running_processes(kind, self._process.pid)), None)

    def stop(self) -> None:
        """Stop the service as a supervisor does."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ask() -> str | None:
    """Return the digest of the answer's pixels, or None if there is no answer.

    The bytes of a signed result are different each time.
    """
    with Client(URL, timeout_s=15) as client:
        try:
            data = client.call(ENDPOINT, payload(ENDPOINT)).data
        except CallFailed:
            return None
    with PIL.Image.open(io.BytesIO(data)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def watch_recovery(service: Service, kind: str, expected: str, outcome: Outcome) -> None:
    """Ask until the service has recovered or ended, or the limit is reached; note which it was.

    It has recovered once it answers while a process of the killed kind runs again.
    """
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < LIMIT_S:
        if (code := service.exit_code()) is not None:
            (outcome.ended_s if code != 0 else outcome.recovered_s).append(passed)
            outcome.wrong += code == 0  # an exit code of 0 tells a supervisor not to start it again
            return
        digest = ask()
        outcome.wrong += digest not in (None, expected)
        if digest is not None and service.find(kind) is not None:
            outcome.recovered_s.append(time.monotonic() - begun)
            return
        time.sleep(0.2)
    outcome.hung += 1


def kill_all(service: Service, rounds: int, kinds: list[str]) -> Iterator[tuple[str, Outcome]]:
    """Kill each of ``kinds`` ``rounds`` times."""
    expected = service.start()
    for kind in kinds:
        outcome = Outcome()
        for _ in range(rounds):
            process = service.find(kind)
            if process is None:
                raise CallFailed(f"no process of the kind {kind} runs")
            process.send_signal(signal.SIGKILL)
            # A raylet stays a zombie of its parent.
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(2)
            watch_recovery(service, kind, expected, outcome)
            if service.exit_code() is not None or outcome.hung:
                service.stop()
                expected = service.start()
            else:
                time.sleep(5)  # lets the controller replace what died before the next kill
        yield kind, outcome


def main() -> int:
    """Kill, print a line for each kind, and return 0 if nothing hung and no pixels were wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="kills of each kind")
    parser.add_argument("--kinds", nargs="*", choices=list(PROCESSES), default=list(PROCESSES))
    options = parser.parse_args()
    log = Path("test-output/kills.log")
    log.parent.mkdir(exist_ok=True)
    service = Service(log)
    bad = 0
    try:
        for kind, outcome in kill_all(service, options.rounds, options.kinds):
            print(f"{kind}: {outcome}", flush=True)
            bad += outcome.hung + outcome.wrong
    except CallFailed as e:
        print_error(str(e))
        return 1
    finally:
        service.stop()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
