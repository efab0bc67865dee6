"""The files that commands write results to, and what they say about them."""

import contextlib
import io
import sys
from pathlib import Path

import httpx
import pytest
import typer

from serve.cli.output import STANDARD_OUTPUT, accepted_by, fail, require_writable, write_result
from serve.client import Answer

Captured = pytest.CaptureFixture[str]
HEADERS = {"content-type": "video/mp4", "date": "today", "x-seed": "7", "x-model": "wan[/b]2.6", "server-timing": "encode"}


def answer(data: bytes = b"film", **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(data, httpx.Headers({**HEADERS, **named}), 1.25)


def test_every_error_is_a_line_and_then_the_command_ends(capsys: Captured) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail("one [red]", "two", status=3)
    assert ended.value.exit_code == 3
    assert capsys.readouterr() == ("", "one [red]\ntwo\n")


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.mp4", "video/mp4"),
        ("a.b.WEBP", "image/webp"),
        ("a.jpg", "image/jpeg"),
        ("a.JPEG", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a", "*/*"),
        (".mp4", "*/*"),
        ("-", "*/*"),
    ],
)
def test_the_extension_says_what_is_asked_for(name: str, media_type: str) -> None:
    assert accepted_by(Path(name)) == media_type


def test_an_unknown_extension_is_refused_with_those_that_are_known(capsys: Captured) -> None:
    with pytest.raises(typer.Exit) as ended:
        accepted_by(Path("a[b].bmp"))
    assert ended.value.exit_code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("a[b].bmp: unknown extension .bmp; use one of ")
    assert {".mp4", ".webp", ".gif", ".jpg"} <= set(printed.split("use one of ")[1].strip().split(", "))


@pytest.mark.parametrize("name", ["new.mp4", "old.mp4", "link.mp4"])
def test_looking_whether_a_file_can_be_written_writes_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to("target.mp4")
    before = sorted(tmp_path.iterdir())
    require_writable(tmp_path / name)
    require_writable(STANDARD_OUTPUT)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder: name a file in it"),
        ("missing/a.mp4", "cannot be written: its folder must exist and be writable"),
        ("old.mp4/a.mp4", "cannot be written: Not a directory"),
        ("n" * 300, "cannot be written: File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, capsys: Captured, name: str, message: str) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    with pytest.raises(typer.Exit) as ended:
        require_writable(tmp_path / name)
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, f"{tmp_path / name} {message}\n")


def test_a_result_is_described_as_it_is_whatever_its_name_and_its_headers_hold(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "a[b] [red].mp4"
    write_result(answer(x_adjusted="x" * 200), path, endpoint="wan2.6")
    assert path.read_bytes() == b"film"
    out, err = capsys.readouterr()
    lines = ["x-seed: 7", "x-model: wan[/b]2.6", "server-timing: encode", f"x-adjusted: {'x' * 200}"]
    assert out.splitlines() == [*lines, f"{path}: 4 bytes in 1.2 s"]
    assert err == ""


def test_what_had_no_effect_and_another_format_are_warnings(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "a.webp"
    write_result(answer(x_ignored_fields="sauce_image, [/b]"), path, endpoint="image-faceswap")
    assert capsys.readouterr().err.splitlines() == [
        "warning: /image-faceswap ignored the field `sauce_image`; did you mean `source_image`?",
        "warning: /image-faceswap ignored the field `[/b]`",
        f"warning: {path} contains video/mp4, not image/webp: the format is chosen when the job is made",
    ]


def test_standard_output_has_the_bytes_alone(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_result(answer(b"\x00\xff film"), STANDARD_OUTPUT, endpoint="wan2.6")
    out, err = capfdbinary.readouterr()
    assert out == b"\x00\xff film"
    assert err.splitlines()[0] == b"x-seed: 7"
    assert err.splitlines()[-1] == b"-: 7 bytes in 1.2 s"


def test_a_result_that_cannot_be_written_ends_the_command(tmp_path: Path, capsys: Captured) -> None:
    with pytest.raises(typer.Exit) as ended:
        write_result(answer(), tmp_path, endpoint="wan2.6")
    assert (ended.value.exit_code, capsys.readouterr().err) == (1, f"{tmp_path} cannot be written: Is a directory\n")


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_standard_output_ends_the_command_once(monkeypatch: pytest.MonkeyPatch, capsys: Captured, size: int) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 (closing it fails)
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(typer.Exit) as ended:
        write_result(answer(bytes(size)), STANDARD_OUTPUT, endpoint="wan2.6")
    sys.stdout.write("more")  # as Python does at its end, when it writes what is still buffered
    sys.stdout.flush()
    sys.stdout.close()
    with contextlib.suppress(OSError):
        full.close()
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "standard output cannot be written: No space left on device\n"


def test_a_reader_that_has_had_enough_gets_no_message(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    class Closed(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, _: object) -> int:
            raise BrokenPipeError

    class Output:
        buffer = Closed()

    monkeypatch.setattr(sys, "stdout", Output())
    with pytest.raises(BrokenPipeError):
        write_result(answer(), STANDARD_OUTPUT, endpoint="wan2.6")
    assert capsys.readouterr().err == ""
