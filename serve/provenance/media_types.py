"""The media type of a file, as its first bytes show it."""

from serve.media.spool import Media, open_media

_AVIF, _HEIC, _QUICKTIME = (b"avif", b"avis"), (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis"), (b"qt  ",)


def media_type_of(media: Media) -> str:
    """Return the media type; `application/octet-stream` if the bytes are of no kind we know."""
    with open_media(media) as file:
        head = file.read(12)
    if head[:2] == b"\xff\xd8":
        return "image/jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[:3] == b"GIF":
        return "image/gif"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        named = {"image/avif": _AVIF, "image/heic": _HEIC, "video/quicktime": _QUICKTIME}
        return next((name for name, brands in named.items() if brand in brands), "video/mp4")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "video/quicktime"
    return "application/octet-stream"
