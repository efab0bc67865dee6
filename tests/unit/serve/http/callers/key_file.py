"""Writes the file of keys."""

import hashlib


def line(name: str, key: str) -> str:
    """Return the line of a key in the file."""
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"
