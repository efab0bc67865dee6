"""The metrics that the model deployments record."""

from deployments.telemetry.metric import Counter, Gauge, Histogram, Label

MODEL = Label("model", ("wan26", "wan22-gguf", "face-swapper"))
"""The API names of all models."""
CACHE_RESULT = Label("result", ("hit", "miss"))
GPU = Label("gpu", tuple(str(index) for index in range(16)))
"""The number of a GPU in its replica."""

DENOISE_STEPS = Counter(
    name="ryla_denoise_steps_total",
    description="Denoise steps that have ended. Its rate is the steps per second of all replicas.",
    labels=(MODEL,),
)
DENOISE_STEP_SECONDS = Histogram(
    name="ryla_denoise_step_seconds",
    description="Time that one denoise step takes.",
    labels=(MODEL,),
    unit="seconds",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
PROMPT_CACHE = Counter(
    name="ryla_prompt_cache_total",
    description="Prompts that were looked up among the cached embeddings.",
    labels=(MODEL, CACHE_RESULT),
)
LORA_CACHE = Counter(
    name="ryla_lora_cache_total",
    description="LoRA files that requests used: already loaded (hit), or loaded for the request (miss).",
    labels=(MODEL, CACHE_RESULT),
    only="with LoRAs",
)
GPU_MEMORY_BYTES = Gauge(
    name="ryla_gpu_memory_bytes",
    description="GPU memory that a video model's replica has reserved, after its latest request.",
    labels=(MODEL, GPU),
    unit="bytes",
    only="on GPUs",
)
FACES_FOUND = Counter(
    name="ryla_faces_found_total",
    description="Faces that were found in frames and images.",
)
FACES_SWAPPED = Counter(
    name="ryla_faces_swapped_total",
    description="Faces that were replaced in frames and images.",
)

METRICS = (DENOISE_STEPS, DENOISE_STEP_SECONDS, PROMPT_CACHE, LORA_CACHE, GPU_MEMORY_BYTES, FACES_FOUND, FACES_SWAPPED)
"""Every metric of the deployments."""
