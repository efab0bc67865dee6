"""The folder of LoRAs: names, pairs, trigger words and copies of what is in a bucket."""

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from deployments.lora_folder import LoraFolder, same_spelling
from tests.unit.deployments.safetensors_files import safetensors


def write(folder: Path, *names: str) -> None:
    """Write a LoRA under each of these names, which have no extension and may be in subfolders."""
    for name in names:
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(safetensors())


@pytest.fixture
def folder(tmp_path: Path) -> LoraFolder:
    write(tmp_path, "palette", "ink_high_noise", "ink_low_noise", "Wan22-HIGH-film", "old style v1.2")
    write(tmp_path, ".hidden", "below/deep", "below/deeper")
    (tmp_path / "notes.txt").write_text("no LoRA")
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
    write(tmp_path, "ink", "ink_high", "ink_low", "high")
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {
        "high": ["high"],
        "ink": ["all"],
        "ink_high": ["high"],
        "ink_low": ["low"],
    }


def test_letters_for_sizes_are_no_experts(tmp_path: Path) -> None:
    names = ["style-S", "style-M", "style-L", "style-H", "HoloHi", "HoloLo"]
    write(tmp_path, *names)
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {name: ["all"] for name in names}


def test_of_several_ways_to_pair_names_the_last_words_decide(tmp_path: Path) -> None:
    write(tmp_path, *(f"{first}_poly_{last}" for first in ("high", "low") for last in ("high", "low")))
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: {expert: file.name for expert, file in entry.files.items()} for name, entry in entries.items()} == {
        f"{first}_poly": {last: f"{first}_poly_{last}.safetensors" for last in ("high", "low")} for first in ("high", "low")
    }


LONE = (
    "low_poly_style",
    "LowPoly_x",
    "High-Fantasy-v2",
    "style-low-key-lighting",
    "my high",
    "Low Light 2",
    "ink-H",
    "LN 4",
    "hi there",
    "wan22_low_angle",
    "Wan2.2_high_fashion",
    "WAN22_LOW_INK",
    "HIGH_RES_ink",
)
HALVES = {
    "ink_high_noise": ("ink", "high"),
    "InkLowNoise": ("Ink", "low"),
    "ink-HIGH": ("ink", "high"),
    "LOW_ink": ("ink", "low"),
    "low_poly_high_noise": ("low_poly", "high"),
    "low-key-HIGH": ("low-key", "high"),
    "low_noise_low_key": ("low_key", "low"),
    "ink_hinoise": ("ink", "high"),
    "ink lo-noise": ("ink", "low"),
    "high": ("high", "high"),
    "Low": ("Low", "low"),
    "Low_Poly_LOW": ("Low_Poly", "low"),
    "INK_HIGH": ("INK", "high"),
    "WAN22_INK_LOW": ("WAN22_INK", "low"),
    "wan22_ink_low_rank64": ("wan22_ink_rank64", "low"),
    "wan22-ink-high-v2": ("wan22-ink-v2", "high"),
    "wan22_high_lora_ink": ("wan22_lora_ink", "high"),
    "wan22_low_000012": ("wan22_000012", "low"),
}


