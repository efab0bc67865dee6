"""What is told of an engine's work."""

from deployments.engine import Usage
from deployments.replica.engine_report import EngineReport, VideoReport
from deployments.telemetry import metrics
from deployments.wire import Progress
from tests.unit.recorded_metrics import recorded_metrics


def test_each_denoise_step_is_counted_and_timed() -> None:
    times = iter([10.0, 12.0, 12.5])
    with recorded_metrics() as recorded:
        report = VideoReport("wan26", clock=lambda: next(times))
        report.observe(Progress("encode", 0, 1))
        for step in range(3):
            report.observe(Progress("denoise", step, 2))
        report.observe(Progress("decode", 0, 3))
        report.observe(Progress("decode", 1, 3))
        report.end()
    assert recorded.total(metrics.DENOISE_STEPS, model="wan26") == 2
    assert recorded.values(metrics.DENOISE_STEP_SECONDS, model="wan26") == [2.0, 0.5]


def test_a_step_whose_beginning_is_unknown_is_counted_only() -> None:
    with recorded_metrics() as recorded:
        report = VideoReport("wan26", clock=lambda: 1.0)
        report.observe(Progress("denoise", 1, 2))
    assert recorded.total(metrics.DENOISE_STEPS, model="wan26") == 1
    assert recorded.names() == {metrics.DENOISE_STEPS.name}


def test_usage_is_reported_by_what_was_added() -> None:
    with recorded_metrics() as recorded:
        report = EngineReport("wan22-gguf", Usage(prompt_misses=1))
        report.used(Usage(prompt_hits=2, prompt_misses=2, lora_loads=1, gpu_bytes=(5, 7)))
        report.used(Usage(prompt_hits=3, prompt_misses=2, lora_loads=1, lora_hits=4, gpu_bytes=(6, 7)))
    assert recorded.values(metrics.PROMPT_CACHE, model="wan22-gguf", result="hit") == [2, 1]
    assert recorded.values(metrics.PROMPT_CACHE, model="wan22-gguf", result="miss") == [1]
    assert recorded.values(metrics.LORA_CACHE, model="wan22-gguf", result="miss") == [1]
    assert recorded.values(metrics.LORA_CACHE, model="wan22-gguf", result="hit") == [4]
    assert recorded.values(metrics.GPU_MEMORY_BYTES, model="wan22-gguf", gpu="0") == [5, 6]
    assert recorded.values(metrics.GPU_MEMORY_BYTES, model="wan22-gguf", gpu="1") == [7, 7]
