"""Wan26: Wan 1.3B in full precision, for text- and image-to-video."""

from ray import serve

from deployments.collector import spare_loaded
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video_deployment import OPTIONS, VideoDeployment


@serve.deployment(name="Wan26", **OPTIONS)
class Wan26(VideoDeployment):
    """The Ray Serve deployment; each replica loads the checkpoints when it starts."""

    def __init__(self, settings: Wan26Settings, models: Wan26Models) -> None:
        # The import is here because the process that builds the graph has no torch.
        from deployments.video.build import build_wan26

        VideoDeployment.__init__(self, build_wan26(settings, models), settings)
        spare_loaded()
