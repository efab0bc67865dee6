"""Builds the elements (EBML) of WebM and Matroska files."""

HEADER, VOID, CLUSTER, SEGMENT = b"\x1a\x45\xdf\xa3", b"\xec", b"\x1f\x43\xb6\x75", b"\x18\x53\x80\x67"


def element(name: bytes, content: bytes = b"", *, length: int | None = None, unknown: bool = False) -> bytes:
    """Return an element of EBML, whose length takes eight bytes."""
    number = (1 << 56) - 1 if unknown else len(content) if length is None else length
    return name + ((1 << 56) | number).to_bytes(8, "big") + content
