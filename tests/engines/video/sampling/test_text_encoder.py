"""The text encoder in each of its places."""

from types import SimpleNamespace

import pytest
import torch

from deployments.video.memory.offload import WeightOffloader
from deployments.video.sampling.text_encoder import TextEncoder

CPU = torch.device("cpu")
IDS, MASK = torch.tensor([[5, 1]]), torch.ones(1, 2, dtype=torch.long)


class Model(torch.nn.Module):
    """A model that returns its weight times the ids, and counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]), requires_grad=False)
        self.addresses: list[int] = []

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> SimpleNamespace:
        self.addresses.append(self.weight.data_ptr())
        return SimpleNamespace(last_hidden_state=self.weight * ids * mask)


class Loader:
    """Counts how often the model is loaded."""

    def __init__(self) -> None:
        self.model = Model()
        self.loads = 0

    def __call__(self) -> Model:
        self.loads += 1
        return self.model


@pytest.mark.parametrize(("freed", "loads"), [(False, [1, 1, 1]), (True, [0, 1, 2])])
def test_a_freed_encoder_is_loaded_for_each_prompt_and_a_kept_one_once(freed: bool, loads: list[int]) -> None:
    load = Loader()
    encoder = TextEncoder(load, CPU, freed=freed)
    seen = [load.loads]
    for _ in range(2):
        assert encoder(IDS, MASK).tolist() == [[10.0, 2.0]]
        seen.append(load.loads)
    assert seen == loads


def test_an_offloaded_encoder_is_on_the_device_only_while_it_runs() -> None:
    load = Loader()
    offloader = WeightOffloader([load.model], CPU)
    in_host_memory = load.model.weight.data_ptr()
    encoder = TextEncoder(load, CPU, offloader=offloader)
    assert encoder(IDS, MASK).tolist() == [[10.0, 2.0]]
    assert load.model.addresses != [in_host_memory]
    assert load.model.weight.data_ptr() == in_host_memory


def test_an_encoder_that_fails_is_unloaded() -> None:
    load = Loader()
    offloader = WeightOffloader([load.model], CPU)
    in_host_memory = load.model.weight.data_ptr()
    encoder = TextEncoder(load, CPU, offloader=offloader)
    with pytest.raises(RuntimeError):
        encoder(IDS, torch.ones(1, 3, dtype=torch.long))
    assert load.model.weight.data_ptr() == in_host_memory
