"""The service's own metrics in Prometheus' text format, as the agents of Ray's nodes have them.

Each process of the service hands its metrics to the agent of its node. So every ingress replica can
answer for all replicas of all deployments, and nothing is counted twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import ray

from serve.telemetry.metrics import METRICS

logger = logging.getLogger("ray.serve")

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_AGE_S = 1.0
"""Seconds for which what was read is used again."""
TIMEOUT_S = 5.0
"""Seconds within which the nodes must be known, and then each agent must answer."""
MAX_BYTES = 32 * 2**20
"""The most that is read of one agent, which also has the metrics of Ray itself."""

_NAMES = frozenset(metric.exported for metric in METRICS)


class MetricsUnreadable(Exception):
    """No agent can be reached."""


def agents() -> list[str]:
    """Return the URL of the metrics of each node that is alive, as Ray's head knows them."""
    return [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in ray.nodes() if node["Alive"]]


class Exposition:
    """Reads the metrics from all agents, at most once every ``MAX_AGE_S``, however many ask."""

    def __init__(self, agents: Callable[[], Sequence[str]] = agents) -> None:
        self._agents = agents
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._asking: asyncio.Future[Sequence[str]] | None = None
        self._reading: asyncio.Future[str] | None = None
        self._read_at = float("-inf")

    async def text(self) -> str:
        """Return the metrics; raise MetricsUnreadable if no agent answers.

        A node that does not answer is named in a comment.
        """
        if self._reading is None or (self._reading.done() and time.monotonic() - self._read_at > MAX_AGE_S):
            self._reading = asyncio.ensure_future(self._read())
        return await asyncio.shield(self._reading)

    async def _read(self) -> str:
        if self._asking is None or self._asking.done():
            # Ray's head may be away, and then the thread waits longer than this does.
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._agents)
        try:
            urls = await asyncio.wait_for(asyncio.shield(self._asking), TIMEOUT_S)
        except Exception as error:  # Ray has no common class of what it raises without its head
            raise MetricsUnreadable(f"the nodes are unknown: {error!r}") from error
        finally:
            self._read_at = time.monotonic()
        # The agents speak plain HTTP, for which no certificates need to be read.
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=False) as client:
            answers = await asyncio.gather(*(self._ask(client, url) for url in urls))
        self._read_at = time.monotonic()
        if not any(answer is not None for answer in answers):
            raise MetricsUnreadable("no agent of Ray's nodes answers")
        silent = [f"# {url} does not answer\n" for url, answer in zip(urls, answers, strict=True) if answer is None]
        return merge([answer for answer in answers if answer is not None]) + "".join(silent)

    @staticmethod
    async def _ask(client: httpx.AsyncClient, url: str) -> str | None:
        data = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_S), client.stream("GET", url) as response:
                response.raise_for_status()
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > MAX_BYTES:
                        raise ValueError(f"over {MAX_BYTES} bytes")
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            logger.warning("the metrics of a node cannot be read: %s: %r", url, error)
            return None
        return data.decode()


def merge(texts: Sequence[str]) -> str:
    """Return the service's own metrics of several expositions as one, each family once."""
    families: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                if name in _NAMES and line not in families.setdefault(name, []):
                    families[name].append(line)
            elif line and not line.startswith("#") and name in _NAMES:
                families[name].append(line)
    return "".join(f"{line}\n" for name in sorted(families) for line in families[name])
