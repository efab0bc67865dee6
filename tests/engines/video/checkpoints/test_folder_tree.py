"""What is below a folder, also through links, and what `ryla models check` says of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.folder_tree import read_tree
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.checkpoints.published import PAIR, write


def below(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in read_tree(root).files]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_files_are_found_behind_links_to_folders(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere/styles/ink.safetensors", tmp_path / "models/b", tmp_path / "models/a/c")
    (tmp_path / "models/loras").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "models/one").symlink_to(tmp_path / "models/b")
    assert below(tmp_path / "models") == ["a/c", "b", "loras/styles/ink.safetensors", "one"]
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert below(tmp_path / "link") == ["a/c", "b", "loras/styles/ink.safetensors", "one"]


def test_links_in_a_circle_come_to_an_end_and_no_folder_is_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path / "models/z/file")
    (tmp_path / "models/z/up").symlink_to(tmp_path)
    (tmp_path / "models/a").symlink_to("z")  # a relative link, before the folder in the order of names
    (tmp_path / "models/self").symlink_to(".")
    (tmp_path / "models/loop").symlink_to("loop")
    assert below(tmp_path / "models") == ["loop", "z/file"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "locked/file", tmp_path / "open/file")
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert below(tmp_path) == ["open/file"]
    (finding,) = check_video_models(tmp_path)
    assert finding.path == tmp_path / "locked"
    assert finding.faults == ("cannot be looked into: Permission denied",)


def test_models_behind_links_are_checked_once(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    real, models = tmp_path / "disk", tmp_path / "ComfyUI" / "models"
    real.mkdir()
    models.mkdir(parents=True)
    write(real / "ink.safetensors", PAIR)
    (real / "back").symlink_to(tmp_path / "ComfyUI")
    (models / "loras").symlink_to(real)
    (models / "again").symlink_to(real)
    (models / "text").symlink_to(random_models.text)
    (models / "gone.safetensors").symlink_to(tmp_path / "removed.safetensors")
    found = {str(finding.path.relative_to(models)): finding for finding in check_video_models(models)}
    lora = "again/ink.safetensors"  # the first of both links
    assert found.keys() == {lora, "text", "gone.safetensors"}
    assert found["text"].setting == "models.wan26.text"
    assert (found["text"].faults, found[lora].faults) == ((), ())
    assert found["gone.safetensors"].faults == (f"leads to {tmp_path / 'removed.safetensors'}, which does not exist",)
