"""Wan22GGUF: Wan 2.2 I2V-A14B, both experts from GGUF files, image-to-video."""

from ray import serve

from deployments.settings import Wan22Models, Wan22Settings
from deployments.video_deployment import OPTIONS, VideoDeployment


@serve.deployment(name="Wan22GGUF", **OPTIONS)
class Wan22GGUF(VideoDeployment):
    """A Ray Serve deployment; the checkpoints are loaded when a replica starts. ``models`` None: the demo's."""

    def __init__(self, settings: Wan22Settings, models: Wan22Models | None) -> None:
        from deployments.video.wan import build_wan22  # torch: not where the graph is built

        VideoDeployment.__init__(self, build_wan22(settings, models or _demo_models()), settings)


def _demo_models() -> Wan22Models:
    from demo.checkpoints import demo_checkpoints

    made = demo_checkpoints()
    return Wan22Models(
        folder=str(made.a14b),
        high_noise=made.high_noise,
        low_noise=made.low_noise,
        high_noise_distilled=made.high_noise_lora,
        low_noise_distilled=made.low_noise_lora,
    )
