"""Wan26: Wan 1.3B in full precision, text- and image-to-video."""

from ray import serve

from deployments.settings import Wan26Models, Wan26Settings
from deployments.video_deployment import OPTIONS, VideoDeployment


@serve.deployment(name="Wan26", **OPTIONS)
class Wan26(VideoDeployment):
    """A Ray Serve deployment; the checkpoints are loaded when a replica starts. ``models`` None: the demo's."""

    def __init__(self, settings: Wan26Settings, models: Wan26Models | None) -> None:
        from deployments.video.wan import build_wan26  # torch: not where the graph is built

        VideoDeployment.__init__(self, build_wan26(settings, models or _demo_models()), settings)


def _demo_models() -> Wan26Models:
    from demo.checkpoints import demo_checkpoints

    made = demo_checkpoints()
    return Wan26Models(text=str(made.vace), text_distilled=made.vace_lora, image_distilled=made.vace_lora)  # one for both paths
