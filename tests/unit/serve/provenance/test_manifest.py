"""A manifest says what was made, of what, and no more than was asked for."""

from dataclasses import replace
from typing import Any

import pytest

from serve.provenance.manifest import GENERATION, NOTICE, REQUEST, TEST_NOTICE, c2pa_settings, ingredient, manifest_of
from serve.provenance.statement import COMPOSITE, GENERATED, SOFTWARE, VERSION, Statement
from tests.unit.serve.provenance.results import REQUEST_ID, STATEMENT

PARENT, INPUT = ingredient(1, parent=True), ingredient(2, parent=False)
QUIET: dict[str, Any] = {"model": False, "seed": False, "is_test": False}


def statement(kind: Any) -> Statement:
    return replace(STATEMENT, kind=kind)


@pytest.mark.parametrize(
    ("kind", "ingredients", "actions"),
    [
        ("generated", [], ["c2pa.created"]),
        ("generated", [INPUT], ["c2pa.created"]),
        ("generated", [PARENT], ["c2pa.opened", "c2pa.edited"]),
        ("edited", [PARENT, INPUT], ["c2pa.opened", "c2pa.edited"]),
        ("edited", [], ["c2pa.edited"]),
        ("unchanged", [PARENT], ["c2pa.opened", "c2pa.edited"]),
        ("unchanged", [], ["c2pa.edited"]),
    ],
)
def test_only_what_a_model_made_by_itself_is_created(kind: str, ingredients: list[dict[str, Any]], actions: list[str]) -> None:
    manifest = manifest_of(statement(kind), ingredients=ingredients, **QUIET)
    (label, data), *_ = [(one["label"], one["data"]) for one in manifest["assertions"]]
    assert label == "c2pa.actions.v2"
    assert [action["action"] for action in data["actions"]] == actions
    last = data["actions"][-1]
    assert last.get("digitalSourceType") == {"generated": GENERATED, "edited": COMPOSITE, "unchanged": None}[kind]
    assert (last["when"], last["softwareAgent"]) == ("2026-11-26T08:30:00Z", {"name": SOFTWARE, "version": VERSION})
    assert last.get("parameters") == ({"ingredientIds": ["input-2"]} if INPUT in ingredients else None)
    if PARENT in ingredients:
        assert data["actions"][0]["parameters"] == {"ingredientIds": ["source-1"]}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, None),
        ({"model": True}, {"models": ["wan26"]}),
        ({"seed": True}, {"seed": 7}),
        ({"model": True, "seed": True}, {"models": ["wan26"], "seed": 7}),
    ],
)
def test_model_and_seed_are_told_only_if_asked(asked: dict[str, bool], told: dict[str, Any] | None) -> None:
    manifest = manifest_of(STATEMENT, ingredients=[], **{**QUIET, **asked})
    data = {one["label"]: one["data"] for one in manifest["assertions"]}
    assert data.get(GENERATION) == told
    assert data[REQUEST] == {"id": REQUEST_ID}
    assert NOTICE not in data


def test_a_seed_that_is_0_is_told_and_one_that_is_absent_is_not() -> None:
    for seed, told in ((0, {"seed": 0}), (None, None)):
        manifest = manifest_of(replace(STATEMENT, seed=seed), ingredients=[], **{**QUIET, "seed": True})
        assert {one["label"]: one["data"] for one in manifest["assertions"]}.get(GENERATION) == told


def test_a_test_certificate_says_that_it_proves_nothing() -> None:
    manifest = manifest_of(STATEMENT, ingredients=[], **{**QUIET, "is_test": True})
    assert manifest["assertions"][-1] == {"label": NOTICE, "data": {"notice": TEST_NOTICE}}


def test_c2pa_may_reach_the_named_hosts_alone_and_writes_no_pictures_or_actions_of_its_own() -> None:
    settings = c2pa_settings(["tsa.example.org"], trust_anchors="PEM")
    assert settings["core"]["allowed_network_hosts"] == ["tsa.example.org"]
    assert settings["core"]["allow_redirects"] is False
    assert (settings["verify"]["ocsp_fetch"], settings["verify"]["remote_manifest_fetch"]) == (False, False)
    assert settings["builder"]["thumbnail"] == {"enabled": False}
    assert {name: value["enabled"] for name, value in settings["builder"]["actions"].items()} == {
        "auto_created_action": False,
        "auto_opened_action": False,
        "auto_placed_action": False,
    }
    assert settings["trust"] == {"user_anchors": "PEM"}
    assert c2pa_settings()["core"]["allowed_network_hosts"] == []
    assert "trust" not in c2pa_settings()
