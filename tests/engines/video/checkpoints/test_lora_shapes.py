"""LoRAs whose tensors have any shape and dtype, and biases beside the matrices."""

from pathlib import Path

import pytest
import torch

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.lora import read_lora, with_lora
from tests.engines.video.checkpoints.published import RANK, forward, make, merged, write

ENDS = ("lora_down.weight", "lora_up.weight", "lora_up.bias", "alpha", "diff", "diff_b", "diff_m")
LAYERS = ("blocks.0.self_attn.q", "blocks.0.self_attn.norm_q", "blocks.0.norm1", "blocks.0", "patch_embedding", "head")
SHAPES = (
    (),
    (1,),
    (0,),
    (2,),
    (2, 0),
    (2, 256),
    (256, 2),
    (3, 256),
    (2, 256, 1),
    (256, 2, 1, 1),
    (256, 2, 1, 1, 3),
    (1, 6, 256),
)
DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


@pytest.mark.parametrize("end", ENDS)
def test_a_tensor_of_any_shape_and_dtype_fits_or_is_refused(end: str, tmp_path: Path) -> None:
    """Nothing else is raised, and what is not refused can be computed."""
    model = make("text", tmp_path)
    path = tmp_path / "lora.safetensors"
    used = refused = 0
    for layer in LAYERS:
        down = (2, 16, 1, 2, 2) if layer == "patch_embedding" else (2, 256)
        pair = {f"{layer}.lora_down.weight": torch.ones(down), f"{layer}.lora_up.weight": torch.ones(256, 2)}
        for dtype in DTYPES:
            for shape in SHAPES if dtype == torch.float32 else SHAPES[::5]:
                odd = {f"{layer}.{end}": torch.ones(shape).to(dtype)}
                for state in (odd, pair | odd):
                    write(path, state)
                    try:
                        view = with_lora(model, path, torch.float32)
                    except CheckpointRefused:
                        refused += 1
                    else:
                        assert forward(view).isfinite().all()
                        used += 1
    assert refused > 50
    assert used > 0 or end not in ("lora_down.weight", "lora_up.weight", "alpha")


def test_the_bias_of_the_second_matrix_is_scaled_as_the_product_is(tmp_path: Path) -> None:
    """PEFT adds `lora_B(lora_A(x)) * scaling`, and ComfyUI adds `diff_b` as it is."""
    model = make("text", tmp_path)
    layer, bias, alpha = "blocks.1.ffn.net.0.proj", torch.randn(512), 10.0
    down, up = torch.randn(RANK, 256) * 0.1, torch.randn(512, RANK) * 0.1
    matrices = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up, f"{layer}.alpha": torch.tensor(alpha)}
    scale = alpha / RANK
    for end, factor in (("lora_B.bias", scale), ("diff_b", 1.0)):
        path = write(tmp_path / "lora.safetensors", matrices | {f"{layer}.{end}": bias})
        changes = {f"{layer}.weight": scale * up @ down, f"{layer}.bias": factor * bias}
        expected = forward(merged(model, changes, "text"))
        torch.testing.assert_close(forward(with_lora(model, path, torch.float32)), expected, rtol=1e-4, atol=1e-4)
    both = write(tmp_path / "both.safetensors", matrices | {f"{layer}.lora_B.bias": bias, f"{layer}.diff_b": bias.clone()})
    with pytest.raises(CheckpointRefused, match=r"the bias of `.*` is changed twice"):
        read_lora(both)
