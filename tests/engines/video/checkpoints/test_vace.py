"""The text-to-video model inside a VACE model is the same model without the control blocks."""

from typing import Any

import pytest
import torch
from diffusers import WanVACETransformer3DModel

from deployments.video.checkpoints.vace import text_model
from tests.engines.random_models import TRANSFORMER


@pytest.fixture(scope="module")
def vace() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return WanVACETransformer3DModel(**{**TRANSFORMER, "num_layers": 2}, vace_layers=[0]).eval()


@torch.no_grad()
def test_it_returns_what_the_vace_model_returns_at_control_scale_0(vace: Any) -> None:
    random = torch.Generator().manual_seed(4)
    inputs = {
        "hidden_states": torch.randn(1, 16, 2, 8, 8, generator=random),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 6, TRANSFORMER["text_dim"], generator=random),
    }
    control = torch.randn(1, 96, 2, 8, 8, generator=random)
    expected, controlled = (
        vace(**inputs, control_hidden_states=control, control_hidden_states_scale=scale, return_dict=False)[0]
        for scale in (torch.zeros(1), torch.ones(1))
    )
    predicted = text_model(vace)(**inputs, return_dict=False)[0]
    assert torch.equal(predicted, expected)
    assert not torch.allclose(predicted, controlled), "the control would have changed it"


def test_it_shares_all_its_weights_and_has_no_control_block(vace: Any) -> None:
    text = text_model(vace)
    shared, own = text.state_dict(), vace.state_dict()
    assert set(shared) == {name for name in own if not name.startswith("vace_")}
    assert {name for name, tensor in shared.items() if tensor.data_ptr() != own[name].data_ptr()} == set()
    assert not any(tensor.is_meta for tensor in (*text.parameters(), *text.buffers()))
    assert text.training is vace.training is False
