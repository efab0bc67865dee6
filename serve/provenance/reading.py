"""Reads the marks of a file: XMP and a C2PA manifest with its chain of ingredients.

This runs in a worker process, since c2pa's library parses files of unknown origin here.
"""

import json
import re
from typing import Any

import c2pa

from serve.media.spool import Media, open_media
from serve.media.workers.messages import Message
from serve.provenance.labels import find_label
from serve.provenance.manifest import GENERATION, NOTICE, REQUEST, c2pa_settings
from serve.provenance.media_types import media_type_of
from serve.provenance.packet_scan import find_properties, searchable
from serve.provenance.printable import printable
from serve.provenance.statement import COMPOSITE, GENERATED
from serve.provenance.xmp import Properties

MAX_MANIFESTS = 32
"""The number of manifests of a chain that a report lists."""
_MAX_ITEMS = 20
_INTEGRITY = "signingCredential.untrusted"
"""The one failure that says nothing about the file: nobody we know vouches for the signer."""
_MARKER = re.compile(rb"jumdc2|C2PA_GIF|caBX|" + re.escape(bytes.fromhex("d8fec3d61b0e483c92975828877ec481")), re.DOTALL)
"""What a file with a manifest holds: the box (JUMBF) that every manifest is in, whatever the format
of the file, or what announces it in a GIF, a PNG or an MP4."""


def read_marks(media: Media, settings: dict[str, Any]) -> Message:
    """Return the report on a file, without its watermark."""
    properties = find_properties(media)
    aigc = find_label(media)
    metadata = None
    if properties is not None:
        aigc = properties.values.get("aigc", aigc)
        values = {name: value for name, value in properties.values.items() if name != "aigc"}
        metadata = {**values, "ingredients": list(properties.ingredients)}
    manifest = read_manifest(media, settings)
    return {"media_type": media_type_of(media), "metadata": metadata, "aigc": aigc, "c2pa": manifest, "watermark": None}


def read_source(media: Media) -> dict[str, str]:
    """Return what a source says of itself that its result has to keep, by our names."""
    properties = find_properties(media) or Properties({})
    label = find_label(media)
    return properties.values if label is None else {"aigc": label, **properties.values}


def has_manifest(media: Media) -> bool:
    """Return whether a file carries a C2PA manifest, even one that is damaged."""
    return read_manifest(media, c2pa_settings()) is not None


def read_manifest(media: Media, settings: dict[str, Any]) -> Message | None:
    """Return what the manifest of a file says and whether it is valid; None if there is none.

    `state` is `valid` for a manifest whose signature and hashes match the file, `trusted` if a
    known authority vouches for the signer too, `invalid` if anything was changed, and `unreadable`.
    """
    with open_media(media) as file:
        try:
            reader = c2pa.Reader(media_type_of(media), file, context=c2pa.Context.from_dict(settings))
        except c2pa.C2paError.ManifestNotFound:
            return None
        except c2pa.C2paError as error:
            return None if _is_absent(error, media) else {"state": "unreadable", "reason": printable(error)}
        try:
            return _summary(json.loads(reader.json()), (reader.get_validation_state() or "Invalid").lower())
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:  # it is not as C2PA has it
            return {"state": "unreadable", "reason": type(error).__name__}


def _is_absent(error: Exception, media: Media) -> bool:
    """Return whether a file has no manifest, of which c2pa says that it cannot read it.

    That may be for its format, or because it is damaged in a way that no player minds. A manifest
    that is kept elsewhere, and only referred to, is not absent.
    """
    if str(error).startswith("Remote"):
        return False
    with searchable(media) as content:
        return _MARKER.search(content) is None


def _summary(report: dict[str, Any], state: str) -> Message:
    manifests = report.get("manifests", {})
    active = report.get("active_manifest", "")
    failures = sorted({str(status.get("code")) for status in report.get("validation_status") or ()})
    return {
        "state": state,
        "failures": [printable(code) for code in failures if code != _INTEGRITY][:_MAX_ITEMS],
        **_manifest(manifests.get(active, {})),
        "chain": [_manifest(manifests[label]) for label in _order(manifests, active)[1:]],
    }


def _order(manifests: dict[str, Any], active: str) -> list[str]:
    """Return the labels of the manifests that lead to the active one, the newest first."""
    ordered: list[str] = []
    ahead = [active]
    while ahead and len(ordered) < MAX_MANIFESTS:
        label = ahead.pop(0)
        if label in ordered or label not in manifests:
            continue
        ordered.append(label)
        ahead += [item["active_manifest"] for item in manifests[label].get("ingredients", ()) if item.get("active_manifest")]
    return ordered


def _manifest(manifest: dict[str, Any]) -> Message:
    """Return what one manifest says, in a form that is always small."""
    signature = manifest.get("signature_info") or {}
    generators = manifest.get("claim_generator_info") or [{}]
    assertions: dict[str, Any] = {}
    for assertion in manifest.get("assertions", ()):
        assertions.setdefault(str(assertion.get("label")).partition("__")[0], assertion.get("data"))
    actions = [action for action in _mapping(_actions(assertions)).get("actions", ()) if isinstance(action, dict)]
    types = [str(action["digitalSourceType"]) for action in actions if action.get("digitalSourceType")]
    return {
        "software": printable(f"{generators[0].get('name', '')} {generators[0].get('version', '')}".strip()),
        "signed_by": printable(signature.get("common_name") or signature.get("issuer") or ""),
        "signed_at": printable(signature.get("time") or ""),
        "test_certificate": NOTICE in assertions,
        "actions": [printable(action.get("action")) for action in actions][:_MAX_ITEMS],
        "digital_source_types": [printable(name) for name in types][:_MAX_ITEMS],
        "made_by_ai": any(name in (GENERATED, COMPOSITE) for name in types),
        "request_id": printable(_mapping(assertions.get(REQUEST)).get("id", "")),
        "generation": {printable(k): printable(v) for k, v in list(_mapping(assertions.get(GENERATION)).items())[:_MAX_ITEMS]},
        "ingredients": len(manifest.get("ingredients", ())),
    }


def _actions(assertions: dict[str, Any]) -> object:
    return assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
