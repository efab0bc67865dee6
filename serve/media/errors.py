"""The errors that a media file can cause."""


class MediaError(Exception):
    """The file cannot be used; the message says what is wrong and what to send instead."""


class MediaTooLarge(MediaError):
    """The file exceeds a configured limit or a limit of the output format."""
