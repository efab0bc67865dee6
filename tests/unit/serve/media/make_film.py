"""Builders of video files with the oddities that cameras, cutters and recorders leave in them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, TypeAlias

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from deployments.wire import Frames
from serve.media.samples import pan, stranger, tone

AnyPacket: TypeAlias = "Packet[Any]"

SCENE = pan(stranger(), 24, 96, 64)
"""A slow pan, 24 frames of 96 x 64 pixels."""
H264_WITH_OPEN_GROUPS = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2:open-gop=1"}
"""Options of libx264 for groups of pictures that refer to the one before."""


def encoded(
    codec: str,
    container_format: str,
    frames: Iterable[np.ndarray] = SCENE,
    *,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda _: None,
    source_format: str = "rgb24",
    audio: bool = False,
) -> bytes:
    """Return a file of ``frames``; ``prepare`` changes the stream before the first is encoded."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        sound = av.open(io.BytesIO(tone(1.0)), mode="r") if audio else None
        track = None if sound is None else container.add_stream_from_template(sound.streams.audio[0])
        for i, pixels in enumerate(frames):
            if not i:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pix_fmt
                prepare(stream)
            frame = VideoFrame.from_ndarray(pixels, format=source_format)
            if pix_fmt != source_format:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=Colorspace.ITU601)
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None and track is not None:
            for packet in sound.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = track
                    container.mux(packet)
    return buffer.getvalue()


def remuxed(
    data: bytes,
    container_format: str,
    change: Callable[[int, AnyPacket], AnyPacket | None] = lambda _, packet: packet,
    prepare: Callable[[av.container.OutputContainer], None] = lambda _: None,
) -> bytes:
    """Return the file with each video packet replaced by what ``change`` makes of it."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), mode="r") as source, av.open(buffer, "w", format=container_format) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        prepare(target)
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            is_video = packet.stream.type == "video"
            packet.stream = streams[packet.stream_index]
            changed = change(number, packet) if is_video else packet
            number += is_video
            if changed is not None:
                target.mux(changed)
    return buffer.getvalue()


def packets_of(data: bytes) -> list[bytes]:
    """Return the payload of each packet of the first video track."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def without(data: bytes, *numbers: int, fill: int = 0) -> bytes:
    """Return the file with the payloads of these video packets overwritten."""
    packets = packets_of(data)
    for number in numbers:
        payload = packets[number]
        assert data.count(payload) == 1
        data = data.replace(payload, bytes([fill]) * len(payload))
    return data


def cut_to_key_frame(data: bytes, container_format: str, number: int) -> bytes:
    """Return the packets from key frame ``number`` on, as cutters copy them."""
    keys = -1
    first: int | None = None

    def change(_: int, packet: AnyPacket) -> AnyPacket | None:
        nonlocal keys, first
        keys += packet.is_keyframe
        if keys < number:
            return None
        assert packet.pts is not None
        first = packet.pts if first is None else first
        packet.pts -= first
        packet.dts = None if packet.dts is None else packet.dts - first
        return packet

    return remuxed(data, container_format, change)


def with_matrix(mp4: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Return an MP4 whose first track has this display matrix."""
    at = mp4.index(b"tkhd") + 4 + 40
    assert mp4[mp4.index(b"tkhd") + 4] == 0
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return mp4[:at] + matrix + mp4[at + 36 :]


def with_edit(mp4: bytes, start: float, seconds: float) -> bytes:
    """Return an MP4 whose first track shows this part of what it holds."""
    at = mp4.index(b"elst") + 4
    count = int.from_bytes(mp4[at + 4 : at + 8], "big")
    entry = at + 8 + 12 * (count - 1)
    begins = int.from_bytes(mp4[entry + 4 : entry + 8], "big")
    scale_at = mp4.index(b"mdhd") + 4 + 12
    scale = int.from_bytes(mp4[scale_at : scale_at + 4], "big")
    movie_at = mp4.index(b"mvhd") + 4 + 12
    movie = int.from_bytes(mp4[movie_at : movie_at + 4], "big")
    edited = struct.pack(">II", round(seconds * movie), begins + round(start * scale))
    return mp4[:entry] + edited + mp4[entry + 8 :]


def marked(*, default: bool) -> Disposition:
    """Return the disposition of a track that is, or is not, the default."""
    return Disposition.default if default else Disposition(0)


def numbered(count: int, side: int = 64) -> Frames:
    """Return grey frames whose level is 10 times their number."""
    return np.stack([np.full((side, side, 3), 10 * i, np.uint8) for i in range(count)])
