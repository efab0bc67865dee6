"""Deinterlacing of video whose frames are two fields, one after the other."""

from collections.abc import Iterator

from av.error import BlockingIOError as FilterWaits
from av.error import EOFError as FilterEnded
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame


class Deinterlacer:
    """Replaces interlaced frames by whole ones, at the same rate, with FFmpeg's filter ``bwdif``.

    Frames before the first interlaced one pass through. From then on each frame is held until the
    next one, which the filter needs; frames that are not interlaced still stay as they are.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._source: FilterContext | None = None
        self._sink: FilterContext | None = None
        self._kind: tuple[int, int, str] | None = None

    def filter(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Yield the frames that are complete once ``frame`` is known."""
        kind = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and kind != self._kind:
            yield from self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._open(frame)
            self._kind = kind
        assert self._source is not None
        self._source.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[VideoFrame]:
        """Yield the frames that are still held."""
        if self._graph is not None:
            assert self._source is not None
            self._source.push(None)
            yield from self._pull()
            self._graph = self._source = self._sink = None

    def _open(self, frame: VideoFrame) -> None:
        self._graph = Graph()
        self._graph.threads = 1
        self._source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", deint="interlaced")
        self._sink = self._graph.add("buffersink")
        self._graph.link_nodes(self._source, bwdif, self._sink).configure()

    def _pull(self) -> Iterator[VideoFrame]:
        assert self._sink is not None
        while True:
            try:
                frame = self._sink.pull()
            except (FilterWaits, FilterEnded):
                return
            assert isinstance(frame, VideoFrame)
            yield frame
