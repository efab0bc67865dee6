"""A file is truncated if data is missing that is shown, whatever its container counts."""

import io
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.video.frame import VideoFrame

from serve.media.decode.completeness import check_duration, check_index, is_surely_whole
from serve.media.decode.opening import open_source
from serve.media.decode.video import open_video
from serve.media.errors import MediaError
from serve.media.samples import clip, pan, stranger
from serve.media.spool import Media, Spool
from tests.unit.serve.media.make_boxes import box
from tests.unit.serve.media.make_elements import CLUSTER, HEADER, SEGMENT, VOID, element
from tests.unit.serve.media.make_film import (
    H264_WITH_OPEN_GROUPS,
    SCENE,
    encoded,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, webm


@pytest.mark.parametrize("container_format", ["mp4", "matroska", "webm", "mov"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_a_file_whose_end_is_missing_is_still_refused(container_format: str, share: float) -> None:
    whole = encoded("libvpx" if container_format == "webm" else "libx264", container_format, audio=container_format != "webm")
    open_source(whole, LIMITS)
    with pytest.raises(MediaError):
        open_source(whole[: int(share * len(whole))], LIMITS)


def test_a_fragmented_file_whose_end_is_missing_is_still_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25, options=H264_WITH_OPEN_GROUPS)
        stream.height, stream.width = SCENE.shape[1:3]
        for pixels in SCENE:
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    whole = buffer.getvalue()
    end = whole.rindex(b"mfra") - 4
    assert open_source(whole, LIMITS).count == open_source(whole[:end], LIMITS).count == 24
    for missing in (1, 100, 600):
        with pytest.raises(MediaError, match="truncated"):
            open_source(whole[: end - missing], LIMITS)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_mp4_is_refused_instead_of_shortened(share: float) -> None:
    whole = clip(stranger())
    with pytest.raises(MediaError):
        list(open_video(whole[: int(len(whole) * share)], LIMITS).frames())


def test_a_truncated_webm_is_refused_at_every_tenth() -> None:
    whole = webm(pan(stranger(), 20, 96, 96))
    assert len(decode_all(open_video(whole, LIMITS))[0]) == 20
    for tenth in range(1, 10):
        with pytest.raises(MediaError):
            decode_all(open_video(whole[: len(whole) * tenth // 10], LIMITS))


def packet_positions(data: bytes) -> list[int]:
    """Return where in the file each packet of the video stream begins."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]


@pytest.mark.parametrize("number", [3, 15])
def test_a_file_that_ends_between_two_frames_is_refused(number: int) -> None:
    """No packet is damaged; only the number of frames in the header shows that some are missing."""
    data = clip(stranger())
    with pytest.raises(MediaError, match=f"contains {number} of its 17 frames; send the complete file"):
        open_video(data[: packet_positions(data)[number]], LIMITS)


CLUSTERS = element(CLUSTER, bytes(40)) + element(CLUSTER, bytes(50))
WHOLE: dict[str, tuple[bytes, bool]] = {
    "all sizes are stated": (element(HEADER, b"x") + element(SEGMENT, CLUSTERS), True),
    "elements before the segment": (element(HEADER) + element(VOID, bytes(9)) + element(SEGMENT, CLUSTERS), True),
    "bytes behind the segment": (element(HEADER) + element(SEGMENT, CLUSTERS) + bytes(30), True),
    "a segment without a size": (element(HEADER) + element(SEGMENT, CLUSTERS, unknown=True), False),
    "a cluster without a size": (element(HEADER) + element(SEGMENT, element(CLUSTER, bytes(9), unknown=True)), False),
    "a segment that is larger than the file": (element(HEADER) + element(SEGMENT, CLUSTERS, length=400), False),
    "a void element that is cut": (element(SEGMENT, CLUSTERS + element(VOID, bytes(5), length=99), length=300), False),
    "no segment": (element(HEADER, bytes(20)), False),
    "a header without a size": (element(HEADER, bytes(20), unknown=True), False),
    "no element": (b"\0" * 40, False),
    "a name that is cut": (HEADER[:2], False),
    "a length that is cut": (HEADER + b"\x01\0", False),
    "nothing": (b"", False),
}


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_matroska_file_is_surely_whole_only_if_its_sizes_say_so(case: str, on_disk: bool) -> None:
    data, whole = WHOLE[case]
    media: Media = data
    if on_disk:
        media = Spool.empty()
        media.write(data)
    assert is_surely_whole(media) is whole


@pytest.mark.parametrize("missing", [1, 30, 49])
def test_a_file_that_ends_in_a_cluster_is_truncated(missing: int) -> None:
    data = element(HEADER) + element(SEGMENT, CLUSTERS)
    with pytest.raises(MediaError, match="truncated: its last part is missing; send the complete file"):
        is_surely_whole(data[:-missing])


def track(*entries: tuple[int, int]) -> Any:
    """Return a stream whose samples lie at these places and have these sizes."""
    return SimpleNamespace(index_entries=[SimpleNamespace(pos=pos, size=size) for pos, size in entries])


def test_every_sample_of_both_tracks_must_lie_in_the_file() -> None:
    data = box(b"mdat", bytes(92))
    check_index(data, track((8, 50), (58, 42)), None)
    check_index(data, track(), track((8, 92)))
    with pytest.raises(MediaError, match="contains 1 of its 2 frames; send the complete file"):
        check_index(data, track((8, 50), (58, 43)), track((8, 10)))
    with pytest.raises(MediaError, match="contains 0 of its 1 pieces of sound; send the complete file"):
        check_index(data, track((8, 50)), track((100, 1)))


@pytest.mark.parametrize("wide", [False, True])
def test_the_last_fragment_must_be_there(wide: bool) -> None:
    head = box(b"ftyp", bytes(4))
    fragment = box(b"moof", bytes(20), wide=wide)
    check_index(head + fragment, track(), None)
    check_index(head + fragment + box(b"mdat", length=0), track(), None)
    with pytest.raises(MediaError, match="its last part is missing"):
        check_index(head + fragment + fragment[:-1], track(), None)


@pytest.mark.parametrize("tail", [b"", bytes(7), box(b"free", length=3), box(b"free", length=0) + box(b"moof", length=99)])
def test_what_is_no_box_ends_the_search(tail: bytes) -> None:
    check_index(box(b"ftyp", bytes(4)) + tail, track(), None)


def test_a_box_behind_a_film_that_claims_to_be_larger_than_any_file_does_not_matter() -> None:
    film = clip(stranger())
    tail = (1).to_bytes(4, "big") + b"free" + (2**64 - 1).to_bytes(8, "big")
    assert len(decode_all(open_video(film + tail, LIMITS))[0]) == len(decode_all(open_video(film, LIMITS))[0]) == 17


def test_a_file_may_end_as_early_as_the_tolerance_allows() -> None:
    check_duration(ends=9.5, stated=10, tolerance=0.5)
    check_duration(ends=12, stated=10, tolerance=0)
    with pytest.raises(MediaError, match=r"it ends after 9\.4 of 10\.0 seconds; send the complete file"):
        check_duration(ends=9.4, stated=10, tolerance=0.5)
