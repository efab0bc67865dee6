"""The report on a file: what it says of itself, and what that amounts to."""

import json
from typing import Any

from serve.media.workers.messages import Message
from serve.provenance.statement import COMPOSITE, GENERATED

_WORDS = {
    "valid": "a C2PA manifest that is valid: the file is as it was signed",
    "trusted": "a C2PA manifest that is valid, by a signer for whom a trusted authority vouches",
    "invalid": "a C2PA manifest that is not valid: the file or the manifest was changed after signing",
    "unreadable": "a C2PA manifest that cannot be read",
}


def complete(marks: Message) -> dict[str, Any]:
    """Return the report for the marks that were read.

    `made_by_ai` is true if a mark says so that is not known to be false, and else null: a file
    without marks can have lost them, so nothing ever says that no model made it.
    """
    metadata, manifest = marks["metadata"], marks["c2pa"]
    aigc = None
    if metadata is not None:
        aigc = _object(metadata.pop("aigc", None))
    says = {
        "metadata": metadata is not None and metadata.get("digital_source_type") in (GENERATED, COMPOSITE),
        "c2pa": manifest is not None and manifest["state"] in ("valid", "trusted") and manifest["made_by_ai"],
        "aigc": aigc is not None,
        "watermark": bool(marks["watermark"] and marks["watermark"]["found"]),
    }
    report = {
        "made_by_ai": True if any(says.values()) else None,
        "says_so": [name for name, said in says.items() if said],
        "media_type": marks["media_type"],
        "metadata": metadata,
        "aigc": aigc,
        "c2pa": manifest,
        "watermark": marks["watermark"],
    }
    return {"summary": summary(report), **report}


def summary(report: dict[str, Any]) -> str:
    """Return what a report says in a sentence or two."""
    found = []
    if (manifest := report["c2pa"]) is not None:
        words = _WORDS.get(manifest["state"], _WORDS["unreadable"])
        if manifest.get("test_certificate"):
            words += ", but made with a test certificate"
        found.append(words)
    if report["watermark"] and report["watermark"]["found"]:
        found.append("the watermark of this service")
    if report["metadata"] is not None:
        found.append("metadata (XMP), which is not signed")
    if report["aigc"] is not None:
        found.append("the label of GB 45438-2025")
    if not found:
        return "No mark was found. That does not say how the file was made: marks can be lost."
    said = "It says that AI made or changed the file." if report["made_by_ai"] else "None of it says that AI made the file."
    return f"The file carries {'; '.join(found)}. {said}"


def _object(text: str | None) -> dict[str, str] | None:
    """Return the fields of a label, or None if it is none."""
    try:
        value = json.loads(text or "null")
    except ValueError:
        return None
    return {str(k)[:50]: str(v)[:200] for k, v in list(value.items())[:20]} if isinstance(value, dict) else None
