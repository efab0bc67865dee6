"""Tasks that hold what a queue or a budget gave them, until they are told to give it back."""

import asyncio
from contextlib import AbstractAsyncContextManager


class Held:
    """The tasks by name, and the ``order`` in which they were given what they asked for."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, share: AbstractAsyncContextManager[object]) -> None:
        self.tasks[name] = asyncio.ensure_future(self._hold(name, share))
        await settle()

    async def end(self, name: str) -> None:
        self.ends.pop(name).set()
        await self.tasks[name]
        await settle()

    async def _hold(self, name: str, share: AbstractAsyncContextManager[object]) -> None:
        async with share:
            self.order.append(name)
            self.ends[name] = asyncio.Event()
            await self.ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
