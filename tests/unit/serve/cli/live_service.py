"""The HTTP application over a fake graph, on a port of this machine."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from serve.config import AppConfig, VideoDefaults
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_service_of

SMALL = VideoDefaults(width=64, height=48, num_frames=9, steps=2)
CONFIG = AppConfig(wan26_defaults=SMALL, wan22_defaults=SMALL)


@contextmanager
def live_service(graph: FakeGraph) -> Iterator[str]:
    """Serve ``graph`` while the block runs; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_service_of(CONFIG, graph)
    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
