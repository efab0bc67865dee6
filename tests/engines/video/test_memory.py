"""GPU memory: videos that do not fit are refused, and offloading changes no result."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from deployments.errors import VideoTooLarge
from deployments.video.engine import WanEngine
from deployments.video.memory.gpu import GpuMemory
from deployments.video.memory.offload import WeightOffloader
from deployments.video.memory.plan import GIB, activation_bytes
from deployments.wire import Image, VideoRequest
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of, text_mode_of

CPU = torch.device("cpu")


class FakeGpu(GpuMemory):
    """A GPU with ``size`` bytes of free memory."""

    def __init__(self, size: int) -> None:
        self._size = size

    def free_bytes(self) -> int:
        return self._size


def on_gpu(engine: WanEngine, *, free: int, offloader: WeightOffloader | None = None) -> WanEngine:
    gpus: Sequence[GpuMemory] = [FakeGpu(free)]
    return replace(engine, gpus=gpus, offloader=offloader)


def needed_bytes(engine: WanEngine, request: VideoRequest) -> int:
    return activation_bytes(text_mode_of(engine).transformers["transformer"].config, request, batch_guidance=False)


def test_a_video_that_does_not_fit_is_refused_before_anything_runs(wan26: WanEngine, small: VideoRequest) -> None:
    needed = needed_bytes(wan26, small)
    recorder = Recorder()
    message = r"needs .* GiB of GPU memory beside the models, but 0\.5 GiB are free"
    with pytest.raises(VideoTooLarge, match=message) as refused:
        on_gpu(wan26, free=needed - 1).generate(small, recorder)
    assert refused.value.field == "num_frames"
    assert recorder.events == []
    on_gpu(wan26, free=needed).generate(small, recorder)
    assert recorder.chunks


def test_offloaded_experts_give_the_same_video(wan22: WanEngine, small: VideoRequest, image: Image) -> None:
    request = replace(small, steps=4, image=image)
    expected = latents_of(wan22, request)
    experts = image_mode_of(wan22).transformers
    loads = []

    class RecordingOffloader(WeightOffloader):
        def load(self, model: torch.nn.Module) -> None:
            if self._loaded is not model:
                loads.append([name for name, expert in experts.items() if expert is model])
            super().load(model)

    offloader = RecordingOffloader(experts.values(), CPU)
    engine = on_gpu(wan22, free=100 * GIB, offloader=offloader)
    assert torch.equal(latents_of(engine, request), expected)
    assert loads == [["transformer"], ["transformer_2"]]
    offloader.unload()
    largest = max(sum(p.nbytes for p in expert.parameters()) for expert in experts.values())
    assert offloader.missing_bytes(experts.values()) >= largest


def test_an_offloaded_text_encoder_does_not_count(wan26: WanEngine, small: VideoRequest) -> None:
    """It is unloaded before the transformer runs, so no video is refused because of it."""
    recorder = Recorder()
    offloader = WeightOffloader([torch.nn.Linear(4, 4)], CPU)
    on_gpu(wan26, free=needed_bytes(wan26, small), offloader=offloader).generate(small, recorder)
    assert recorder.chunks


def test_an_engine_on_a_cpu_says_so(wan26: WanEngine) -> None:
    assert wan26.hardware == "CPU"
