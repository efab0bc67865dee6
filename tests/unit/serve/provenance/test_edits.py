from serve.media.spool import Spool, read_media
from serve.provenance.edits import Edit, apply
from tests.unit.serve.provenance.results import on_disk

EDITS = [Edit(9, b"!"), Edit(0, b">", 1), Edit(4, b"--", 3), Edit(9, b"?")]


def test_edits_apply_at_offsets_of_the_original() -> None:
    assert apply(b"012345678", EDITS) == b">123--78!?"
    edited = apply(on_disk(b"012345678"), EDITS)
    assert isinstance(edited, Spool)
    assert read_media(edited) == b">123--78!?"


def test_large_files_are_copied_in_pieces() -> None:
    data = bytes(range(256)) * 2**14
    assert read_media(apply(on_disk(data), [Edit(3_000_000, b"x", 10)])) == data[:3_000_000] + b"x" + data[3_000_010:]
