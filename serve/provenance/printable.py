"""Text of callers' files in a form that any terminal, log and JSON encoder can take."""

import json
from typing import Any

MAX_TEXT_CHARS = 200


def printable(value: object, most: int = MAX_TEXT_CHARS) -> str:
    """Return a value as printable text of at most ``most`` characters, whatever it holds.

    Control characters, which a terminal would obey, and lone surrogates, which no encoding has,
    become question marks; tabs and the ends of lines become spaces.
    """
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict | int) else str(value)
    return "".join(c if c.isprintable() else " " if c in "\t\r\n" else "?" for c in text[:most])


def printable_report(value: Any, most: int) -> Any:
    """Return a report with all of its texts, names among them, in printable form."""
    if isinstance(value, dict):
        return {printable(name, most): printable_report(item, most) for name, item in value.items()}
    if isinstance(value, list):
        return [printable_report(item, most) for item in value]
    return printable(value, most) if isinstance(value, str) else value
