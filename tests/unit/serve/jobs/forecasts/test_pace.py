import pytest

from serve.jobs.forecasts.pace import Pace, Work
from serve.pipelines.requests import GenerateVideo, SwapImage, SwapVideo
from tests.unit.serve.jobs.exact_video import VIDEO

FACE = [b"face"]


def test_guidance_doubles_the_passes() -> None:
    guided = Work.of(GenerateVideo(**VIDEO)).units
    alone = Work.of(GenerateVideo(**{**VIDEO, "cfg": 1})).units
    assert guided["denoising"] == 2 * alone["denoising"]
    assert guided["decoding"] == alone["decoding"] == pytest.approx(64 * 48 * 9 / 1e6)


def test_frames_are_decoded_and_swapped_in_one_stage() -> None:
    assert list(Work.of(GenerateVideo(**VIDEO)).units) == ["denoising", "decoding"]
    both = Work.of(GenerateVideo(**VIDEO, face=FACE)).units
    assert list(both) == ["denoising", "swapping"]
    assert both["swapping"] == pytest.approx(64 * 48 * 9 / 1e6)
    assert Work.of(SwapImage(source=b"image", face=FACE)).units == {"swapping": 1}
    assert Work.of(SwapVideo(source=b"film", face=FACE)).units == {"swapping": 1}
    assert Work.of(SwapVideo(source=b"film", face=FACE), 240).units == {"swapping": 240}


def test_a_pace_is_learned_per_model_and_stage() -> None:
    pace = Pace()
    assert pace.of("wan26", "denoising") is None
    pace.learn("wan26", "denoising", seconds=10, units=5)
    assert pace.of("wan26", "denoising") == 2
    assert pace.of("wan26", "decoding") is None
    assert pace.of("wan22-gguf", "denoising") is None
    pace.learn("wan26", "denoising", seconds=20, units=5)
    assert pace.of("wan26", "denoising") == 3
    for seconds in (1000, 20, 20, 20):
        pace.learn("wan26", "denoising", seconds=seconds, units=5)
    assert pace.of("wan26", "denoising") == 4  # one odd job changes nothing, and the first one is forgotten


@pytest.mark.parametrize(("seconds", "units"), [(0, 5), (5, 0), (-1, 5)])
def test_a_measurement_without_meaning_is_not_learned(seconds: float, units: float) -> None:
    pace = Pace()
    pace.learn("wan26", "denoising", seconds=seconds, units=units)
    assert pace.of("wan26", "denoising") is None
