import pytest

from serve.job_settings import Slots
from serve.jobs.slots import slot_of
from serve.models import MODELS
from serve.pipelines.requests import GenerateVideo, SwapImage, SwapVideo
from tests.unit.serve.jobs.exact_video import VIDEO

FACE = [b"face"]


@pytest.mark.parametrize(
    ("request_", "model", "slot"),
    [
        (GenerateVideo(**VIDEO), "wan26", "wan26"),
        (GenerateVideo(**VIDEO, face=FACE), "wan22-gguf", "wan22-gguf"),
        (SwapImage(source=b"image", face=FACE), "face-swapper", "image-swap"),
        (SwapVideo(source=b"film", face=FACE), "face-swapper", "film-swap"),
    ],
)
def test_a_request_waits_for_what_it_needs_first(
    request_: GenerateVideo | SwapImage | SwapVideo, model: str, slot: str
) -> None:
    assert slot_of(request_, model) == slot


def test_the_settings_have_a_size_for_every_slot() -> None:
    videos = {model.name for model in MODELS if model.defaults is not None}
    assert set(Slots().by_name()) == {*videos, "image-swap", "film-swap"}
