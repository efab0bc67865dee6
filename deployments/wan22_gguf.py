"""Wan22GGUF: Wan 2.2 I2V-A14B for image-to-video, with both experts from GGUF files."""

from ray import serve

from deployments.replica.collector import spare_loaded
from deployments.replica.start import starting
from deployments.settings import Wan22Models, Wan22Settings
from deployments.video_deployment import OPTIONS, VideoDeployment

NAME = "wan22-gguf"
"""The model's name in the API."""


@serve.deployment(name="Wan22GGUF", **OPTIONS)
class Wan22GGUF(VideoDeployment):
    """The Ray Serve deployment; each replica loads the checkpoints when it starts."""

    def __init__(self, settings: Wan22Settings, models: Wan22Models) -> None:
        # The import is here because the process that builds the graph has no torch.
        from deployments.video.build import build_wan22

        with starting(NAME, models):
            engine = build_wan22(settings, models)
        VideoDeployment.__init__(self, engine, settings, NAME)
        spare_loaded()
