import io

import av
import pytest
from av.video.frame import VideoFrame

from serve.media.container import is_image, is_matroska, open_container
from serve.media.errors import MediaError
from serve.media.images import encode_image
from serve.media.samples import clip, pan, stranger
from serve.media.spool import Spool
from tests.unit.serve.media.make_media import animation, webm

FRAMES = pan(stranger(), 2, 64, 64)


def test_images_are_recognised_by_their_first_bytes() -> None:
    for data in (
        animation("GIF", FRAMES),
        animation("WEBP", FRAMES),
        *(encode_image(FRAMES[0], media_type) for media_type in ("image/png", "image/jpeg", "image/webp")),
    ):
        assert is_image(data)
        assert not is_matroska(data)
    for data in (clip(stranger(), 2), webm(FRAMES), b"", b"text", b"RIFF\x20\0\0\0AVI LIST"):
        assert not is_image(data)


@pytest.mark.parametrize("on_disk", [False, True])
def test_mp4_and_webm_are_opened_from_memory_and_from_disk(on_disk: bool) -> None:
    for data, name in ((clip(stranger(), 2), "mov"), (webm(FRAMES), "matroska")):
        spool = Spool.empty()
        spool.file.write(data)
        with open_container(spool if on_disk else data) as container:
            assert name in container.format.name
        assert is_matroska(data) == (name == "matroska")


@pytest.mark.parametrize(
    "text",
    [
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        b"",
    ],
    ids=["sdp", "ffconcat", "m3u", "empty"],
)
def test_text_that_names_other_sources_is_refused(text: bytes) -> None:
    """Left to guess the format, FFmpeg listens on a socket for the first text and never returns."""
    with pytest.raises(MediaError, match="not a video in a supported format; send MP4, WebM"):
        open_container(text)


def test_metadata_that_is_not_utf8_does_not_matter() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        container.metadata["title"] = "a caf\u00e9 in Paris"
        stream = container.add_stream("libx264", rate=16)
        for pixels in FRAMES:
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = buffer.getvalue()
    title = "caf\u00e9".encode()
    assert title in data
    with open_container(data.replace(title, b"caf\xe9!")) as reopened:
        assert len(reopened.streams.video) == 1


def test_a_file_with_the_signature_alone_cannot_be_opened() -> None:
    for data in (b"\x1aE\xdf\xa3" + bytes(20), bytes(4) + b"ftyp" + bytes(20)):
        with pytest.raises(MediaError, match="cannot be opened"):
            open_container(data)
