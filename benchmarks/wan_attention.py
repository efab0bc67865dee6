"""`python -m benchmarks.wan_attention`: the attention kernels that `attention: auto` chooses from.

For the heads of Wan 2.1 1.3B and Wan 2.2 A14B, and for the tokens of 33 and 81 frames at 832x480
and of a text, it prints the time of each kernel, its rate, and its relative error against the same
attention in float32. The choice of `attention: auto` is made by these figures.
"""

import statistics
from functools import partial

import torch

from benchmarks.wan_plain import timed
from deployments.settings import VideoSettings
from deployments.video.kernels.attention import (
    FLASH_PACKAGE,
    Attention,
    cudnn_attention,
    flash_attention,
    hopper_attention,
    native_attention,
    pick_attention,
)

HEADS = {"1.3B": 12, "A14B": 40}
TOKENS = {"33 frames": (14_040, 14_040), "81 frames": (32_760, 32_760), "81 frames over a text": (32_760, 512)}
HEAD = 128
ROUNDS = 10
SAMPLE = 256
"""The number of queries whose results are compared with float32."""


def error(result: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> float:
    """Return the relative error of ``result`` for a sample of queries, against float32."""
    rows = torch.linspace(0, query.shape[2] - 1, SAMPLE, device=query.device).long()
    exact = native_attention(query[:, :, rows].float(), key.float(), value.float())
    return float((result[:, :, rows].float() - exact).norm() / exact.norm())


def main() -> None:
    """Print a line for each model, number of tokens and kernel."""
    capability = torch.cuda.get_device_capability()
    picked = pick_attention(VideoSettings(), capability, torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16; auto picks {picked.__name__}")
    kernels: list[Attention] = [native_attention, cudnn_attention]
    if picked is hopper_attention:
        kernels.append(flash_attention)
    else:
        print(f"{FLASH_PACKAGE} does not run here")
    for model, heads in HEADS.items():
        for name, (queries, keys) in TOKENS.items():
            # The kernels get views of [b, n, heads, head], as they do in a block.
            query, key, value = (
                torch.randn(1, count, heads, HEAD, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
                for count in (queries, keys, keys)
            )
            operations = 4 * queries * keys * heads * HEAD
            for kernel in kernels:
                result = kernel(query, key, value)
                work = partial(kernel, query, key, value)
                timed(work)
                seconds = statistics.median(timed(work) for _ in range(ROUNDS))
                print(
                    f"{model}, {name}: {kernel.__name__} {1000 * seconds:.2f} ms, {operations / seconds / 1e12:.0f} TFLOP/s, "
                    f"error {error(result, query, key, value):.2e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
