import gc
import io
import os
import tempfile
import warnings
from pathlib import Path

import pytest

from serve.media.spool import Spool, open_media, read_media
from tests.unit.serve.media.make_media import unnamed_files


def test_a_spool_has_no_name_and_any_number_of_readers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = unnamed_files()
    spool = Spool.empty()
    spool.file.write(bytes(range(100)))
    one, other = spool.open(), spool.open()
    assert one.read(3) == bytes(range(3))
    spool.file.write(b"more")
    assert other.read() == bytes(range(100)) + b"more"
    assert one.read(2) == bytes([3, 4])
    assert one.seek(-4, io.SEEK_END) == 100
    assert one.read() == b"more"
    assert spool.size == 104
    assert list(tmp_path.iterdir()) == []
    assert unnamed_files() == before + 1
    del spool, one, other
    assert unnamed_files() == before


def test_a_reader_keeps_the_file_open_and_close_frees_it() -> None:
    before = unnamed_files()
    spool = Spool.empty()
    spool.file.write(b"content")
    reader = spool.open()
    assert unnamed_files() == before + 1
    spool.close()
    assert unnamed_files() == before
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_bytes_and_spools_are_read_alike() -> None:
    spool = Spool.empty()
    spool.file.write(b"content")
    for media in (b"content", spool):
        assert read_media(media) == b"content"
        with open_media(media) as file:
            assert file.seek(3) == 3
            assert file.seek(1, io.SEEK_CUR) == 4
            assert file.read() == b"ent"
            assert file.tell() == 7


def test_a_file_in_a_circle_of_references_is_freed_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            spool = Spool.empty()
            descriptor = spool.file.fileno()
            circle: list[object] = [spool.file, spool]
            circle.append(circle)
            del spool, circle
            gc.collect()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
    assert caught == []