@pytest.mark.parametrize("name", [*LONE, *HALVES])
def test_a_lone_file_is_half_a_pair_only_if_its_name_leaves_no_doubt(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    shared, expert = HALVES.get(name, (name, "all"))
    (entry,) = LoraFolder(str(tmp_path)).entries().values()
    assert (entry.name, list(entry.files)) == (shared, [expert])


PAIRS = {
    "plain": ("ink_high", "ink_low", "ink"),
    "in the middle": ("ink-high-v2", "ink-low-v2", "ink-v2"),
    "in capitals and not": ("ink-HIGH", "ink-low", "ink"),
    "with noise and without": ("ink_high_noise", "ink-low-noise", "ink"),
    "beside another low": ("low_poly_high_noise", "low_poly_low_noise", "low_poly"),
    "of another word": ("wan22_high_orbit", "wan22_low_orbit", "wan22_orbit"),
    "abbreviated noise": ("ink_hinoise", "ink_lownoise", "ink"),
    "abbreviated noises": ("ink-hi-noise", "ink-lo-noise", "ink"),
    "a letter": ("NSFW-22-H-e8", "NSFW-22-L-e8", "NSFW-22-e8"),
    "initials": ("ink HN", "ink LN", "ink"),
    "abbreviated and not": ("wan22_ink_high", "wan22_ink_L", "wan22_ink"),
    "with low in both": ("low_poly_high", "low_poly_low", "low_poly"),
    "with low in both, in capitals": ("Low_Poly_HIGH", "Low_Poly_LOW", "Low_Poly"),
    "with low in the middle of both": ("HIGH-low-angle-v2", "LOW-low-angle-v2", "low-angle-v2"),
    "in brackets": ("ink (high)", "ink (low)", "ink"),
    "noise in brackets": ("Ink [High Noise] v2", "Ink [Low Noise] v2", "Ink v2"),
    "twice": ("ink-HIGH-high_noise", "ink-LOW-low_noise", "ink"),
    "all in capitals": ("INK_HIGH_V2", "INK_LOW_V2", "INK_V2"),
    "capitals in one": ("WAN2.2-HighNoise_ink", "Wan2.2-LowNoise_Ink", "WAN2.2-ink"),
}


@pytest.mark.parametrize("form", PAIRS)
def test_two_files_that_differ_in_the_expert_are_a_pair(tmp_path: Path, form: str) -> None:
    high, low, shared = PAIRS[form]
    write(tmp_path, high, low, "low_key", "high_sea")
    entries = LoraFolder(str(tmp_path)).entries()
    assert sorted(entries) == sorted([shared, "low_key", "high_sea"])
    assert {expert: file.name for expert, file in entries[shared].files.items()} == {
        "high": f"{high}.safetensors",
        "low": f"{low}.safetensors",
    }


OTHER_PAIRS = {
    "adjectives": ("low_angle", "high_angle"),
    "in capitals": ("LOW_KEY_portrait", "HIGH_KEY_portrait"),
    "of one expert": ("low_poly_HIGH", "high_poly_HIGH"),
    "of one expert, of another word": ("low_orbit_HIGH", "high_orbit_HIGH"),
    "of ranks": ("ink_low_rank", "ink_high_rank"),
}


@pytest.mark.parametrize("form", OTHER_PAIRS)
def test_two_files_that_differ_in_another_high_and_low_are_no_pair(tmp_path: Path, form: str) -> None:
    write(tmp_path, *OTHER_PAIRS[form])
    entries = LoraFolder(str(tmp_path)).entries()
    assert [len(entry.files) for entry in entries.values()] == [1, 1]


def test_the_halves_of_a_pair_beside_a_file_of_its_name_change_one_expert_each(tmp_path: Path) -> None:
    write(tmp_path, "ink", "ink_high_noise", "ink_low_noise")
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {
        "ink": ["all"],
        "ink_high_noise": ["high"],
        "ink_low_noise": ["low"],
    }


def test_files_of_two_trainings_for_a_model_with_two_experts_change_one_expert_each(tmp_path: Path) -> None:
    write(tmp_path, "wan22-ink-high-e20", "wan22-ink-low-e40")
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: list(entry.files) for name, entry in entries.items()} == {"wan22-ink-e20": ["high"], "wan22-ink-e40": ["low"]}


SUBFOLDERS = {
    "PEFT": (["adapter_model"], ["adapter_config.json"], {"all": "adapter_model"}),
    "diffusers": (["pytorch_lora_weights"], [], {"all": "pytorch_lora_weights"}),
    "two experts": (["high_noise_model", "low_noise_model"], [], {"high": "high_noise_model", "low": "low_noise_model"}),
    "two words": (["high", "low"], [], {"high": "high", "low": "low"}),
    "one expert": (["ink-HIGH"], ["README.md"], {"high": "ink-HIGH"}),
}


@pytest.mark.parametrize("form", SUBFOLDERS)
def test_a_subfolder_with_one_lora_is_known_by_its_name(tmp_path: Path, form: str) -> None:
    names, others, expected = SUBFOLDERS[form]
    write(tmp_path, "ink", *(f"my style/{name}" for name in names))
    for other in others:
        (tmp_path / "my style" / other).write_text("{}")
    entries = LoraFolder(str(tmp_path)).entries()
    assert sorted(entries) == ["ink", "my style"]
    assert {expert: file.name for expert, file in entries["my style"].files.items()} == {
        expert: f"my style/{name}.safetensors" for expert, name in expected.items()
    }


def test_two_subfolders_are_a_pair_like_two_files(tmp_path: Path) -> None:
    write(tmp_path, "ink_high/adapter_model", "ink_low/adapter_model")
    (entry,) = LoraFolder(str(tmp_path)).entries().values()
    assert (entry.name, {expert: file.name for expert, file in entry.files.items()}) == (
        "ink",
        {"high": "ink_high/adapter_model.safetensors", "low": "ink_low/adapter_model.safetensors"},
    )


