"""Offloaded models share a device: one has its weights there at a time."""

import torch

from deployments.video.memory.offload import WeightOffloader


def test_one_model_is_loaded_at_a_time() -> None:
    layers = [torch.nn.Linear(4, 4).requires_grad_(False) for _ in range(3)]
    x = torch.ones(1, 4)
    expected = [layer(x) for layer in layers]
    offloader = WeightOffloader(layers[:2], torch.device("cpu"))
    in_host_memory = [layer.weight.data_ptr() for layer in layers]
    assert layers[0] in offloader
    assert layers[2] not in offloader
    size = sum(parameter.nbytes for parameter in layers[0].parameters())
    assert offloader.missing_bytes(layers[:2]) == size
    assert offloader.missing_bytes(layers[2:]) == 0, "a model that is not offloaded needs nothing"
    for loaded, other in ((0, 1), (1, 0), (0, 1)):
        offloader.load(layers[loaded])
        assert layers[loaded].weight.data_ptr() != in_host_memory[loaded]
        assert layers[other].weight.data_ptr() == in_host_memory[other]
        assert torch.equal(layers[loaded](x), expected[loaded])
        assert offloader.missing_bytes(layers[:2]) == 0
        assert offloader.missing_bytes(layers[2:]) == -size, "the loaded model would be unloaded"
    offloader.unload()
    assert [layer.weight.data_ptr() for layer in layers] == in_host_memory
