"""AVIF and HEIC pictures, which are files of boxes, as MP4 is."""

_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
_HEAD_BYTES = 64


def is_heif(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is an AVIF or HEIC picture."""
    if head[4:8] != b"ftyp":
        return False
    names = head[8 : min(int.from_bytes(head[:4], "big"), _HEAD_BYTES)]
    return names[:4] in _BRANDS


def colour_numbers(data: bytes) -> tuple[int, int] | None:
    """Return the primaries and the transfer characteristic, as H.273 numbers them, or None.

    They stand in the first box of the properties that states a colour space by numbers.
    """
    at = data.find(b"ipco")
    if at < 4:
        return None
    end = min(at - 4 + int.from_bytes(data[at - 4 : at], "big"), len(data))
    at += 4
    while at + 8 <= end:
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 12] == b"colrnclx" and length >= 18:
            return int.from_bytes(data[at + 12 : at + 14], "big"), int.from_bytes(data[at + 14 : at + 16], "big")
        if length < 8:
            return None
        at += length
    return None


def strip_heif(data: bytes) -> bytes:
    """Return the picture ``data`` without its EXIF metadata.

    Its boxes say how it is turned, so viewers ignore the orientation in EXIF, and Pillow fails at
    broken entries. The item gets a type that nobody knows, which keeps all lengths.
    """
    at = data.find(b"iinf")
    if at < 4:
        return data
    end = at - 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:at] + data[at:end].replace(b"Exif", b"skip") + data[end:]
