"""Wan22GGUF: Wan 2.2 I2V-A14B for image-to-video, with both experts from GGUF files."""

from ray import serve

from deployments.collector import spare_loaded
from deployments.settings import Wan22Models, Wan22Settings
from deployments.video_deployment import OPTIONS, VideoDeployment


@serve.deployment(name="Wan22GGUF", **OPTIONS)
class Wan22GGUF(VideoDeployment):
    """The Ray Serve deployment; each replica loads the checkpoints when it starts."""

    def __init__(self, settings: Wan22Settings, models: Wan22Models) -> None:
        # The import is here because the process that builds the graph has no torch.
        from deployments.video.build import build_wan22

        VideoDeployment.__init__(self, build_wan22(settings, models), settings)
        spare_loaded()
