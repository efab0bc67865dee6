import io
import itertools
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from serve.media import audio
from serve.media.decode.opening import open_source
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.samples import clip, pan, stranger, with_sound
from serve.media.sound import Sound
from serve.media.spool import Media
from tests.unit.serve.media.make_media import LIMITS, audio_packets, film, reencode


def decode_audio(data: bytes) -> tuple[str, npt.NDArray[np.float32]]:
    """Return the codec and the samples ``[channels, n]`` of the first audio stream."""
    with av.open(io.BytesIO(data), mode="r") as container:
        codec = container.streams.audio[0].codec_context.name
        return codec, np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def encode_with_audio(sound: Media) -> bytes:
    encoder = Mp4Encoder(Fraction(16), preset="veryfast", crf=18, draft=True)
    try:
        encoder.add(pan(stranger(), 8, 64, 64), tuple(Fraction(i, 16) for i in range(8)))
        return with_sound(encoder, Sound(sound)).read()
    finally:
        encoder.discard()


def test_audio_is_copied_packet_by_packet_with_its_offset() -> None:
    data = clip(stranger())
    source = open_source(data, LIMITS)
    assert source.audio is not None
    packets = audio_packets(data)
    assert len(packets) > 40
    assert audio_packets(reencode(source).read()) == packets


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("5.1", 6)])
def test_copied_audio_keeps_its_channels(layout: str, channels: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (channels, 24_000)).astype(np.float32)
    data = film("mp4", "aac", wave, layout)
    copied = reencode(open_source(data, LIMITS)).read()
    assert audio_packets(copied) == audio_packets(data)
    assert decode_audio(copied)[1].shape[0] == channels


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("5.1", 6)])
def test_audio_that_mp4_cannot_hold_is_transcoded_with_its_channels(codec: str, layout: str, channels: int) -> None:
    wave = (np.sin(np.arange(24_000) / 20) * 0.25).astype(np.float32)
    data = film("matroska", codec, np.repeat(wave[None], channels, axis=0), layout)
    name, samples = decode_audio(reencode(open_source(data, LIMITS)).read())
    assert name == "aac"
    assert samples.shape[0] == channels
    assert samples.shape[1] / 48_000 == pytest.approx(0.5, abs=0.1)
    assert samples[0, 8000:16_000].std() * 2**0.5 == pytest.approx(0.25, rel=0.05)


def test_samples_that_a_decoder_has_kept_back_follow_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come without a time, as with Windows Media Audio."""
    wave = (np.sin(np.arange(24_000) / 20) * 0.25).astype(np.float32)
    data = film("matroska", "flac", wave[None], "mono")
    whole = decode_audio(reencode(open_source(data, LIMITS)).read())[1]
    decode, number = audio._decode, itertools.count()

    def without_times(stream: av.AudioStream, packet: Any) -> list[av.AudioFrame]:
        frames = decode(stream, packet)
        for frame in frames:
            if next(number) % 3:
                frame.pts = None
        return frames

    monkeypatch.setattr(audio, "_decode", without_times)
    np.testing.assert_array_equal(decode_audio(reencode(open_source(data, LIMITS)).read())[1], whole)
    assert next(number) > 5


def test_audio_of_an_unknown_codec_is_refused() -> None:
    data = bytearray(clip(stranger(), 8).replace(b"mp4a", b"zzzz"))
    codec = data.index(b"\x40\x15", data.index(b"esds"))  # 0x40 is AAC, 0x15 an audio stream
    data[codec] = 0xFE
    with pytest.raises(MediaError, match="unsupported format; send the video without audio"):
        encode_with_audio(bytes(data))


@pytest.mark.parametrize("samples", [24_000, 4096, 5, 8191])
def test_the_last_packet_is_played_where_the_file_states_no_durations(samples: int) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32)
    data = film("matroska", "alac", wave, "mono")
    with av.open(io.BytesIO(data), mode="r") as container:
        assert not any(packet.duration for packet in container.demux(audio=0))
    codec, played = decode_audio(reencode(open_source(data, LIMITS)).read())
    assert codec == "alac"
    np.testing.assert_array_equal(played, decode_audio(data)[1])


@pytest.mark.parametrize("number", [0, 3])
def test_a_damaged_audio_packet_is_left_out(number: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 24_000)).astype(np.float32)
    data = film("matroska", "flac", noise, "mono")
    _, packet = audio_packets(data)[number]
    whole = audio_packets(encode_with_audio(data))
    kept = audio_packets(encode_with_audio(data.replace(packet, bytes(len(packet)))))
    assert 0 <= len(whole) - len(kept) <= 6
    ends = kept[-1][0], whole[-1][0]
    assert ends[0] == pytest.approx(ends[1], abs=1024), "the sound after the damage has moved"


def test_audio_of_which_nothing_can_be_decoded_is_refused_when_the_file_is_opened() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 24_000)).astype(np.float32)
    data = film("matroska", "flac", noise, "mono")
    for _, packet in audio_packets(data):
        data = data.replace(packet, bytes(len(packet)))
    with pytest.raises(MediaError, match="the audio cannot be decoded"):
        open_source(data, LIMITS)


def test_copied_packets_whose_times_repeat_are_kept() -> None:
    buffer = io.BytesIO()
    source = film("mp4", "aac", np.zeros((1, 24_000), np.float32), "mono")
    with av.open(io.BytesIO(source), mode="r") as old, av.open(buffer, "w", format="matroska") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts = packet.dts = packet.dts // 4000 * 4000
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    data = buffer.getvalue()
    times = [time for time, _ in audio_packets(data)]
    assert len(set(times)) < len(times), "no time repeats"
    kept = audio_packets(reencode(open_source(data, LIMITS)).read())
    assert [payload for _, payload in kept] == [payload for _, payload in audio_packets(data)]


def test_audio_that_takes_too_much_cpu_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.media.audio.MAX_CPU_S", 0.01)
    hours = film("matroska", "flac", np.zeros((1, 48_000 * 60), np.float32), "mono")
    with pytest.raises(MediaTooLarge, match="the audio is too long"):
        encode_with_audio(hours)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "flac")])
def test_audio_that_takes_many_more_bytes_than_its_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, container: str, codec: str
) -> None:
    """The index of a file can name the same bytes a thousand times."""
    wave = np.random.default_rng(0).normal(0, 0.1, (1, 24_000)).astype(np.float32)
    data = film(container, codec, wave, "mono")
    monkeypatch.setattr("serve.media.audio.MAX_EXTRA_BYTES", 1000 - len(data))
    with pytest.raises(MediaTooLarge, match="the audio is too long"):
        open_source(data, LIMITS)
