"""A packet goes into every format, leaves the pixels alone, and is found by others, too."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from serve.media import EXTENSIONS
from serve.media.spool import Media, Spool, open_media, read_media
from serve.provenance.embedding import NotEmbedded, embed
from serve.provenance.packet_scan import find_properties
from serve.provenance.statement import GENERATED, Label
from serve.provenance.xmp import aigc_json, read_packet, write_packet
from tests.unit.serve.provenance.results import KINDS, PICTURE, STATEMENT, on_disk

LABEL = Label(producer="Example Ltd", number="0123abcd")
PACKET = write_packet(STATEMENT, request=False, label=LABEL)
Made = dict[str, tuple[str, Media]]


def pixels(media: Media, media_type: str) -> list[bytes]:
    """Return the frames of a file with their times."""
    if media_type == "video/mp4":
        with av.open(open_media(media), "r") as container:
            return [
                frame.to_ndarray(format="rgb24").tobytes() + str(frame.time).encode() for frame in container.decode(video=0)
            ]
    image = PIL.Image.open(io.BytesIO(read_media(media)))
    frames = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(image.convert("RGB").tobytes() + str(image.info.get("duration")).encode())
    return frames


@pytest.mark.parametrize("kind", KINDS)
def test_the_packet_is_there_and_the_pixels_are_the_same(made: Made, kind: str) -> None:
    media_type, data = made[kind]
    marked = embed(data, media_type, PACKET, aigc=aigc_json(LABEL))
    assert find_properties(marked) == read_packet(PACKET)
    assert find_properties(data) is None
    assert pixels(marked, media_type) == pixels(data, media_type)
    assert isinstance(marked, type(data)), "what is on disk stays there"
    again = embed(on_disk(data), media_type, PACKET, aigc=aigc_json(LABEL))
    assert isinstance(again, Spool)
    assert read_media(again) == read_media(marked)


@pytest.mark.parametrize("kind", KINDS)
def test_exiftool_reads_the_digital_source_type(made: Made, kind: str, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    media_type, data = made[kind]
    path = tmp_path / f"result.{EXTENSIONS[media_type]}"
    path.write_bytes(read_media(embed(data, media_type, PACKET, aigc=aigc_json(LABEL))))
    run = subprocess.run(["exiftool", "-j", "-G1", path], capture_output=True, check=True, timeout=120)
    (tags,) = json.loads(run.stdout)
    assert tags["XMP-iptcExt:DigitalSourceType"] == GENERATED
    assert json.loads(tags["Keys:AIGC" if kind == "mp4" else "XMP-TC260:Aigc"])["ProduceID"] == "0123abcd"
    assert not [name for name in tags if name.endswith((":Warning", ":Error"))]


def test_an_mp4_has_the_label_as_a_tag_and_its_sound_and_index_still_fit(made: Made) -> None:
    media_type, data = made["mp4"]
    marked = embed(data, media_type, PACKET, aigc=aigc_json(LABEL))
    with av.open(open_media(marked), "r") as container:
        assert json.loads(container.metadata["AIGC"])["ContentProducer"] == "Example Ltd"
    with av.open(open_media(embed(data, media_type, PACKET)), "r") as container:
        assert "AIGC" not in container.metadata


@pytest.mark.parametrize(("width", "height"), [(1, 1), (33, 7), (128, 96)])
@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_simple_webp_becomes_an_extended_one_of_its_size(width: int, height: int, lossless: bool, alpha: bool) -> None:
    rgb = PIL.Image.fromarray(np.ascontiguousarray(PICTURE[:height, :width]))
    if alpha:
        rgb.putalpha(100)
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", lossless=lossless)
    marked = PIL.Image.open(io.BytesIO(read_media(embed(buffer.getvalue(), "image/webp", PACKET))))
    assert marked.size == (width, height)
    assert marked.tobytes() == PIL.Image.open(buffer).tobytes()
    assert marked.info["xmp"] == PACKET


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp", "image/gif"])
def test_what_is_no_result_is_refused(media_type: str) -> None:
    with pytest.raises(NotEmbedded):
        embed(b"neither of them, and of some length" * 3, media_type, PACKET)
