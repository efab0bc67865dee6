from pathlib import Path

import pytest

from serve.provenance.watermark.pattern import PUBLISHED_SECRET
from serve.provenance.watermark.secret import MAX_BYTES, SecretRefused, load_secret, load_secrets


def test_without_a_file_the_secret_is_the_published_one() -> None:
    assert load_secret(None) == PUBLISHED_SECRET


def test_the_white_space_that_editors_add_is_no_part_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"  " + b"0123456789abcdef" * 2 + b"\n")
    assert load_secret(path) == b"0123456789abcdef" * 2


@pytest.mark.parametrize("content", [b"", b"short", b" " * 40, b"x" * (MAX_BYTES + 1)], ids=["empty", "short", "blank", "long"])
def test_a_secret_of_an_unusable_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(SecretRefused, match=r"provenance.watermark.key: .*must hold 16 to 4096 bytes"):
        load_secret(path)


def test_a_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretRefused, match=r"provenance.watermark.key: .*cannot be read: No such file"):
        load_secret(tmp_path / "none")


def test_a_secret_is_found_in_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("new", "old"):
        (tmp_path / name).write_bytes(name.encode() * 8)
    assert load_secrets(Path("~/new"), [Path("~/old")]) == [b"new" * 8, b"old" * 8]
    with pytest.raises(SecretRefused, match=r"provenance.watermark.keys: .*cannot be read"):
        load_secrets(None, [Path("~/none")])
