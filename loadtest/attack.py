"""`make attack`: honest callers beside all kinds of attack on a demo, for ten minutes at most.

Some attacks have a valid key, and the honest callers have another. Four of these swap a face in a
picture: alone, while the attacks run, and while another caller keeps as many valid requests in
progress as it may, of every endpoint. The command fails if an honest call fails, if their 95th
percentile under attack is more than twice as long as undisturbed, or if the proxy or the ingress
grows by more than 500 MiB. How long it is beside the greedy caller is printed: that caller's work
is valid, and takes the same cores.
"""

import argparse
import contextlib
import hashlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from loadtest.attacks import ATTACKS, KEY, MIB, Address, Attack, Tally
from loadtest.body_attacks import BODY_ATTACKS, greedy_caller
from loadtest.connection_attacks import CONNECTION_ATTACKS
from loadtest.processes import running_processes
from serve.cli.console import print_error
from serve.cli.presets import find_preset
from serve.cli.service import running
from serve.client import CallFailed, Client
from serve.http.examples import payload

CALLERS = 4
ENDPOINT = "image-faceswap"
MAX_SECONDS = 480
SLOWDOWN = 2.0
GROWTH_MIB = 500
HONEST_KEY = "the key of the honest callers"
ALL_ATTACKS = {**ATTACKS, **CONNECTION_ATTACKS, **BODY_ATTACKS}
WATCHED = ("proxy", "ingress")
"""The processes whose memory is watched."""


@dataclass
class Calls:
    """The calls of the honest callers."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def p95(self) -> float:
        """Return the 95th percentile of the seconds."""
        return statistics.quantiles(self.seconds, n=20)[-1]


class Memory(threading.Thread):
    """Watches the memory of the proxy and of the ingress."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.idle = self.read()
        self.most = dict(self.idle)
        self.done = threading.Event()

    def read(self) -> dict[str, int]:
        """Return the resident bytes by the names of ``WATCHED``."""
        found = dict.fromkeys(WATCHED, 0)
        for name in WATCHED:
            for process in running_processes(name):
                with contextlib.suppress(psutil.Error):  # it may end in between
                    found[name] = max(found[name], process.memory_info().rss)
        return found

    def run(self) -> None:
        """Note the largest values until ``done``."""
        while not self.done.wait(0.2):
            self.most = {name: max(self.most[name], now) for name, now in self.read().items()}


def call_for(seconds: float, url: str, calls: Calls) -> None:
    """Call the endpoint again and again."""
    deadline = time.monotonic() + seconds
    with Client(url, key=HONEST_KEY) as client:
        while time.monotonic() < deadline:
            begun = time.perf_counter()
            try:
                client.call(ENDPOINT, payload(ENDPOINT))
                calls.seconds.append(time.perf_counter() - begun)
            except CallFailed as e:
                calls.failures.append(str(e))


def run_together(works: list[Callable[[], None]]) -> None:
    """Run all ``works`` in threads, and wait for them."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def honest(seconds: float, url: str) -> Calls:
    """Return what the honest callers see in ``seconds``."""
    calls = Calls()
    run_together([lambda: call_for(seconds, url, calls)] * CALLERS)
    return calls


def attack(client: Client, seconds: float) -> bool:
    """Run the comparison, print it, and return whether all bars are met."""
    parts = urlsplit(client.url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    honest(min(10, seconds), client.url)  # warms up
    alone = honest(seconds / 3, client.url)
    memory = Memory()
    memory.start()
    attacked = beside(ALL_ATTACKS, address, seconds, client.url)
    memory.done.set()
    growth = {name: (memory.most[name] - memory.idle[name]) / MIB for name in WATCHED}
    for name, grown in growth.items():
        print(f"{name}: {memory.idle[name] / MIB:.0f} MiB idle, at most {grown:+.0f} MiB under attack (bar {GROWTH_MIB})")
    crowded = beside({"greedy caller": greedy_caller}, address, seconds / 3, client.url)
    print(f"honest calls undisturbed: {len(alone.seconds)}, p95 {1000 * alone.p95():.0f} ms, {len(alone.failures)} failed")
    met = [
        judged("under attack", attacked, alone, bar=SLOWDOWN),
        judged("beside the greedy caller", crowded, alone, bar=None),
    ]
    return all(met) and all(grown <= GROWTH_MIB for grown in growth.values())


def beside(attacks: Mapping[str, Attack], address: Address, seconds: float, url: str) -> Calls:
    """Run attacks beside the honest callers, print their answers, and return the honest calls."""
    stop = threading.Event()
    tallies = {name: Tally() for name in attacks}
    threads = [
        threading.Thread(target=run, args=(address, stop, tallies[name]), name=name, daemon=True)
        for name, run in attacks.items()
    ]
    for thread in threads:
        thread.start()
    calls = honest(seconds, url)
    stop.set()
    for thread in threads:
        thread.join(60)
    for name, tally in tallies.items():
        print(f"{name}: {tally.rounds} rounds, answers {dict(sorted(tally.answers.items()))}")
    return calls


def judged(when: str, calls: Calls, alone: Calls, *, bar: float | None) -> bool:
    """Print how the honest calls went, and return whether none failed and the bar is met."""
    ratio = calls.p95() / alone.p95()
    limit = "" if bar is None else f" (bar {bar:g})"
    print(
        f"honest calls {when}: {len(calls.seconds)}, p95 {1000 * calls.p95():.0f} ms, {ratio:.2f} times{limit}, "
        f"{len(calls.failures)} failed {sorted(set(calls.failures))[:3]}"
    )
    return (bar is None or ratio <= bar) and not calls.failures


def demo_with_keys(folder: Path) -> Path:
    """Write the demo's config with a key for the honest callers and one for the attacks."""
    keys = folder / "keys"
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in (("honest", HONEST_KEY), ("hostile", KEY))}
    keys.write_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()))
    config: dict[str, Any] = yaml.safe_load(find_preset("demo").read_text())
    settings = config["applications"][0]["args"]
    settings["ingress"] = {**settings.get("ingress", {}), "api_keys": str(keys)}
    path = folder / "attack.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def main() -> int:
    """Attack a fresh demo, and return 0 if all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240, help="how long the attacks last")
    seconds = min(parser.parse_args().seconds, MAX_SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder, running(demo_with_keys(Path(folder))) as client:
            return 0 if attack(client, seconds) else 1
    except CallFailed as e:
        print_error(str(e))
        return 1


if __name__ == "__main__":
    sys.exit(main())
