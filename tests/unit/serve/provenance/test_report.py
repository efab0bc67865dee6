"""The report on a file: what its marks amount to, in words that any terminal can take."""

import json
from typing import Any

import pytest

from serve.provenance.report import complete, summary
from serve.provenance.statement import COMPOSITE, GENERATED

LABEL = '{"Label": "1", "ContentProducer": "Example"}'
FOUND = {"found": True, "payload": "1234abcd"}


def marks(**some: Any) -> dict[str, Any]:
    """Return the marks that were read of a PNG; those that are not in ``some`` are missing."""
    nothing = dict.fromkeys(("metadata", "aigc", "c2pa", "watermark"))
    return {"media_type": "image/png", **nothing, **some}


def manifest(state: str = "valid", *, made_by_ai: bool = True, **more: Any) -> dict[str, Any]:
    return {"state": state, "made_by_ai": made_by_ai, **more}


@pytest.mark.parametrize(
    ("some", "says"),
    [
        ({"metadata": {"digital_source_type": GENERATED}}, ["metadata"]),
        ({"metadata": {"digital_source_type": COMPOSITE}}, ["metadata"]),
        ({"metadata": {"digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"}}, []),
        ({"metadata": {}}, []),
        ({"c2pa": manifest()}, ["c2pa"]),
        ({"c2pa": manifest("trusted")}, ["c2pa"]),
        ({"c2pa": manifest("invalid")}, []),
        ({"c2pa": {"state": "unreadable", "reason": "odd"}}, []),
        ({"c2pa": manifest(made_by_ai=False)}, []),
        ({"aigc": LABEL}, ["aigc"]),
        ({"watermark": FOUND}, ["watermark"]),
        ({"watermark": {"found": False}}, []),
        (
            {"watermark": FOUND, "aigc": LABEL, "metadata": {"digital_source_type": GENERATED}},
            ["metadata", "aigc", "watermark"],
        ),
    ],
)
def test_a_mark_says_so_unless_it_is_known_to_be_false(some: dict[str, Any], says: list[str]) -> None:
    report = complete(marks(**some))
    assert report["says_so"] == says
    assert report["made_by_ai"] is (True if says else None), "nothing ever says that no model made a file"


def test_the_report_has_every_mark_as_it_was_read() -> None:
    given = marks(metadata={"creator": "Ann", "ingredients": []}, aigc=LABEL, c2pa=manifest(chain=[]), watermark=FOUND)
    report = complete(given)
    assert list(report) == ["summary", "made_by_ai", "says_so", "media_type", "metadata", "aigc", "c2pa", "watermark"]
    assert {name: report[name] for name in ("media_type", "metadata", "c2pa", "watermark")} == {
        name: given[name] for name in ("media_type", "metadata", "c2pa", "watermark")
    }
    assert report["aigc"] == {"Label": "1", "ContentProducer": "Example"}


@pytest.mark.parametrize(
    ("some", "sentences"),
    [
        ({}, "No mark was found. That does not say how the file was made: marks can be lost."),
        ({"watermark": {"found": False}}, "No mark was found. That does not say how the file was made: marks can be lost."),
        (
            {"c2pa": manifest(), "watermark": FOUND, "metadata": {}, "aigc": LABEL},
            "The file carries a C2PA manifest that is valid: the file is as it was signed; the watermark of this service; "
            "metadata (XMP), which is not signed; the label of GB 45438-2025. It says that AI made or changed the file.",
        ),
        (
            {"c2pa": manifest(test_certificate=True, made_by_ai=False)},
            "The file carries a C2PA manifest that is valid: the file is as it was signed, but made with a test certificate. "
            "None of it says that AI made the file.",
        ),
        (
            {"c2pa": manifest("trusted")},
            "The file carries a C2PA manifest that is valid, by a signer for whom a trusted authority vouches. "
            "It says that AI made or changed the file.",
        ),
        (
            {"c2pa": manifest("invalid")},
            "The file carries a C2PA manifest that is not valid: the file or the manifest was changed after signing. "
            "None of it says that AI made the file.",
        ),
        (
            {"c2pa": {"state": "of a later version"}},
            "The file carries a C2PA manifest that cannot be read. None of it says that AI made the file.",
        ),
    ],
)
def test_the_summary_says_in_a_sentence_or_two_what_was_found(some: dict[str, Any], sentences: str) -> None:
    if some.get("c2pa", {}) and "made_by_ai" not in some["c2pa"]:
        some = {**some, "c2pa": {"made_by_ai": False, **some["c2pa"]}}
    report = complete(marks(**some))
    assert report["summary"] == summary(report) == sentences


def test_no_text_of_a_report_is_longer_than_its_limit() -> None:
    report = complete(marks(metadata={"creator": "x" * 99_999}))
    assert report["metadata"]["creator"] == "x" * 3000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"Label":"1"}', True),
        ('{"Label":1}', True),
        ('{"Label":"2"}', None),
        ('{"Label":"3"}', None),
        ("{}", None),
        ("[1]", None),
        ("no", None),
    ],
)
def test_only_a_label_that_says_so_means_that_ai_made_it(text: str, says: bool | None) -> None:
    report = complete(marks(aigc=text))
    assert report["made_by_ai"] is says
    assert (report["aigc"] is None) == ("Label" not in text)


@pytest.mark.parametrize(
    "text",
    [
        2900 * "[",
        2900 * '{"Label":',
        '{"Label":"\\ud800"}',
        '{"\\u001b[31m":"1","Label":"\\u0007"}',
        '{"Label":' + 2900 * "9" + "}",
    ],
    ids=["depth", "depth of objects", "surrogate", "terminal", "number"],
)
def test_no_text_of_a_file_is_more_than_text(text: str) -> None:
    metadata = {"creator": "A\x1b[2J\ud800", "ingredients": [{"rights": "\x07"}]}
    report = complete(marks(metadata=metadata, aigc=text))
    written = json.dumps(report, ensure_ascii=False)
    assert written.encode().isascii()
    assert "\\u" not in written, "a control character would be escaped"
