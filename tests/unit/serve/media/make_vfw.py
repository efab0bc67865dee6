"""Builders of Matroska files in the mode for Video for Windows, and of MPEG-4 as AVI holds it."""

import io
import struct
from collections.abc import Sequence
from fractions import Fraction

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet

from deployments.wire import Frames
from tests.unit.serve.media.make_film import AnyPacket, encoded

PICTURE = b"\0\0\1\xb6"
QUALITY = {"qscale": "2", "flags": "qscale", "global_quality": "236"}
REORDERED = {"mpeg4": {"bf": "2", **QUALITY}, "libx264": {"x264-params": "bframes=2:b-adapt=0:keyint=12"}}
"""Options of encoders for films in which every third frame is shown before two others."""


def in_vfw_mode(codec: str, frames: Frames, times_ms: Sequence[int], *, packed: bool = False) -> bytes:
    """Return a Matroska file of reordered ``frames`` that states only when they are decoded.

    ``packed`` puts two pictures of MPEG-4 into one packet, as DivX and Xvid do.
    """
    data = encoded(codec, "matroska", frames, options=REORDERED[codec])
    buffer = io.BytesIO()
    template = av.open(io.BytesIO(encoded("mpeg4", "matroska", frames[:1])), mode="r")
    with template, av.open(io.BytesIO(data), mode="r") as source, av.open(buffer, "w", format="matroska") as target:
        (video,) = source.streams.video
        header = (video.codec_context.extradata or b"") if codec == "mpeg4" else b""
        header += b"\0\0\1\xb2DivX503b1393p" if packed else b""
        track = target.add_stream_from_template(template.streams.video[0])
        tag = b"XVID" if codec == "mpeg4" else b"H264"
        height, width = frames.shape[1:3]
        track.codec_context.extradata = _bitmap_header(tag, width, height, len(header)) + header
        packets = [packet for packet in source.demux(video) if packet.size]
        if codec == "libx264":
            start_codes = BitStreamFilterContext("h264_mp4toannexb", video)
            packets = [changed for packet in packets for changed in start_codes.filter(packet)]
        payloads = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for (payload, is_key), time in zip(_packed(payloads) if packed else payloads, times_ms, strict=True):
            packet = Packet(payload)
            packet.pts = packet.dts = time
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, 1000), is_key, track
            target.mux(packet)
    written = buffer.getvalue()
    assert written.count(b"V_MPEG4/ISO/ASP") == 1
    return written.replace(b"V_MPEG4/ISO/ASP", b"V_MS/VFW/FOURCC")


def empty_picture(picture: bytes, time_bits: int = 5) -> bytes:
    """Return the N-VOP of the same time as a packet of MPEG-4."""
    at = picture.index(PICTURE) + len(PICTURE)
    bits = "".join(f"{byte:08b}" for byte in picture[at : at + 4])
    end = bits.index("0", 2) + 1 + 1 + time_bits + 1
    bits = bits[:end] + "0"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return PICTURE + int(bits, 2).to_bytes(len(bits) // 8, "big")


def is_reordered(picture: bytes) -> bool:
    """Return whether a packet of MPEG-4 is shown before one that comes earlier (a B-VOP)."""
    return picture[picture.index(PICTURE) + len(PICTURE)] >> 6 == 2


def replaced(packet: AnyPacket, payload: bytes) -> AnyPacket:
    """Return a packet of the same time and track that holds ``payload``."""
    other = Packet(payload)
    for name in ("pts", "dts", "time_base", "duration", "is_keyframe", "stream"):
        setattr(other, name, getattr(packet, name))
    return other


def _packed(payloads: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    packets: list[tuple[bytes, bool]] = []
    for number, (payload, is_key) in enumerate(payloads):
        if not is_reordered(payload):
            if number and is_reordered(payloads[number - 1][0]):
                packets.append((empty_picture(payloads[number - 1][0]), False))
            packets.append((payload, is_key))
        elif not is_reordered(payloads[number - 1][0]):
            packets[-1] = (packets[-1][0] + payload, packets[-1][1])
        else:
            packets.append((payload, is_key))
    if is_reordered(payloads[-1][0]):
        packets.append((empty_picture(payloads[-1][0]), False))
    return packets


def _bitmap_header(tag: bytes, width: int, height: int, extra: int) -> bytes:
    return struct.pack("<IiiHH4sIiiII", 40 + extra, width, height, 1, 24, tag, 3 * width * height, 0, 0, 0, 0)
