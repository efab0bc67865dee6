"""A pass that a team shares equals the pass of one device, for any number of members."""

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

from deployments.video.kernels import reference
from deployments.video.kernels.attention import native_attention
from deployments.video.kernels.block import FastBlock, FastVaceBlock
from deployments.video.parallel.sequence import sequence_view, worthwhile_devices
from deployments.video.parallel.team import Team
from deployments.video.parallel.threads import DeviceThreads

CONFIG: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 96,
    "num_layers": 3,
    "rope_max_seq_len": 64,
}


def make(kind: str) -> tuple[Any, dict[str, Any]]:
    """Return a random transformer of this kind, and inputs of 45 tokens in a batch of 2."""
    torch.manual_seed(1)
    video = torch.randn(2, 16, 3, 10, 6)
    inputs = {
        "hidden_states": video,
        "timestep": torch.tensor([500.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 7, 32),
        "return_dict": False,
    }
    if kind == "vace":
        model = WanVACETransformer3DModel(**CONFIG, vace_layers=[0, 2], vace_in_channels=16)
        return model.eval(), {**inputs, "control_hidden_states": torch.randn(2, 16, 3, 10, 6)}
    if kind == "image":
        model = WanTransformer3DModel(**CONFIG, image_dim=24, added_kv_proj_dim=64)
        return model.eval(), {**inputs, "encoder_hidden_states_image": torch.randn(2, 5, 24)}
    return WanTransformer3DModel(**CONFIG).eval(), inputs


def first_of(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the first result of ``model``."""
    result: torch.Tensor = model(**inputs)[0]
    return result


@pytest.mark.parametrize("kind", ["text", "vace", "image"])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_shared_pass_equals_that_of_one_device(kind: str, fast: bool, count: int) -> None:
    model, inputs = make(kind)
    with torch.no_grad():
        expected = model(**inputs)[0]
    if fast:  # as on a GPU
        for index, block in enumerate(model.blocks):
            model.blocks[index] = FastBlock(block, reference, native_attention)
        for index, block in enumerate(getattr(model, "vace_blocks", [])):
            model.vace_blocks[index] = FastVaceBlock(block, reference, native_attention)
    team = Team([torch.device("cpu")] * count)
    views = [sequence_view(model, member) for member in team.members]
    with DeviceThreads(team.devices) as threads:
        for _ in range(2):
            results = threads.run(
                {
                    member.rank: partial(member.run, partial(first_of, view, inputs))
                    for member, view in zip(team.members, views, strict=True)
                }
            )
            torch.testing.assert_close(results[0], expected, rtol=1e-4, atol=1e-5)
    assert all(result.shape == expected.shape for result in results.values())


def test_the_model_itself_is_unchanged() -> None:
    model, inputs = make("text")
    with torch.no_grad():
        before = model(**inputs)[0]
        view = sequence_view(model, Team([torch.device("cpu")] * 2).members[1])
        assert torch.equal(model(**inputs)[0], before)
    assert {parameter.data_ptr() for parameter in view.parameters()} == {
        parameter.data_ptr() for parameter in model.parameters()
    }


def test_more_devices_than_heads_are_refused() -> None:
    model, _ = make("text")
    with pytest.raises(ValueError, match="4 heads of attention cannot be shared by 5 devices"):
        sequence_view(model, Team([torch.device("cpu")] * 5).members[0])


@pytest.mark.parametrize(
    ("frames", "width", "devices"),
    [(33, 1536, 1), (81, 1536, 2), (33, 5120, 2), (81, 5120, 4), (1, 64, 1)],
)
def test_small_passes_are_not_split(frames: int, width: int, devices: int) -> None:
    tokens = (1 + (frames - 1) // 4) * 30 * 52
    assert worthwhile_devices(tokens, width) == devices
