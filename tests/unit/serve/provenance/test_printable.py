"""Nothing that a file says can steer a terminal or break an encoder."""

import pytest

from serve.provenance.printable import MAX_TEXT_CHARS, printable, printable_report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain ä 中", "plain ä 中"),
        ("a\tb\r\nc", "a b  c"),
        ("\x1b[2J\x00\x7f\x9b", "?[2J???"),
        ("\ud800\u2028\u202e\ufeff", "????"),
        ("", ""),
        (None, "None"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (["a\n", {"b": None}], '["a\\n", {"b": null}]'),
        ({"ä": "\x07"}, '{"\\u00e4": "\\u0007"}'),
        (ValueError("no\x07"), "no?"),
    ],
)
def test_any_value_becomes_printable_text(value: object, text: str) -> None:
    assert printable(value) == text
    assert all(character.isprintable() for character in printable(value))


def test_text_is_cut_at_its_length() -> None:
    assert len(printable(1000 * "x")) == MAX_TEXT_CHARS
    assert printable("abcdef", 3) == "abc"
    assert printable(["abcdef"], 3) == '["a'


def test_a_report_keeps_its_shape_and_its_numbers() -> None:
    report = {"na\x07me": ["te\x1bxt", {"a": "b\n"}, 3, 1.5, None, True], "long": 10 * "x"}
    assert printable_report(report, 5) == {"na?me": ["te?xt", {"a": "b "}, 3, 1.5, None, True], "long": 5 * "x"}
