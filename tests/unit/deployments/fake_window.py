"""A ``CreditWindow`` that runs in this process, behind the interface of an actor handle."""

from collections.abc import Awaitable, Callable
from typing import Any

from deployments.flow_control import CreditWindow


class _Method:
    def __init__(self, method: Callable[..., Awaitable[None]]) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> Awaitable[None]:
        return self._method(*arguments)


class LocalWindow:
    """What ``ProducerEnd`` and ``ConsumerEnd`` see of the actor."""

    def __init__(self) -> None:
        self.window = CreditWindow()

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self.window, name))
