"""The report on a file: what it says of itself, and what that amounts to."""

from typing import Any

from serve.media.workers.messages import Message
from serve.provenance.labels import MADE_BY_AI, read_label
from serve.provenance.printable import printable_report
from serve.provenance.statement import COMPOSITE, GENERATED

_WORDS = {
    "valid": "a C2PA manifest that is valid: the file is as it was signed",
    "trusted": "a C2PA manifest that is valid, by a signer for whom a trusted authority vouches",
    "invalid": "a C2PA manifest that is not valid: the file or the manifest was changed after signing",
    "unreadable": "a C2PA manifest that cannot be read",
}
_MOST_CHARS = 3_000
"""The length of the longest text in a report; most are limited to less where they are read."""


def complete(marks: Message) -> dict[str, Any]:
    """Return the report for the marks that were read.

    `made_by_ai` is true if a mark says so that is not known to be false, and else null: a file
    without marks can have lost them, so nothing ever says that no model made it. All texts of the
    report are printable. This parses texts of the file, so it runs in a worker process.
    """
    metadata, manifest, aigc = marks["metadata"], marks["c2pa"], read_label(marks["aigc"])
    says = {
        "metadata": metadata is not None and metadata.get("digital_source_type") in (GENERATED, COMPOSITE),
        "c2pa": manifest is not None and manifest["state"] in ("valid", "trusted") and manifest["made_by_ai"],
        "aigc": aigc is not None and aigc.get("Label") == MADE_BY_AI,
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
    cleaned: dict[str, Any] = printable_report({"summary": summary(report), **report}, _MOST_CHARS)
    return cleaned


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
