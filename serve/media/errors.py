"""What can be wrong with a file that was sent."""


class MediaError(Exception):
    """The bytes are not what they should be; the message says what is wrong and what to send."""


class MediaTooLarge(MediaError):
    """The media are over a configured limit; found before decoding."""
