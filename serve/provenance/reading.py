"""Reads the marks of a file: XMP and a C2PA manifest with its chain of ingredients.

This runs in a worker process, since c2pa's library parses files of unknown origin here.
"""

import json
from typing import Any

import c2pa

from serve.media.spool import Media, open_media
from serve.media.workers.messages import Message
from serve.provenance.manifest import GENERATION, NOTICE, REQUEST, c2pa_settings
from serve.provenance.media_types import media_type_of
from serve.provenance.packet_scan import find_properties
from serve.provenance.statement import COMPOSITE, GENERATED

MAX_MANIFESTS = 32
"""The number of manifests of a chain that a report lists."""
MAX_TEXT_CHARS = 200
_MAX_ITEMS = 20
_INTEGRITY = "signingCredential.untrusted"
"""The one failure that says nothing about the file: nobody we know vouches for the signer."""


def read_marks(media: Media, settings: dict[str, Any]) -> Message:
    """Return the report on a file, without its watermark."""
    properties = find_properties(media)
    metadata = None if properties is None else {**properties.values, "ingredients": list(properties.ingredients)}
    manifest = read_manifest(media, settings)
    return {"media_type": media_type_of(media), "metadata": metadata, "c2pa": manifest, "watermark": None}


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
            return None if _is_absent(error) else {"state": "unreadable", "reason": _text(error)}
        report = json.loads(reader.json())
        state = (reader.get_validation_state() or "Invalid").lower()
    return _summary(report, state)


def _is_absent(error: Exception) -> bool:
    """Return whether c2pa says that a format cannot have a manifest."""
    return str(error).startswith(("NotSupported", "UnsupportedType")) or "type is unsupported" in str(error)


def _summary(report: dict[str, Any], state: str) -> Message:
    manifests = report.get("manifests", {})
    active = report.get("active_manifest", "")
    failures = sorted({str(status.get("code")) for status in report.get("validation_status") or ()})
    return {
        "state": state,
        "failures": [_text(code) for code in failures if code != _INTEGRITY][:_MAX_ITEMS],
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
        "software": _text(f"{generators[0].get('name', '')} {generators[0].get('version', '')}".strip()),
        "signed_by": _text(signature.get("common_name") or signature.get("issuer") or ""),
        "signed_at": _text(signature.get("time") or ""),
        "test_certificate": NOTICE in assertions,
        "actions": [_text(action.get("action")) for action in actions][:_MAX_ITEMS],
        "digital_source_types": [_text(name) for name in types][:_MAX_ITEMS],
        "made_by_ai": any(name in (GENERATED, COMPOSITE) for name in types),
        "request_id": _text(_mapping(assertions.get(REQUEST)).get("id", "")),
        "generation": {_text(k): _text(v) for k, v in list(_mapping(assertions.get(GENERATION)).items())[:_MAX_ITEMS]},
        "ingredients": len(manifest.get("ingredients", ())),
    }


def _actions(assertions: dict[str, Any]) -> object:
    return assertions.get("c2pa.actions.v2") or assertions.get("c2pa.actions")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Return printable text of limited length, whatever a file says."""
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict | int) else str(value)
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT_CHARS])
