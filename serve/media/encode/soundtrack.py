"""The last step of an MP4 file with sound: the two tracks are put beside each other."""

from fractions import Fraction

import av
from av.container import InputContainer, OutputContainer

from serve.media.audio import AUDIO_DAMAGED, AudioTrack
from serve.media.boundary import reading
from serve.media.encode.mp4 import TICKS, TrackWriter
from serve.media.spool import Spool


def add_soundtrack(draft: Spool, track: AudioTrack, result: Spool, *, end: Fraction) -> None:
    """Write the video of ``draft`` and the sound of ``track`` into the empty file ``result``.

    ``draft`` is a file that ``Mp4Encoder`` made as a draft, and ``end`` its ``end``. The index of
    the result comes first (faststart). Raises what ``AudioTrack`` raises, since the sound is all
    that a caller has made.
    """
    options = {"movflags": "faststart"}
    container = av.open(result.file, "w", format="mp4", options=options, io_open=lambda *_: result.open())
    try:
        with av.open(draft.open(), "r", format="mov") as source, reading(*AUDIO_DAMAGED):
            _put_together(source, track, container=container, end=end)
            # FFmpeg checks some of the sound only now, when it writes the index.
            container.close()
    except BaseException:
        result.close()  # then the container writes no index for an unfinished video
        container.close()
        raise


def _put_together(source: InputContainer, track: AudioTrack, container: OutputContainer, end: Fraction) -> None:
    (shown,) = source.streams.video
    video = container.add_stream_from_template(shown)
    video.bit_rate = 0  # the index would state the draft's mean rate as the highest one
    track.add_to(container)
    writer, ends = TrackWriter(container), round(end * TICKS)
    for packet in source.demux(shown):
        if packet.dts is None or packet.pts is None:  # the end of the stream
            continue
        track.mux_until(packet.pts * packet.time_base)
        # The muxer takes the end of the video from the frame that ends last, and the demuxer knows
        # durations only in the order of decoding.
        packet.duration = max(1, ends - packet.pts)
        packet.stream = video
        writer.write(packet)
    writer.close(ends)
    track.mux_until(None)
