"""Where weights go, by the memory that is free; models that take turns; videos that would not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from deployments.errors import VideoTooLarge
from deployments.video import memory
from deployments.video.engine import WanEngine
from deployments.video.memory.plan import GIB, ROOM, Plan, Weights, choose, work_bytes
from deployments.video.memory.offload import Residence
from deployments.video.sampling.text_encoder import TextEncoder
from deployments.wire import Image, VideoRequest
from tests.engines.video.conftest import Recorder

A14B = Weights(text=11 * GIB, plain=53 * GIB, stored=(10 * GIB, 10 * GIB))
WAYS = ("dequantised", "quantised", "offloaded")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("free", "transformers", "text"),
    [
        (140, "dequantised", "kept"),
        (74, "dequantised", "kept"),
        (73, "dequantised", "offloaded"),
        (63, "quantised", "kept"),
        (40, "quantised", "offloaded"),
        (30, "offloaded", "offloaded"),
        (5, "offloaded", "offloaded"),  # the smallest; what does not fit is refused request by request
    ],
)
def test_the_fastest_plan_that_fits_is_chosen(free: int, transformers: str, text: str) -> None:
    plan = choose(A14B, free * GIB, WAYS, "auto")  # type: ignore[arg-type]
    assert (plan.transformers, plan.text) == (transformers, text)
    if free > 5:
        assert plan.peak(A14B) <= free * GIB


def test_settings_decide_over_memory() -> None:
    assert choose(A14B, 10 * GIB, ("dequantised",), "kept") == Plan("dequantised", "kept")
    assert choose(A14B, 140 * GIB, WAYS, "freed") == Plan("dequantised", "freed")  # type: ignore[arg-type]
    assert choose(A14B, 140 * GIB, ("offloaded",), "auto") == Plan("offloaded", "kept")


def test_a_visiting_text_encoder_has_room() -> None:
    large = Weights(text=4 * ROOM, plain=ROOM, stored=(ROOM,))
    assert Plan("kept", "offloaded").peak(large) == 5 * ROOM


def make_layers() -> list[torch.nn.Module]:
    return [torch.nn.Linear(4, 4).requires_grad_(False) for _ in range(3)]


def test_one_model_at_a_time_is_there() -> None:
    layers = make_layers()
    x = torch.ones(1, 4)
    expected = [layer(x) for layer in layers]
    residence = Residence(layers[:2], CPU)
    waiting = [layer.weight.data_ptr() for layer in layers]  # type: ignore[union-attr, operator]
    assert layers[0] in residence
    assert layers[2] not in residence
    size = sum(p.nbytes for p in layers[0].parameters())
    assert residence.missing(layers[:2]) == size
    assert residence.missing(layers[2:]) == 0  # lives elsewhere
    for chosen, other in ((0, 1), (1, 0), (0, 1)):
        residence.bring(layers[chosen])
        assert layers[chosen].weight.data_ptr() != waiting[chosen]  # type: ignore[union-attr, operator]
        assert layers[other].weight.data_ptr() == waiting[other]  # type: ignore[union-attr, operator]
        assert torch.equal(layers[chosen](x), expected[chosen])
        assert residence.missing(layers[:2]) == 0
        assert residence.missing(layers[2:]) == -size  # what is there would make way
    residence.clear()
    assert [layer.weight.data_ptr() for layer in layers] == waiting  # type: ignore[union-attr, operator]


def test_a_freed_text_encoder_is_loaded_for_each_prompt_and_dropped(wan26: WanEngine) -> None:
    kept = wan26.prompts.encoder
    loads = []

    def load() -> Any:
        loads.append(None)
        return kept._model

    ids, mask = torch.tensor([[5, 1]]), torch.ones(1, 2, dtype=torch.long)
    encoder = TextEncoder(load, CPU, freed=True)
    assert not loads
    with torch.no_grad():
        assert torch.equal(encoder(ids, mask), kept(ids, mask))
        encoder(ids, mask)
    assert len(loads) == 2
    assert encoder._model is None


class Card:
    """A card of which ``size`` bytes are free."""

    name = "a card"

    def __init__(self, size: int) -> None:
        self.size = size

    def free(self) -> int:
        return self.size


def with_card(engine: WanEngine, free: int, residence: Residence | None = None) -> WanEngine:
    more: dict[str, Any] = {"cards": [Card(free)], "residence": residence}
    return WanEngine(engine.prompts, engine.vae, engine._text, engine._image, "", **more)


def test_a_video_that_would_not_fit_is_refused_before_anything_runs(wan26: WanEngine, small: VideoRequest) -> None:
    assert wan26._text is not None
    wanted = work_bytes(wan26._text.transformers["transformer"].config, small, batch_guidance=False)
    recorder = Recorder()
    with pytest.raises(VideoTooLarge, match=r"wants .* GiB of the GPU's memory beside the models, 0\.5 are free") as caught:
        with_card(wan26, wanted - 1).generate(small, recorder)
    assert caught.value.field == "num_frames"
    assert recorder.events == []
    with_card(wan26, wanted).generate(small, recorder)
    assert recorder.chunks


def test_more_pixels_frames_and_forwards_want_more(wan26: WanEngine, picture: Image) -> None:
    config = wan26.image_path.transformers["transformer"].config

    def wants(width: int, height: int, frames: int, image: Image | None = None, batched: bool = False) -> int:
        return work_bytes(config, VideoRequest("", "", width, height, frames, 2, 5.0, 0, image=image), batch_guidance=batched)

    base = wants(832, 480, 33)
    assert base < wants(1280, 720, 33) < wants(1280, 720, 81) < 40 * GIB
    assert base <= wants(832, 480, 33, picture)
    assert wants(832, 480, 161) < wants(832, 480, 161, picture), "encoding keeps more of each frame than decoding"
    assert base <= wants(832, 480, 33, batched=True)


def test_experts_that_take_turns_give_the_same_video(wan22: WanEngine, small: VideoRequest, picture: Image) -> None:
    request = replace(small, steps=4, image=picture)
    expected = wan22.latents(request, Recorder())
    path = wan22.image_path
    brought = []

    class Counting(Residence):
        def bring(self, model: torch.nn.Module) -> None:
            if self._present is not model:
                brought.append([name for name, expert in path.transformers.items() if expert is model])
            super().bring(model)

    residence = Counting(path.transformers.values(), CPU)
    engine = with_card(wan22, 100 * GIB, residence)
    assert torch.equal(engine.latents(request, Recorder()), expected)
    assert brought == [["transformer"], ["transformer_2"]]
    residence.clear()
    largest = max(sum(p.nbytes for p in expert.parameters()) for expert in path.transformers.values())
    assert residence.missing(path.transformers.values()) >= largest


def test_a_visiting_text_encoder_is_not_counted_twice(wan26: WanEngine, small: VideoRequest) -> None:
    """It has gone again when the work begins: a video is not refused for its sake."""
    assert wan26._text is not None
    wanted = work_bytes(wan26._text.transformers["transformer"].config, small, batch_guidance=False)
    recorder = Recorder()
    with_card(wan26, wanted, Residence([torch.nn.Linear(4, 4)], CPU)).generate(small, recorder)
    assert recorder.chunks


def test_a_cap_on_a_card_holds_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the card is answered here; the cap's call takes a number, as PyTorch's own does."""
    caps = []

    def cap(fraction: float, device: int) -> None:
        assert isinstance(device, int)
        caps.append(fraction)

    answers = {"get_device_name": "a card", "mem_get_info": (70 * GIB, 80 * GIB), "current_device": 0}
    answers |= {"memory_allocated": 4 * GIB, "memory_reserved": 6 * GIB}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", cap)
    assert memory.Card(torch.device("cuda"), None).free() == 72 * GIB
    assert caps == []
    capped = memory.Card(torch.device("cuda"), 20)
    assert caps == [0.25]
    assert capped.free() == 16 * GIB
    assert str(capped) == "a card, 4.0 of 20.0 GiB"


def test_a_cpus_engine_says_so(wan26: WanEngine) -> None:
    assert wan26.hardware == "CPU"
