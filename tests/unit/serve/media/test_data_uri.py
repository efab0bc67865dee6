from urllib.parse import quote

import pytest

from serve.media.data_uri import decode_base64
from serve.media.errors import MediaError
from serve.media.samples import data_uri

DATA = bytes(range(256)) * 3 + b"x"
URI = data_uri(DATA, "image/png")
PLAIN = URI.split(",")[1]


@pytest.mark.parametrize(
    "text",
    [
        URI,
        PLAIN,
        "\r\n".join(PLAIN[i : i + 60] for i in range(0, len(PLAIN), 60)),
        " " + URI + "\n",
        PLAIN.rstrip("="),
        URI.replace("image/png", "IMAGE/PNG;charset=utf-8"),
        PLAIN.replace("+", "-").replace("/", "_"),
        PLAIN.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
        URI.replace("+", "%2B").replace("\n", "%0A"),
        quote(URI, safe=""),
        quote(f" {URI}", safe=" "),
        URI.replace(";base64", "; base64 "),
        URI.replace(";base64", ";name=" + "%E7%8C%AB" * 100 + ";base64"),
        "\ufeff" + URI,
    ],
    ids=[
        "data URI",
        "plain",
        "line breaks",
        "outer whitespace",
        "no padding",
        "parameters and capitals",
        "URL-safe",
        "percent",
        "percent in URI",
        "percent in all of it",
        "percent after whitespace",
        "spaces before the word",
        "a long name",
        "a byte order mark",
    ],
)
def test_base64_is_decoded_in_every_form(text: str) -> None:
    assert decode_base64(text) == DATA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://x/a.png", "URLs are not fetched"),
        ("file:///etc/passwd", "URLs are not fetched"),
        ("data:image/png,abc", "no `;base64`"),
        ("data%3Aimage%2Fpng%2Cabc", "no `;base64`"),
        ("data:image/png;name=;base64;x,abc", "no `;base64`"),
        ("***", "must be a data URI or base64"),
        ("caf\u00e9", "must be a data URI or base64"),
        ("", "must not be empty"),
        ("data:image/png;base64,", "must not be empty"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        decode_base64(text)
