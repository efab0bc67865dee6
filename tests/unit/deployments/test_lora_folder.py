"""The folder of LoRAs: names, pairs, trigger words and copies of what is in a bucket."""

import json
import os
import struct
import uuid
from io import BytesIO
from pathlib import Path

import fsspec
import pytest

from deployments import lora_folder
from deployments.lora_folder import LoraFileBroken, LoraFolder, LoraFolderUnavailable
from deployments.safetensors_header import read_header


def safetensors(metadata: dict[str, str] | None = None, content: bytes = b"\0" * 8) -> bytes:
    """Return a safetensors file of one tensor, written here and not by a library."""
    header = {"a.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, len(content)]}}
    text = json.dumps({**({"__metadata__": metadata} if metadata else {}), **header}).encode()
    return struct.pack("<Q", len(text)) + text + content


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "shorter than a header"),
        (safetensors()[:-1], "its header speaks of"),
        (safetensors() + b"\0", "its header speaks of"),
        (b"", "shorter than a header"),
        (None, "No such file"),
    ],
    ids=["a page", "cut off", "too long", "empty", "a link to nothing"],
)
def test_a_broken_file_is_told_from_the_others(tmp_path: Path, content: bytes | None, reason: str) -> None:
    (tmp_path / "good.safetensors").write_bytes(safetensors({"trigger_word": "ink"}))
    if content is None:
        (tmp_path / "a.safetensors").symlink_to(tmp_path / "nothing")
    else:
        (tmp_path / "a.safetensors").write_bytes(content)
    folder = LoraFolder(str(tmp_path))
    entries = folder.entries()
    assert sorted(entries) == ["a", "good"]
    with pytest.raises(LoraFileBroken, match=f"a.safetensors cannot be used: .*{reason}"):
        folder.trigger_words(entries["a"])
    assert folder.trigger_words(entries["good"]) == ("ink",)


def test_a_bucket_that_is_lost_while_it_is_read_is_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors())
    folder = LoraFolder(str(tmp_path))
    entry = folder.entries()["a"]
    for error in (ConnectionResetError("reset"), TimeoutError("slow"), RuntimeError("of a package")):

        def lose(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(lora_folder, "read_header", lose)
        with pytest.raises(LoraFolderUnavailable, match="cannot be read"):
            folder.trigger_words(entry)


def test_links_to_files_are_files_and_links_to_folders_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the cache of a hub, and a folder that another program shares, have them."""
    monkeypatch.setattr(lora_folder, "LISTED_S", -1.0)
    blob, loras = tmp_path / "blob", tmp_path / "loras"
    blob.write_bytes(safetensors())
    loras.mkdir()
    (loras / "ink.safetensors").symlink_to(blob)
    (loras / "folder.safetensors").symlink_to(tmp_path)
    folder = LoraFolder(str(loras))
    (entry,) = folder.entries().values()
    first = entry.files["all"]
    assert (entry.name, first.nbytes, folder.path_of(first).read_bytes()) == ("ink", len(safetensors()), safetensors())
    os.utime(blob, (1, 1))
    assert folder.entries()["ink"].files["all"] != first, "the file has another version"


def test_a_file_that_is_added_is_found_once_the_list_is_old(
    folder: LoraFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "new" not in folder.entries()
    (tmp_path / "new.safetensors").write_bytes(safetensors())
    assert "new" not in folder.entries()
    monkeypatch.setattr(lora_folder, "LISTED_S", -1.0)
    assert "new" in folder.entries()


def test_files_of_a_bucket_are_copied_once_and_the_oldest_copies_go(tmp_path: Path) -> None:
    root = f"memory://loras-{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    size = len(safetensors())
    for name in "abc":
        system.pipe_file(f"{root}/{name}.safetensors", safetensors(content=name.encode() * 8))
    folder = LoraFolder(root, max_copied_bytes=2 * size)
    files = {name: entry.files["all"] for name, entry in folder.entries().items()}
    assert sorted(files) == ["a", "b", "c"]
    first = folder.path_of(files["a"])
    assert first.read_bytes().endswith(b"a" * 8)
    assert folder.path_of(files["a"]) == first
    folder.path_of(files["b"])
    third = folder.path_of(files["c"])
    assert third.read_bytes().endswith(b"c" * 8)
    assert sum(path.stat().st_size for path in third.parent.iterdir()) <= 2 * size
    system.rm(root, recursive=True)
    with pytest.raises(LoraFolderUnavailable, match=r"b\.safetensors cannot be fetched|a\.safetensors cannot be fetched"):
        [folder.path_of(file) for file in files.values()]


@pytest.mark.parametrize("url", ["nowhere://bucket", "memory://none", "/no/such/folder"])
def test_a_folder_that_cannot_be_read_says_so(url: str) -> None:
    with pytest.raises(LoraFolderUnavailable, match=url):
        LoraFolder(url).entries()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "shorter than a header"),
        (b"<!doctype html><html>", "does not begin with the length"),
        (struct.pack("<Q", 2**62), "does not begin with the length"),
        (struct.pack("<Q", 100) + b"{}", "cut off"),
        (struct.pack("<Q", 4) + b"[[]]", "damaged"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "damaged"),
    ],
)
def test_what_is_no_header_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_header(BytesIO(content))


def test_a_header_tells_shapes_and_the_size_of_the_file() -> None:
    data = safetensors({"author": "me"})
    header = read_header(BytesIO(data))
    assert header.shapes == {"a.lora_A.weight": (1, 2)}
    assert header.dtypes == {"a.lora_A.weight": "F32"}
    assert header.metadata == {"author": "me"}
    assert header.nbytes == len(data)
