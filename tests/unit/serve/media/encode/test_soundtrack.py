"""A film gets its sound in a second step, which changes neither of the two tracks."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from serve.media.audio import AudioTrack
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.soundtrack import add_soundtrack
from serve.media.errors import MediaError
from serve.media.samples import pan, stranger, with_sound
from serve.media.sound import Sound
from serve.media.spool import Spool
from tests.unit.serve.media.make_media import film

TIMES = tuple(Fraction(t, 1000) for t in (0, 40, 80, 95, 200, 203, 333, 400, 410, 700, 701, 1001))
PANNED = pan(stranger(), len(TIMES), 96, 96)
NOISE = np.random.default_rng(0).normal(0, 0.1, (2, 24_000)).astype(np.float32)
COPIED = [
    *[("mp4", codec) for codec in ("aac", "libmp3lame", "ac3", "eac3", "libopus", "alac")],
    *[("matroska", codec) for codec in ("aac", "libmp3lame", "ac3", "eac3", "libopus", "alac")],
]


def encoder_of(start: Fraction, draft: bool) -> Mp4Encoder:
    """Return an encoder that has the frames, the first of which is shown at ``start``."""
    encoder = Mp4Encoder(Fraction(12), "veryfast", 18, seconds=Fraction(5, 4), draft=draft)
    encoder.add(PANNED, tuple(start + time for time in TIMES))
    return encoder


def packets(data: bytes, kind: str) -> list[tuple[object, ...]]:
    """Return the times in seconds, the duration and the content of the packets of a track."""
    with av.open(io.BytesIO(data), mode="r") as container:
        (stream,) = (stream for stream in container.streams if stream.type == kind)
        return [
            (packet.pts * packet.time_base, packet.dts * packet.time_base, packet.duration, packet.is_keyframe, bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None and packet.dts is not None
        ]


@pytest.mark.parametrize("start", [Fraction(0), Fraction(1, 3), Fraction(123_457, 360_000)])
def test_the_frames_keep_their_times_to_the_tick(start: Fraction) -> None:
    alone = encoder_of(start, draft=False).close().read()
    beside = with_sound(encoder_of(start, draft=True), Sound(film("mp4", "aac", NOISE, "stereo"))).read()
    assert packets(beside, "video") == packets(alone, "video")
    assert any(packet[0] != packet[1] for packet in packets(alone, "video")), "no frame is reordered"
    assert beside.find(b"moov") < beside.find(b"mdat")


@pytest.mark.parametrize(("container", "codec"), COPIED)
def test_sound_that_mp4_can_hold_is_copied_to_the_packet(container: str, codec: str) -> None:
    source = film(container, codec, NOISE, "stereo")
    result = with_sound(encoder_of(Fraction(0), draft=True), Sound(source)).read()
    old, new = packets(source, "audio"), packets(result, "audio")
    assert [packet[4] for packet in new] == [packet[4] for packet in old]
    for before, after in zip(old, new, strict=True):  # Matroska has milliseconds
        assert float(after[0]) == pytest.approx(float(before[0]), abs=0 if container == "mp4" else 0.001)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le"])
def test_sound_that_is_transcoded_ahead_gives_the_same_file(codec: str) -> None:
    sound = Sound(film("matroska", codec, NOISE, "stereo"))
    at_once = with_sound(encoder_of(Fraction(0), draft=True), sound).read()
    encoder, track, result = encoder_of(Fraction(0), draft=True), AudioTrack(sound), Spool.empty()
    assert track.transcoded
    for time in (0.0, 0.1, 0.3, 0.3, 0.2):
        track.prepare_until(Fraction(time))
    add_soundtrack(encoder.close(), track, result, end=encoder.end)
    track.close()
    assert result.read() == at_once
    assert len(packets(at_once, "audio")) == pytest.approx(24_000 / 1024, abs=2)


def test_a_fault_of_the_sound_is_told_and_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, track, result = (
        encoder_of(Fraction(0), draft=True),
        AudioTrack(Sound(film("mp4", "aac", NOISE, "stereo"))),
        Spool.empty(),
    )
    monkeypatch.setattr(track, "_packets", iter([object()]))
    with pytest.raises(MediaError, match="the audio is damaged"):
        add_soundtrack(encoder.close(), track, result, end=encoder.end)
    assert result.file.closed
    track.close()
