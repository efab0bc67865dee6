"""The folder of LoRAs: names, pairs, trigger words and copies of what is in a bucket."""

import json
import os
from pathlib import Path

import pytest

from deployments.lora_folder import LoraFolder
from tests.unit.deployments.safetensors_files import safetensors


@pytest.fixture
def folder(tmp_path: Path) -> LoraFolder:
    for name in ("palette", "ink_high_noise", "ink_low_noise", "Wan22-HIGH-film", "old style v1.2"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    (tmp_path / "notes.txt").write_text("no LoRA")
    (tmp_path / ".hidden.safetensors").write_bytes(safetensors())
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "deep.safetensors").write_bytes(safetensors())
    return LoraFolder(str(tmp_path))


def test_files_are_known_by_name_and_pairs_by_what_they_share(folder: LoraFolder) -> None:
    entries = folder.entries()
    assert sorted(entries) == ["Wan22-film", "ink", "old style v1.2", "palette"]
    assert {expert: file.name for expert, file in entries["ink"].files.items()} == {
        "high": "ink_high_noise.safetensors",
        "low": "ink_low_noise.safetensors",
    }
    assert list(entries["Wan22-film"].files) == ["high"]
    assert folder.path_of(entries["palette"].files["all"]).read_bytes() == safetensors()


@pytest.mark.parametrize(
    "name", ["../palette", "below/deep", "palette.safetensors", "/etc/passwd", "", ".hidden", "ink_high_noise"]
)
def test_nothing_else_has_a_name(folder: LoraFolder, name: str) -> None:
    assert name not in folder.entries()


def test_a_pair_does_not_take_the_name_of_a_file(tmp_path: Path) -> None:
    for name in ("ink", "ink_high", "ink_low", "high"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    assert sorted(LoraFolder(str(tmp_path)).entries()) == ["high", "ink", "ink_high", "ink_low"]


LONE = ("low_poly_style", "LowPoly_x", "High-Fantasy-v2", "style-low-key-lighting", "high", "my high", "Low Light 2")
HALVES = {
    "ink_high_noise": ("ink", "high"),
    "InkLowNoise": ("Ink", "low"),
    "ink-HIGH": ("ink", "high"),
    "LOW_ink": ("ink", "low"),
    "low_poly_high_noise": ("low_poly", "high"),
    "low-key-HIGH": ("low-key", "high"),
    "low_noise_low_key": ("low_key", "low"),
}


@pytest.mark.parametrize("name", [*LONE, *HALVES])
def test_a_lone_file_is_half_a_pair_only_if_its_name_leaves_no_doubt(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    shared, expert = HALVES.get(name, (name, "all"))
    (entry,) = LoraFolder(str(tmp_path)).entries().values()
    assert (entry.name, list(entry.files)) == (shared, [expert])


PAIRS = {
    "plain": ("ink_high", "ink_low", "ink"),
    "in the middle": ("ink-high-v2", "ink-low-v2", "ink-v2"),
    "in capitals and not": ("ink-HIGH", "ink-low", "ink"),
    "with noise and without": ("ink_high_noise", "ink-low-noise", "ink"),
    "beside another low": ("low_poly_high_noise", "low_poly_low_noise", "low_poly"),
    "of another word": ("high_poly", "low_poly", "poly"),
}


@pytest.mark.parametrize("form", PAIRS)
def test_two_files_that_differ_in_the_expert_are_a_pair(tmp_path: Path, form: str) -> None:
    high, low, shared = PAIRS[form]
    for name in (high, low, "low_key", "high_sea"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    entries = LoraFolder(str(tmp_path)).entries()
    assert sorted(entries) == sorted([shared, "low_key", "high_sea"])
    assert {expert: file.name for expert, file in entries[shared].files.items()} == {
        "high": f"{high}.safetensors",
        "low": f"{low}.safetensors",
    }


def test_the_halves_of_a_pair_beside_a_file_of_its_name_change_one_expert_each(tmp_path: Path) -> None:
    for name in ("ink", "ink_high_noise", "ink_low_noise"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {
        "ink": ["all"],
        "ink_high_noise": ["high"],
        "ink_low_noise": ["low"],
    }


def test_files_of_two_trainings_for_a_model_with_two_experts_change_one_expert_each(tmp_path: Path) -> None:
    for name in ("wan22-ink-high-e20", "wan22-ink-low-e40"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors())
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {"wan22-ink-e20": ["high"], "wan22-ink-e40": ["low"]}


def test_a_name_that_is_not_text_is_passed_over(tmp_path: Path) -> None:
    for name in (b"ink", b"\xff\xfe", "Tusche 墨".encode()):
        (tmp_path / os.fsdecode(name + b".safetensors")).write_bytes(safetensors())
    assert sorted(LoraFolder(str(tmp_path)).entries()) == ["Tusche 墨", "ink"]


WORDS = {
    "modelspec": ({"modelspec.trigger_phrase": "in ink style"}, ("in ink style",)),
    "a list": ({"trigger_words": '["ink", " wash "]'}, ("ink", "wash")),
    "commas": ({"trigger_word": "ink, wash"}, ("ink", "wash")),
    "tags": ({"ss_tag_frequency": json.dumps({"1_x": {"cat": 3, "ink": 9}, "2_y": {"cat": 9}})}, ("cat", "ink")),
    "none": ({}, ()),
    "damaged tags": ({"ss_tag_frequency": "[1, 2"}, ()),
    "tags of another form": ({"ss_tag_frequency": '{"a": ["b"]}'}, ()),
    "tags without end": ({"ss_tag_frequency": '{"1_x": {"ink": 1e999}}'}, ()),
    "tags that are NaN": ({"ss_tag_frequency": '{"1_x": {"ink": NaN}}'}, ()),
    "tags that are no table": ({"ss_tag_frequency": "[[]]"}, ()),
    "half a surrogate pair": ({"trigger_word": "ink \ud800"}, ("ink ?",)),
    "half a surrogate pair in a list": ({"trigger_words": '["\\udfff", 5, null]'}, ("?",)),
    "a list in a list": ({"trigger_words": "[" * 200 + "]" * 200}, ()),
    "too long": ({"trigger_word": "x" * 9999}, ("x" * 200,)),
}


@pytest.mark.parametrize("form", WORDS)
def test_trigger_words_come_from_the_header(tmp_path: Path, form: str) -> None:
    metadata, expected = WORDS[form]
    (tmp_path / "a.safetensors").write_bytes(safetensors(metadata))
    folder = LoraFolder(str(tmp_path))
    assert folder.trigger_words(folder.entries()["a"]) == expected
