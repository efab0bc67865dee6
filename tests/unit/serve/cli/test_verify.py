"""`ryla verify` says what a file carries, whatever the file and its options hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from serve.cli.main import app
from serve.media.images import cover, encode_image
from serve.media.samples import stranger
from serve.provenance.statement import Label
from serve.provenance.watermark import Payload, Watermark
from serve.provenance.xmp import aigc_json, write_packet
from tests.unit.serve.provenance.authority import make_authority
from tests.unit.serve.provenance.results import PICTURE, STATEMENT

LABEL = Label(producer="Example", number="1")


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def labelled(folder: Path, text: str) -> Path:
    """Return a picture whose label is this text."""
    packet = write_packet(STATEMENT, request=False, label=LABEL)
    path = folder / "picture.jpg"
    path.write_bytes(encode_image(PICTURE, "image/jpeg") + packet.replace(aigc_json(LABEL).encode(), text.encode()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"[/b]":"[bold]1[/bold]","Label":"1"}', "[/b]: [bold]1[/bold]"),
        ('{"Label":"\\u001b[31mred\\ud800"}', "Label: ?[31mred?"),
        (2900 * "[", "trainedAlgorithmicMedia"),
    ],
    ids=["markup", "terminal", "depth"],
)
def test_what_a_file_says_is_shown_as_it_is_and_never_obeyed(tmp_path: Path, text: str, shown: str) -> None:
    result = verify(labelled(tmp_path, text))
    assert (result.exit_code, result.exception) == (0, None)
    assert shown in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.slow
def test_the_report_is_printed_as_json(tmp_path: Path) -> None:
    result = verify(labelled(tmp_path, '{"Label":"\\ud800"}'), "--json")
    assert result.exit_code == 0
    report: dict[str, Any] = json.loads(result.stdout)
    assert (report["made_by_ai"], report["says_so"], report["aigc"]) == (True, ["metadata"], {"Label": "?"})


@pytest.mark.slow
def test_trust_anchors_that_are_no_pem_and_files_that_are_missing_are_named(tmp_path: Path) -> None:
    file = labelled(tmp_path, "{}")
    root = make_authority(tmp_path).root()
    assert verify(file, "--trust-anchors", root).exit_code == 0
    der = tmp_path / "root.der"
    der.write_bytes(b"\x30\x82\xff")
    for arguments, said in (
        ((file, "--trust-anchors", der), "is not a file of certificates in PEM"),
        ((file, "--trust-anchors", tmp_path / "none.pem"), "cannot be read"),
        ((file, "--watermark-key", tmp_path / "none"), "cannot be read"),
        ((tmp_path / "none.jpg",), "cannot be read"),
    ):
        result = verify(*arguments)
        assert (result.exit_code, isinstance(result.exception, SystemExit)) == (2, True), result.exception
        assert said in result.stderr


def test_the_watermarks_of_several_secrets_are_looked_for(tmp_path: Path) -> None:
    keys = [tmp_path / "old", tmp_path / "new"]
    for key in keys:
        key.write_bytes(f"the secret named {key.name}".encode())
    frames = cover(stranger(), 512, 384)[None]
    file = tmp_path / "marked.png"
    file.write_bytes(encode_image(Watermark(Payload(3, 77), b"the secret named old").mark(frames)[0], "image/png"))
    result = verify(file, "--watermark-key", keys[1], "--watermark-key", keys[0])
    assert result.exit_code == 0
    assert "payload: 3-000004d" in result.stdout
