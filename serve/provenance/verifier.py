"""Verifies files within budgets: what marks they carry, and whether these are valid."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serve.media.errors import MediaError
from serve.media.spool import Media, descriptor_of
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied
from serve.provenance.certificates import CertificateRefused, load_trust_anchors
from serve.provenance.signing import WORKER

logger = logging.getLogger("ray.serve")

WALL_PER_CPU = 3
"""Seconds of time for each second of CPU time, after which a file is given up."""


class Verifier:
    """Reads the marks of files in processes, as many at a time as there are calls.

    ``trust_anchors`` is a file of root certificates, which is read for each file, so that it can be
    replaced; while it cannot be read, the last ones count. Watermarks of ``secrets`` are looked for
    in frames of at most ``max_pixels``. Raises ``CertificateRefused`` for anchors that cannot be
    read at the start.
    """

    def __init__(
        self,
        *,
        max_cpu_s: float,
        max_memory_bytes: int,
        max_pixels: int,
        trust_anchors: Path | None = None,
        secrets: Sequence[bytes] = (),
    ) -> None:
        self._watermark = {"secrets": [secret.hex() for secret in secrets], "max_pixels": max_pixels}
        self._max_cpu_s = max_cpu_s
        self._max_memory_bytes = max_memory_bytes
        self._trust_anchors = trust_anchors
        self._anchors = None if trust_anchors is None else load_trust_anchors(trust_anchors)
        self._pool = WorkerPool(1, WORKER)

    async def verify(self, media: Media) -> dict[str, Any]:
        """Return the report on a file; raise ``MediaError`` for one that exceeds its budget."""
        return await self._read(media)

    async def _read(self, media: Media) -> dict[str, Any]:
        anchors = await asyncio.to_thread(self._current_anchors)
        try:
            async with asyncio.timeout(WALL_PER_CPU * self._max_cpu_s), self._pool.lease() as worker:
                with ExitStack() as files:
                    _, content = await worker.ask(
                        "read",
                        cpu_s=self._max_cpu_s,
                        memory_bytes=self._max_memory_bytes,
                        file=files.enter_context(descriptor_of(media)),
                        watermark=self._watermark,
                        others=[] if anchors is None else [files.enter_context(descriptor_of(anchors.encode()))],
                    )
        except WorkerDied as died:
            raise MediaError(f"the file cannot be read ({died}); save it again in an ordinary format") from None
        except TimeoutError:
            raise MediaError("the file takes too long to read; send a smaller one") from None
        if content is None:
            raise RuntimeError("a process has read a file and said nothing")
        report: dict[str, Any] = json.loads(content.tobytes())
        return report

    def _current_anchors(self) -> str | None:
        if self._trust_anchors is not None:
            try:
                self._anchors = load_trust_anchors(self._trust_anchors)
            except CertificateRefused as refused:
                logger.warning("%s; those that were read before count", refused)
        return self._anchors

    def close(self) -> None:
        """End the processes."""
        self._pool.close()
