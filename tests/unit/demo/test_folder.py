"""The cache folder: filled once, whole or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.folder import default_root, ensure_folder


def test_the_folder_is_filled_once_even_by_several_callers(tmp_path: Path) -> None:
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "model.onnx").write_text("weights")

    with ThreadPoolExecutor(4) as threads:
        folders = [*threads.map(lambda _: ensure_folder("models", write, tmp_path), range(8))]
    assert set(folders) == {tmp_path / "models"}
    assert len(calls) == 1
    assert (tmp_path / "models" / "model.onnx").read_text() == "weights"


def test_a_failure_leaves_no_partial_folder_and_the_next_call_tries_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        ensure_folder("models", fail, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["models.lock"]
    ensure_folder("models", lambda folder: (folder / "whole").touch(), tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["whole"]


def test_the_root_is_configured_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RYLA_DEMO_DIR", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("RYLA_DEMO_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / ".cache" / "ryla"
