"""The sample rates and the channel layouts that AAC has for sound of any kind."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec import Codec
from av.codec.context import CodecContext
from av.codec.context import Flags as CodecFlags
from av.error import FFmpegError
from av.filter import Graph

_MAX_RATE = 48_000
"""Nothing above it is heard, and some players refuse it."""
_RATES = tuple(sorted(rate for rate in Codec("aac", "w").audio_rates or () if rate <= _MAX_RATE))
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""The usual layout for each number of channels, for files that state only their number."""
_MOST_MIXED = 5
"""Layouts that AAC does not have are mixed to 5.1 if they have more channels, else to stereo."""


def aac_rate(rate: int) -> int:
    """Return the lowest sample rate of AAC that is not below ``rate``, or 48,000 Hz."""
    return min((known for known in _RATES if known >= rate), default=_MAX_RATE)


def aac_layout(layout: AudioLayout) -> str:
    """Return the layout in which AAC stores sound of this ``layout``.

    It is the same one where AAC has it.
    """
    name = layout.name
    if name.endswith("channels"):  # FFmpeg's name for a layout of which it knows only the number
        return _DEFAULT_LAYOUTS.get(layout.nb_channels, "stereo")
    if name.startswith("ambisonic"):
        return "mono"
    if _has_layout(name):
        return name
    return "5.1" if layout.nb_channels > _MOST_MIXED else "stereo"


def aac_encoder(sound: AudioStream) -> AudioCodecContext:
    """Return an encoder for what ``sound`` contains, at the rate and in the layout for it."""
    context = _new_context()
    context.sample_rate, context.layout, context.bit_rate = aac_rate(sound.rate), aac_layout(sound.layout), 0
    context.flags |= CodecFlags.global_header  # as streams of MP4 have it
    return context


def _new_context() -> AudioCodecContext:
    context = CodecContext.create("aac", "w")
    assert isinstance(context, AudioCodecContext)
    context.format = "fltp"
    return context


@lru_cache
def _has_layout(name: str) -> bool:
    context = _new_context()
    context.sample_rate, context.layout = _MAX_RATE, name
    try:
        context.open()
    except FFmpegError:
        return False
    return True


class AacResampler:
    """Converts frames of any rate, format and layout to those of ``encoder``.

    The frames of one track may differ from each other.
    """

    def __init__(self, encoder: AudioCodecContext) -> None:
        self._encoder = encoder
        self._kind: tuple[int, str, str] | None = None
        self._front: Graph | None = None
        self._resampler: AudioResampler | None = None

    def resample(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        """Yield the frames that are complete once ``frame`` is known; None marks the end."""
        kind = None if frame is None else (frame.sample_rate, frame.format.name, frame.layout.name)
        if self._resampler is not None and kind != self._kind:
            yield from self._resampler.resample(None)
            self._resampler = None
        if frame is None:
            return
        if self._resampler is None:
            self._kind = kind
            self._front = (
                None if _is_mixed_by_ffmpeg(frame.layout) else _first_channels(frame, self._encoder.layout.nb_channels)
            )
            self._resampler = AudioResampler(format="fltp", layout=self._encoder.layout, rate=self._encoder.sample_rate)
        if self._front is not None:
            self._front.push(frame)
            pulled = self._front.pull()
            assert isinstance(pulled, AudioFrame)
            frame = pulled
        yield from self._resampler.resample(frame)


def _is_mixed_by_ffmpeg(layout: AudioLayout) -> bool:
    """Return whether FFmpeg knows where the channels of a layout are to be heard."""
    if layout.name.endswith("channels"):
        return layout.nb_channels in _DEFAULT_LAYOUTS
    return layout.name != "binaural" and not layout.name.startswith("ambisonic")


def _first_channels(frame: AudioFrame, count: int) -> Graph:
    """Return a graph that leaves the first one or two channels of frames like ``frame``.

    They are the left and the right one of nearly all layouts. The first one of ambisonic sound is
    what is heard from all directions.
    """
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=frame.time_base or Fraction(1, frame.sample_rate),
    )
    front = graph.add("channelmap", "map=0:channel_layout=mono" if count == 1 else "map=0|1:channel_layout=stereo")
    graph.link_nodes(source, front, graph.add("abuffersink")).configure()
    return graph
