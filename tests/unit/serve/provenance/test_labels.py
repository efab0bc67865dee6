"""The label of GB 45438-2025 is found outside XMP, and read as text alone."""

import io
import json

import PIL.Image
import PIL.PngImagePlugin
import pytest

from serve.provenance.labels import MAX_LABEL_CHARS, find_label, read_label
from serve.provenance.printable import MAX_TEXT_CHARS
from tests.unit.serve.provenance.markings import JPEG
from tests.unit.serve.provenance.results import PICTURE, on_disk

LABEL = '{"Label":"1","ContentProducer":"某公司"}'


def png_with(*texts: tuple[str, str], compressed: bool = False) -> bytes:
    info = PIL.PngImagePlugin.PngInfo()
    for keyword, text in texts:
        info.add_itxt(keyword, text, zip=compressed)
    buffer = io.BytesIO()
    PIL.Image.fromarray(PICTURE[:8, :8]).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_first_text_of_its_name_is_the_label(compressed: bool) -> None:
    media = png_with(("Comment", "no"), ("AIGC", LABEL), ("AIGC", "another"), compressed=compressed)
    assert find_label(media) == find_label(on_disk(media)) == LABEL


@pytest.mark.parametrize(("length", "found"), [(0, False), (1, True), (MAX_LABEL_CHARS, True), (MAX_LABEL_CHARS + 1, False)])
def test_a_label_has_a_longest_length(length: int, found: bool) -> None:
    assert (find_label(png_with(("AIGC", length * "x"))) is not None) is found


@pytest.mark.parametrize(
    "media", [JPEG, png_with(), b"", b"\0\0\0\x18ftypisom" + bytes(60), b"\0\0\0\x14ftypqt  ", b"RIFF\0\0\0\0WEBP"]
)
def test_files_without_a_place_for_a_label_or_that_are_damaged_have_none(media: bytes) -> None:
    assert find_label(media) is None


@pytest.mark.parametrize("text", [None, "", "null", "{}", "[1]", '"Label"', "no JSON", '{"label":"1"}', 2900 * "["])
def test_text_without_a_field_label_is_no_label(text: str | None) -> None:
    assert read_label(text) is None


def test_the_fields_of_a_label_are_printable_text() -> None:
    text = json.dumps({"Label": 1, "a\x07": "b\x1b", "list": [1, "x"], "none": None, "long": 999 * "x", 99 * "n": True})
    assert read_label(text) == {
        "Label": "1",
        "a?": "b?",
        "list": '[1, "x"]',
        "none": "None",
        "long": MAX_TEXT_CHARS * "x",
        50 * "n": "true",
    }


def test_of_many_fields_the_one_that_decides_is_kept_wherever_it_stands() -> None:
    fields = read_label(json.dumps({**{f"field{number}": number for number in range(40)}, "Label": "1"}))
    assert fields is not None
    assert (len(fields), fields["Label"], fields["field18"]) == (20, "1", "18")
