"""`ryla models check`: a wrong file is named, with what is wrong with it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deployments.errors import CheckpointRefused
from deployments.faces.files import check_files, read_checksums
from deployments.faces.paste import ARCFACE
from serve.cli import app
from tests.deployments import onnx_graphs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pack = tmp_path / "buffalo_l"
    pack.mkdir()
    onnx_graphs.scrfd(pack / "det_10g.onnx", ARCFACE.astype(np.float32), (50, 40, 110, 120))
    onnx_graphs.arcface(pack / "w600k_r50.onnx")
    onnx_graphs.inswapper(tmp_path / "inswapper_128.onnx")
    onnx_graphs.restorer(tmp_path / "GFPGANv1.4.onnx", codeformer=False)
    onnx_graphs.restorer(tmp_path / "codeformer.onnx", codeformer=True)
    onnx_graphs.xseg(tmp_path / "dfl_xseg.onnx")
    onnx_graphs.parser(tmp_path / "bisenet_resnet_34.onnx")
    return tmp_path


def faults(folder: Path, **checksums: str) -> dict[str, tuple[str, ...]]:
    sums = {name.replace("__", "."): value for name, value in checksums.items()}
    reports = check_files(folder, sums)
    return {report.path.name if report.path else report.signature.what: report.faults for report in reports if report.faults}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", "check", *arguments])
    return result.exit_code, result.output


def test_files_of_the_published_signatures_are_good(folder: Path) -> None:
    assert faults(folder) == {}
    code, output = run(str(folder))
    assert code == 0, output
    assert output.count("good") == 7


def test_what_is_missing_is_named_if_it_is_needed(folder: Path) -> None:
    (folder / "inswapper_128.onnx").unlink()
    (folder / "codeformer.onnx").unlink()
    (folder / "buffalo_l" / "w600k_r50.onnx").unlink()
    found = faults(folder)
    assert set(found) == {"ArcFace, recognition", "inswapper, swap"}
    assert "inswapper_128.onnx" in found["inswapper, swap"][0]
    code, output = run(str(folder))
    assert code == 1
    assert "optional" in output


def test_a_file_of_another_model_or_half_a_file_is_named(folder: Path) -> None:
    onnx_graphs.restorer(folder / "inswapper_128.onnx", codeformer=False)
    onnx_graphs.inswapper(folder / "codeformer.onnx")
    whole = (folder / "GFPGANv1.4.onnx").read_bytes()
    (folder / "GFPGANv1.4.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "dfl_xseg.onnx").write_bytes(b"<html>not found</html>")
    found = faults(folder)
    assert set(found) == {"inswapper_128.onnx", "codeformer.onnx", "GFPGANv1.4.onnx", "dfl_xseg.onnx"}
    assert "1 inputs, expected 2" in found["inswapper_128.onnx"]
    assert "input `target` is [1, 3, 128, 128], expected [?, 3, 512, 512]" in found["codeformer.onnx"]
    for name in ("GFPGANv1.4.onnx", "dfl_xseg.onnx"):
        assert "ONNX" in found[name][0]


def test_checksums_are_compared_as_sha256sum_writes_them(folder: Path) -> None:
    names = [path.name for path in folder.rglob("*.onnx")]
    right = {name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.onnx") for name in (path.name,)}
    file = folder / "sums"
    file.write_text("# of the operator\n" + "".join(f"{value}  ./somewhere/{name}\n" for name, value in right.items()))
    assert read_checksums(file) == right
    assert run(str(folder), "--checksums", str(file))[0] == 0
    wrong = {**right, "codeformer.onnx": "0" * 64}
    del wrong["GFPGANv1.4.onnx"]
    found = {report.path.name: report.faults for report in check_files(folder, wrong) if report.path and report.faults}
    assert set(found) == {"codeformer.onnx", "GFPGANv1.4.onnx"}
    assert "fetch it again" in found["codeformer.onnx"][0]
    assert "not in the file of checksums" in found["GFPGANv1.4.onnx"][0]
    assert len(names) == 7
    file.write_text("nonsense\n")
    with pytest.raises(CheckpointRefused, match="line 1"):
        read_checksums(file)
    assert run(str(folder), "--checksums", str(file))[0] == 1
    assert run(str(folder / "nowhere"))[0] == 1


def test_a_second_file_of_a_name_and_one_that_only_the_checksums_know_are_not_passed_over(folder: Path) -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.onnx")}
    (folder / "old").mkdir()
    (folder / "old" / "codeformer.onnx").write_bytes(b"half")
    (folder / "dfl_xseg.onnx").unlink()
    reports = [report for report in check_files(folder, sums) if report.faults]
    assert [report.path and report.path.parent.name for report in reports] == ["old", None]
    assert "dfl_xseg.onnx" in reports[1].faults[0]
    (folder / "sums").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointRefused, match="sha256sum"):
        read_checksums(folder / "sums")
