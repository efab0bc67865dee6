"""XMP and the label in an MP4: what is inserted, and that every sample is found where it lies."""

import io
import struct

import pytest

from serve.media.spool import Media, read_media
from serve.provenance.edits import Edit, apply
from serve.provenance.mp4 import mp4_edits
from tests.unit.serve.media.make_boxes import box

UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
SAMPLES = (b"first", b"second", b"third")
FTYP = box(b"ftyp", b"isom")


def table(kind: bytes, code: str, offsets: list[int]) -> bytes:
    return box(kind, struct.pack(">II", 0, len(offsets)) + struct.pack(f">{len(offsets)}{code}", *offsets))


def moov_of(kind: bytes, code: str, offsets: list[int]) -> bytes:
    """Return an index with two tracks, of which the second one has no samples."""
    tables = box(b"stts", bytes(8)) + table(kind, code, offsets)
    tracks = [box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", each)))) for each in (tables, table(b"stco", "I", []))]
    return box(b"moov", box(b"mvhd", bytes(20)) + b"".join(tracks) + box(b"udta", box(b"stco", b"no index")))


def film(kind: bytes = b"stco", code: str = "I", *, wide: bool = False) -> bytes:
    """Return a file whose index comes before its samples, as this service writes it."""
    data = b"".join(SAMPLES)
    start = len(FTYP) + len(moov_of(kind, code, [0, 0, 0])) + (16 if wide else 8)
    offsets = [start, start + len(SAMPLES[0]), start + len(SAMPLES[0]) + len(SAMPLES[1])]
    return FTYP + moov_of(kind, code, offsets) + box(b"mdat", data, wide=wide)


def edits_of(data: bytes, packet: bytes = b"<x/>", aigc: str | None = None) -> list[Edit]:
    return mp4_edits(io.BytesIO(data), len(data), packet, aigc=aigc)


def edited(data: bytes, aigc: str | None) -> bytes:
    return read_media(apply(data, edits_of(data, aigc=aigc)))


def test_a_packet_is_a_box_at_the_end_and_changes_nothing_else() -> None:
    data = film()
    assert edits_of(data) == [Edit(len(data), box(b"uuid", UUID + b"<x/>"))]
    assert edited(data, None) == data + box(b"uuid", UUID + b"<x/>")


@pytest.mark.parametrize(("kind", "code"), [(b"stco", "I"), (b"co64", "Q")])
@pytest.mark.parametrize("wide", [False, True])
def test_every_sample_is_found_where_it_moved_to(kind: bytes, code: str, wide: bool) -> None:
    marked = edited(film(kind, code, wide=wide), '{"Label": "1"}')
    at = marked.index(kind) + 4
    _, count = struct.unpack_from(">II", marked, at)
    offsets = struct.unpack_from(f">{count}{code}", marked, at + 8)
    assert [marked[start : start + len(sample)] for start, sample in zip(offsets, SAMPLES, strict=True)] == list(SAMPLES)
    assert marked.count(b"no index") == 1, "a box of that name elsewhere is no index"


def test_the_label_is_the_last_box_of_the_index_which_grows_by_it() -> None:
    data, text = film(), '{"Label": "1", "ContentProducer": "例"}'
    change, packet = edits_of(data, aigc=text)
    moov = data[len(FTYP) : data.index(b"mdat") - 4]
    assert (change.at, change.removed) == (len(FTYP), len(moov))
    assert packet == Edit(len(data), box(b"uuid", UUID + b"<x/>"))
    meta = change.data[len(moov) :]
    assert struct.unpack(">I4s", change.data[:8]) == (len(moov) + len(meta), b"moov")
    assert struct.unpack(">I4s", meta[:8]) == (len(meta), b"meta")
    handler = box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    keys = box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", b"AIGC"))
    value = box(b"data", struct.pack(">II", 1, 0) + text.encode())
    items = box(b"ilst", struct.pack(">I", 8 + len(value)) + struct.pack(">I", 1) + value)
    assert meta[8:] == handler + keys + items


def test_a_real_film_stays_as_it_is_but_for_the_boxes(made: dict[str, tuple[str, Media]]) -> None:
    data = read_media(made["mp4"][1])
    marked = edited(data, '{"Label": "1"}')
    assert marked[: data.index(b"moov") - 4] == data[: data.index(b"moov") - 4]
    at = marked.index(b"mdat")
    assert marked[at : at + len(data) - data.index(b"mdat")] == data[data.index(b"mdat") :]


@pytest.mark.parametrize("data", [b"", FTYP, FTYP + box(b"mdat", bytes(9), length=0), FTYP[:-1]])
def test_a_file_without_an_index_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the MP4 file has no moov"):
        edits_of(data, aigc="{}")
