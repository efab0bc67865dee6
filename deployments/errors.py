"""The errors that deployments raise.

Each survives pickling, so that the ingress can map it to a problem.
"""


class DeploymentError(Exception):
    """Base class of all errors that a deployment raises on purpose."""


class RequestRefused(DeploymentError):
    """The base of errors that the caller can fix.

    ``field`` names the field that is wrong; ``detail`` says why, and what to send instead.
    """

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail


class NoFaceFound(RequestRefused):
    """An image that must show a face shows none."""


class ImageNotSupported(RequestRefused):
    """The request has an image, but the checkpoint cannot condition on one."""


class AccelerationNotSupported(RequestRefused):
    """The request asks for an acceleration that the model is not set up for."""


class LoraNotUsable(RequestRefused):
    """The request asks for a LoRA that is unknown, too large or made for another model."""


class PromptTooLong(RequestRefused):
    """The prompt has more tokens than the text encoder reads, so it would be cut silently."""


class VideoTooLarge(RequestRefused):
    """The GPU has not enough memory for a video of this size."""


class CheckpointRefused(DeploymentError):
    """Model files are missing, incomplete or of another architecture.

    The message names the file, and the tensor if one is wrong.
    """


class Cancelled(DeploymentError):
    """The work was stopped because its consumer cancelled it, closed the stream or died."""


class GpuLost(DeploymentError):
    """A GPU of the replica has failed, and nothing runs in its process any more."""


class NotFinite(DeploymentError):
    """A model computed NaN or infinity instead of a video, of which it would show black frames."""


class WeightsDamaged(NotFinite):
    """The weights of a model are no longer finite, so every video would fail."""


class EngineBroken(DeploymentError):
    """Every call of the engine fails, as after a GPU is lost. Raised by ``check_health``."""


class ReplicaStalled(DeploymentError):
    """The engine has shown no sign of life for too long. Raised by ``check_health``."""
