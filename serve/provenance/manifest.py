"""The definition of a C2PA manifest, as c2pa's Builder takes it."""

from collections.abc import Sequence
from typing import Any

from serve.provenance.statement import SOFTWARE, VERSION, Statement

REQUEST = "ryla.request"
"""The label of the assertion with the id under which the operator's log has the request."""
GENERATION = "ryla.generation"
"""The label of the assertion with the model and the seed, where the settings ask for them."""
NOTICE = "ryla.notice"
"""The label of the assertion that says that the certificate is a test."""
TEST_NOTICE = (
    "This manifest is signed with a test certificate that this installation made for itself. Nobody vouches for it, "
    "so it proves nothing about who signed."
)

_UNSPOKEN = {"thumbnail": {"enabled": False}}
_NO_ACTIONS = {f"auto_{name}_action": {"enabled": False} for name in ("created", "opened", "placed")}


def c2pa_settings(hosts: Sequence[str] = (), trust_anchors: str | None = None) -> dict[str, Any]:
    """Return the settings of a c2pa context, which may reach ``hosts`` alone and no other host.

    Thumbnails would put pictures into the manifest, and actions that nobody asked for would
    repeat ours.
    """
    return {
        "version": 1,
        "core": {
            "allowed_network_hosts": list(hosts),
            "allow_redirects": False,
            "decode_identity_assertions": False,
        },
        "verify": {
            "verify_after_sign": False,
            "verify_trust": True,
            "verify_timestamp_trust": True,
            "ocsp_fetch": False,
            "remote_manifest_fetch": False,
        },
        "builder": {**_UNSPOKEN, "actions": _NO_ACTIONS},
        **({"trust": {"user_anchors": trust_anchors}} if trust_anchors else {}),
    }


def manifest_of(
    statement: Statement, *, model: bool, seed: bool, is_test: bool, ingredients: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the definition of the manifest for a result.

    ``ingredients`` are those of the manifest; see ``ingredient``. ``model`` and ``seed`` say
    whether the manifest names them. What was changed is edited even if its sources are left out of
    the manifest; only what a model has made by itself is created.
    """
    agent = {"name": SOFTWARE, "version": VERSION}
    when = statement.made_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    parents = [item["label"] for item in ingredients if item["relationship"] == "parentOf"]
    inputs = [item["label"] for item in ingredients if item["relationship"] != "parentOf"]
    made: dict[str, Any] = {
        "action": "c2pa.created" if statement.kind == "generated" and not parents else "c2pa.edited",
        "when": when,
        "softwareAgent": agent,
    }
    if statement.source_type is not None:
        made["digitalSourceType"] = statement.source_type
    if inputs:
        made["parameters"] = {"ingredientIds": inputs}
    opened = [{"action": "c2pa.opened", "parameters": {"ingredientIds": parents}}] if parents else []
    generation = {
        **({"models": list(statement.models)} if model else {}),
        **({"seed": statement.seed} if seed and statement.seed is not None else {}),
    }
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": [*opened, made]}},
        {"label": REQUEST, "data": {"id": statement.request_id}},
    ]
    if generation:
        assertions.append({"label": GENERATION, "data": generation})
    if is_test:
        assertions.append({"label": NOTICE, "data": {"notice": TEST_NOTICE}})
    return {"claim_generator_info": [agent], "assertions": assertions}


def ingredient(number: int, *, parent: bool) -> dict[str, Any]:
    """Return the definition of an ingredient; the file itself gives its format and its manifest."""
    label = f"source-{number}" if parent else f"input-{number}"
    return {"title": label, "label": label, "relationship": "parentOf" if parent else "inputTo"}
