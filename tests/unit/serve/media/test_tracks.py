"""Of several tracks, the one that a player chooses is used."""

import io
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from av.stream import Disposition
from av.video.frame import VideoFrame

from serve.media.decode.opening import open_source
from serve.media.errors import MediaError
from serve.media.samples import tone
from serve.media.tracks import heard_audio, shown_video
from tests.unit.serve.media.make_media import LIMITS, decode_all

DARK, LIGHT = 40, 200


def film(container_format: str, videos: dict[int, Disposition], *, sounds: int = 0, default_sound: int = 0) -> bytes:
    """Return a file with a track of five grey frames for each level, and ``sounds`` tracks."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        tracks = {}
        for level, disposition in videos.items():
            stream = container.add_stream("mjpeg" if disposition & Disposition.attached_pic else "libx264", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuvj420p" if disposition & Disposition.attached_pic else "yuv420p"
            stream.disposition = disposition
            tracks[level] = stream
        source = av.open(io.BytesIO(tone(0.2)), mode="r")
        heard = [container.add_stream_from_template(source.streams.audio[0]) for _ in range(sounds)]
        for number, track in enumerate(heard):
            track.disposition = Disposition.default if number == default_sound else Disposition(0)
        for level, stream in tracks.items():
            count = 1 if stream.disposition & Disposition.attached_pic else 5
            for i in range(count):
                frame = VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
        for packet in source.demux(audio=0):
            for track in heard:
                if packet.dts is not None:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.duration, copy.time_base = (
                        packet.pts,
                        packet.dts,
                        packet.duration,
                        packet.time_base,
                    )
                    copy.stream = track
                    container.mux(copy)
    return buffer.getvalue()


def shown(data: bytes) -> tuple[int, int]:
    """Return how many frames are shown, and the level of the first."""
    frames, _ = decode_all(open_source(data, LIMITS))
    return len(frames), round(float(frames[0].mean()))


@pytest.mark.parametrize("container_format", ["mp4", "mov", "matroska"])
@pytest.mark.parametrize("default", [DARK, LIGHT])
def test_the_default_video_track_is_shown(container_format: str, default: int) -> None:
    tracks = {level: Disposition.default if level == default else Disposition(0) for level in (DARK, LIGHT)}
    count, level = shown(film(container_format, tracks))
    assert count == 5
    assert level == pytest.approx(default, abs=4)


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
def test_the_first_track_is_shown_where_none_is_marked(container_format: str) -> None:
    count, level = shown(film(container_format, {DARK: Disposition(0), LIGHT: Disposition(0)}))
    assert count == 5
    assert level == pytest.approx(DARK, abs=4)


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_sound_is_heard(default: int) -> None:
    data = film("matroska", {DARK: Disposition.default}, sounds=2, default_sound=default)
    with av.open(io.BytesIO(data), mode="r") as container:
        chosen = heard_audio(container)
        assert chosen is not None
        assert chosen.index == container.streams.audio[default].index
    assert open_source(data, LIMITS).audio is not None


def test_a_cover_picture_is_no_film() -> None:
    covers = {LIGHT: Disposition.attached_pic}
    with av.open(io.BytesIO(film("mp4", {**covers, DARK: Disposition.default})), mode="r") as container:
        covered = [stream.disposition for stream in container.streams.video]
        if not any(disposition & Disposition.attached_pic for disposition in covered):
            pytest.skip("this muxer writes no cover pictures")
        chosen = shown_video(container)
        assert chosen is not None
        assert not chosen.disposition & Disposition.attached_pic


def test_music_with_a_cover_is_refused() -> None:
    picture = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(picture, "JPEG")
    cover = b"covr" + (16 + len(picture.getvalue())).to_bytes(4, "big") + b"data" + (13).to_bytes(4, "big") + bytes(4)
    cover = (8 + len(cover) - 4 + len(picture.getvalue())).to_bytes(4, "big") + cover + picture.getvalue()
    items = (8 + len(cover)).to_bytes(4, "big") + b"ilst" + cover
    handler = (33).to_bytes(4, "big") + b"hdlr" + bytes(8) + b"mdirappl" + bytes(9)
    meta = (12 + len(handler) + len(items)).to_bytes(4, "big") + b"meta" + bytes(4) + handler + items
    box = (8 + len(meta)).to_bytes(4, "big") + b"udta" + meta
    data = bytearray(tone(0.2))
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    assert at + size == len(data), "the index is not at the end"
    data[at : at + 4] = (size + len(box)).to_bytes(4, "big")
    with av.open(io.BytesIO(bytes(data) + box)) as container:
        assert [stream.disposition for stream in container.streams.video] == [Disposition.attached_pic]
    with pytest.raises(MediaError, match="contains no video"):
        open_source(bytes(data) + box, LIMITS)
