"""`python -m benchmarks.transport`: the cost of moving a frame from one replica to another.

It compares chunks of 4 frames through a deployment handle with credits, which is what this service
does, with what the replaced apps did: each frame as WebP in base64 in JSON, sent by POST from one
local server to another and decoded there. Single frames through a handle are measured too. Frames
are a photograph of 832x480.
"""

import asyncio
import base64
import io
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import PIL.Image
import ray
import uvicorn
from ray import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from deployments.flow_control import ConsumerEnd, ProducerEnd
from deployments.wire import FrameChunk
from serve.media.samples import group, pan

FRAMES, ROUNDS, PORT = 64, 5, 8124


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
class Producer:
    """Yields a video that is already in memory."""

    def __init__(self) -> None:
        self._frames = pan(group(), count=FRAMES, width=832, height=480)

    async def generate(self, size: int, stream: ProducerEnd) -> AsyncIterator[FrameChunk]:
        """Yield chunks of ``size`` frames, each for a credit."""
        async with stream.connect() as credit:
            for index in range(0, FRAMES, size):
                await credit.acquire()
                yield FrameChunk(index, self._frames[index : index + size])


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
class Consumer:
    """Reads some pixels of every frame."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer.options(stream=True)

    async def consume(self, size: int) -> float:
        """Return the seconds per frame."""
        consumer = ConsumerEnd(ray.util.get_node_ip_address())
        await consumer.start()
        stream = consumer.open(4)
        start = time.perf_counter()
        total = 0
        async for chunk in self._producer.generate.remote(size, stream):
            # This reads the memory instead of only mapping it.
            total += int(chunk.frames[:, ::16, ::16].sum())
            consumer.release(stream)
        seconds = time.perf_counter() - start
        await consumer.stop()
        assert total > 0
        return seconds / FRAMES


def serve_frames() -> None:
    """Run a server that receives a frame as base64 WebP and decodes it."""

    async def take(request: Request) -> JSONResponse:
        body = await request.json()
        frame = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(body["frame"]))).convert("RGB"))
        return JSONResponse({"sum": int(frame[::16, ::16].sum())})

    uvicorn.run(Starlette(routes=[Route("/frame", take, methods=["POST"])]), port=PORT, log_level="error")


async def post_frames(frames: np.ndarray[Any, Any]) -> float:
    """Return the seconds per frame over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}") as client:
        start = time.perf_counter()
        for frame in frames:
            buffer = io.BytesIO()
            PIL.Image.fromarray(frame).save(buffer, "WEBP", quality=80)
            response = await client.post("/frame", json={"frame": base64.b64encode(buffer.getvalue()).decode()})
            assert response.json()["sum"] > 0
        return (time.perf_counter() - start) / len(frames)


def wait_for_server() -> None:
    """Wait until the HTTP server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{PORT}/")
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main() -> None:
    """Print the table."""
    server = multiprocessing.get_context("spawn").Process(target=serve_frames, daemon=True)
    server.start()
    ray.init(log_to_driver=False)
    try:
        handle: Any = serve.run(Consumer.bind(Producer.bind()), name="transport", route_prefix=None)  # type: ignore[attr-defined]
        frames = pan(group(), count=FRAMES, width=832, height=480)
        wait_for_server()
        handle.consume.remote(4).result()
        chunks = [handle.consume.remote(4).result() for _ in range(ROUNDS)]
        single = [handle.consume.remote(1).result() for _ in range(ROUNDS)]
        http = [asyncio.run(post_frames(frames[:16])) for _ in range(ROUNDS)]
    finally:
        serve.shutdown()
        ray.shutdown()
        server.terminate()
    print(f"{FRAMES} frames of 832x480 RGB, median of {ROUNDS} rounds (min, max), milliseconds per frame")
    base = statistics.median(http)
    for name, seconds in (("handle, chunks of 4", chunks), ("handle, single frames", single), ("HTTP, base64 WebP", http)):
        ms = [s * 1000 for s in seconds]
        middle = statistics.median(ms)
        print(f"{name:24}{middle:8.2f}  ({min(ms):.2f}, {max(ms):.2f})  {base * 1000 / middle:6.1f} x cheaper")


if __name__ == "__main__":
    main()
