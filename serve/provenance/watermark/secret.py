"""Reads the secrets from which patterns are made."""

from collections.abc import Sequence
from pathlib import Path

from serve.provenance.watermark.pattern import PUBLISHED_SECRET

MIN_BYTES = 16
MAX_BYTES = 4096


class SecretRefused(ValueError):
    """The file of the watermark's secret cannot be used."""


def load_secrets(path: Path | None, earlier: Sequence[Path] = ()) -> list[bytes]:
    """Return the secret in use, and those before it that still have watermarks to read.

    Raises ``SecretRefused``.
    """
    return [load_secret(path), *(load_secret(old, setting="provenance.watermark.keys") for old in earlier)]


def load_secret(path: Path | None, *, setting: str = "provenance.watermark.key") -> bytes:
    """Return the content of a file without the white space around it; the published one for None.

    Raises ``SecretRefused``, whose message names ``setting``.
    """
    if path is None:
        return PUBLISHED_SECRET
    try:
        with path.expanduser().open("rb") as file:
            secret = file.read(MAX_BYTES + 1).strip()
    except OSError as error:
        raise SecretRefused(f"{setting}: {path} cannot be read: {error.strerror}") from None
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise SecretRefused(
            f"{setting}: {path} must hold {MIN_BYTES} to {MAX_BYTES} bytes, such as those of `openssl rand -hex 32`"
        )
    return secret
