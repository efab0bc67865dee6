"""The errors that deployments raise. Each survives pickling, so that the ingress can map it to a problem."""


class DeploymentError(Exception):
    """Base of all errors that a deployment raises on purpose."""


class RequestRefused(DeploymentError):
    """The caller can mend this: ``field`` names what is wrong, ``detail`` says why and what to send instead."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.field = field
        self.detail = detail


class NoFaceFound(RequestRefused):
    """A picture that must show a face shows none."""


class ImageNotSupported(RequestRefused):
    """Image-to-video was asked of a checkpoint that cannot condition on an image."""


class AccelerationNotSupported(RequestRefused):
    """An acceleration that this model is not set up for."""


class PromptTooLong(RequestRefused):
    """The prompt has more tokens than the text encoder reads: it would be cut silently."""


class VideoTooLarge(RequestRefused):
    """The GPU's memory does not hold the work on a video of this size."""


class CheckpointRefused(DeploymentError):
    """Model files that are absent, incomplete or of another architecture. The message names file and tensor."""


class Cancelled(DeploymentError):
    """The work was stopped: its consumer cancelled it, closed its window or died."""


class EngineBroken(DeploymentError):
    """The engine fails at everything, as after a lost GPU; raised by ``check_health``."""


class ReplicaStalled(DeploymentError):
    """The engine has shown no sign of life for longer than its limit; raised by ``check_health``."""
