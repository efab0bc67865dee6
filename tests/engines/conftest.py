from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def no_gpu() -> Iterator[None]:
    """Let engines run on the CPU on any machine, as what they are compared with does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