@pytest.mark.parametrize("inside", [["a", "b"], [], ["high_noise", "low_noise"]], ids=["several", "none", "a pair"])
def test_a_file_goes_before_a_subfolder_and_several_loras_have_no_name(tmp_path: Path, inside: list[str]) -> None:
    (tmp_path / "ink").mkdir()
    write(tmp_path, "ink", *(f"ink/{name}" for name in inside))
    entries = LoraFolder(str(tmp_path)).entries()
    assert {name: entry.files["all"].name for name, entry in entries.items()} == {"ink": "ink.safetensors"}


def test_a_subfolder_with_several_loras_is_named_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder of ComfyUI, which people sort by models."""
    write(tmp_path, "wan22/ink_high", "wan22/ink_low", "wan22/palette", "sepia/adapter_model", "film")
    monkeypatch.setattr("deployments.lora_folder.LISTED_S", -1.0)  # each call lists again
    folder = LoraFolder(str(tmp_path))
    for _ in range(2):
        assert sorted(folder.entries()) == ["film", "sepia"]
    (said,) = caplog.messages
    assert "the subfolder wan22 is passed over, because it has 2 LoRAs" in said
    assert sorted(LoraFolder(str(tmp_path / "wan22")).entries()) == ["ink", "palette"]


def test_a_subfolder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "ink", "lost+found/x")
    listed = LocalFileSystem.ls

    def refuse(self: LocalFileSystem, path: str, detail: bool = False, **options: Any) -> Any:
        if path.endswith("lost+found"):
            raise PermissionError(path)
        return listed(self, path, detail=detail, **options)

    monkeypatch.setattr(LocalFileSystem, "ls", refuse)
    assert list(LoraFolder(str(tmp_path)).entries()) == ["ink"]
    assert "the subfolder lost+found is left out" in caplog.text


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_an_adapter_of_a_bucket_is_copied_with_its_settings_and_anew_when_they_change(bucket: Any) -> None:
    bucket.pipe("/loras/ink/adapter_model.safetensors", safetensors())
    bucket.pipe("/loras/ink/adapter_config.json", b'{"lora_alpha": 8}')
    folder = LoraFolder("memory://loras")
    file = folder.entries()["ink"].files["all"]
    path = folder.path_of(file)
    assert path.name == "adapter_model.safetensors"
    assert path.read_bytes() == safetensors()
    assert path.with_name("adapter_config.json").read_bytes() == b'{"lora_alpha": 8}'
    assert folder.path_of(file) == path, "it is copied once"
    bucket.pipe("/loras/ink/adapter_config.json", b'{"lora_alpha": 64}')
    (changed,) = LoraFolder("memory://loras").entries()["ink"].files.values()
    assert changed != file, "so that nothing takes it for the one that is loaded"
    assert folder.path_of(changed).with_name("adapter_config.json").read_bytes() == b'{"lora_alpha": 64}'


def test_copies_of_a_bucket_are_dropped_when_they_take_too_much(bucket: Any) -> None:
    names = ("ink", "film", "wash")
    for name in names:
        bucket.pipe(f"/loras/{name}.safetensors", safetensors())
    folder = LoraFolder("memory://loras", max_copied_bytes=2 * len(safetensors()))
    files = [folder.entries()[name].files["all"] for name in names]
    copies = [folder.path_of(file) for file in files[:2]]
    for age, copy in enumerate(copies):
        os.utime(copy.parent, (age, age))
    copies.append(folder.path_of(files[2]))
    assert [copy.exists() for copy in copies] == [False, True, True]
    assert folder.path_of(files[0]).exists()
    assert [copy.exists() for copy in copies] == [True, False, True]


def test_a_name_has_its_accents_as_callers_write_them(tmp_path: Path) -> None:
    """A Mac stores a letter and its accent apart."""
    stored = unicodedata.normalize("NFD", "encre légère")
    (tmp_path / f"{stored}.safetensors").write_bytes(b"")
    (name,) = LoraFolder(str(tmp_path)).entries()
    assert name == "encre légère" == same_spelling(stored) != stored
    assert LoraFolder(str(tmp_path)).path_of(LoraFolder(str(tmp_path)).entries()[name].files["all"]).is_file()


def test_a_name_that_is_not_text_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "ink", os.fsdecode(b"\xff\xfe"), "Tusche 墨")
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
