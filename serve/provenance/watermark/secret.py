"""Reads the secret from which the pattern is made."""

from pathlib import Path

from serve.provenance.watermark.pattern import PUBLISHED_SECRET

MIN_BYTES = 16
MAX_BYTES = 4096


class SecretRefused(ValueError):
    """The file of the watermark's secret cannot be used."""


def load_secret(path: Path | None) -> bytes:
    """Return the content of a file without the white space around it; the published one for None.

    Raises ``SecretRefused``.
    """
    if path is None:
        return PUBLISHED_SECRET
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_BYTES + 1).strip()
    except OSError as error:
        raise SecretRefused(f"provenance.watermark.key: {path} cannot be read: {error.strerror}") from None
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise SecretRefused(
            f"provenance.watermark.key: {path} must hold {MIN_BYTES} to {MAX_BYTES} bytes, such as those of `openssl rand -hex 32`"
        )
    return secret
