"""Wan26: Wan 1.3B in full precision, for text- and image-to-video."""

from ray import serve

from deployments.replica.collector import spare_loaded
from deployments.replica.start import starting
from deployments.settings import Wan26Models, Wan26Settings
from deployments.video_deployment import OPTIONS, VideoDeployment

NAME = "wan26"
"""The model's name in the API."""


@serve.deployment(name="Wan26", **OPTIONS)
class Wan26(VideoDeployment):
    """The Ray Serve deployment; each replica loads the checkpoints when it starts."""

    def __init__(self, settings: Wan26Settings, models: Wan26Models) -> None:
        # The import is here because the process that builds the graph has no torch.
        from deployments.video.build import build_wan26

        with starting(NAME, models):
            engine = build_wan26(settings, models)
        VideoDeployment.__init__(self, engine, settings, NAME)
        spare_loaded()
