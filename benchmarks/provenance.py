"""Marks many results and reads them again: how many are valid, and what it costs.

Run it with ``python -m benchmarks.provenance``; it needs neither Ray nor a model. It prints what
docs/provenance.md quotes:

- the time that marks add to results of each format, and to a film of 1080p;
- chains: pictures and films that are made of each other, each read by c2pa's own reader;
- in how many formats exiftool reads the digital source type;
- flips: files of which one byte was flipped. If the manifest is still valid, it shows the same;
- mutations: files that were changed at random, all of which must be answered.
"""

import argparse
import asyncio
import hashlib
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from serve.media import EXTENSIONS
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.encode.encoder import Encoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaError
from serve.media.images import cover, encode_image
from serve.media.samples import stranger
from serve.media.spool import Media, media_size, read_media
from serve.provenance.manifest import c2pa_settings
from serve.provenance.marking import Marking
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_manifest
from serve.provenance.signing import Source
from serve.provenance.trial import TRIAL
from serve.provenance.verifier import Verifier
from serve.provenance.watermark import PUBLISHED_SECRET
from serve.provenance_settings import ProvenanceSettings

FPS = Fraction(16)
SIZES = {"832x480, 33 frames": (832, 480, 33), "1920x1080, 120 frames": (1920, 1080, 120)}
PARTS = ("times", "chains", "exiftool", "flips", "mutations")
PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp")


def video(media_type: str, width: int, height: int, count: int) -> tuple[Media, float]:
    """Return a video that pans over a photograph, and the seconds that encoding it took."""
    photograph = cover(stranger(), width, height)
    encoder: Encoder
    if media_type == "video/mp4":
        encoder = Mp4Encoder(FPS, preset="veryfast", crf=18)
    elif media_type == "image/webp":
        encoder = WebpEncoder(FPS, method=0, count=count)
    else:
        encoder = GifEncoder(FPS, count=count)
    start = time.perf_counter()
    for first in range(0, count, 4):
        frames = np.stack([np.roll(photograph, 2 * i, axis=1) for i in range(first, min(count, first + 4))])
        encoder.add(frames, tuple(Fraction(first + i) / FPS for i in range(len(frames))))
    return encoder.close(), time.perf_counter() - start


async def time_marks(marking: Marking, repeats: int) -> None:
    """Print what marks add to each format."""
    files: list[tuple[str, str, Media, float]] = []
    for media_type in PICTURE_TYPES:
        start = time.perf_counter()
        picture = encode_image(cover(stranger(), 1024, 1024), media_type)
        files.append(("1024x1024", media_type, picture, time.perf_counter() - start))
    for name, (width, height, count) in SIZES.items():
        for media_type in ("video/mp4", "image/webp", "image/gif"):
            if media_type == "video/mp4" or width < 1000:
                data, seconds = video(media_type, width, height, count)
                files.append((name, media_type, data, seconds))
    for name, media_type, data, encoded_s in files:
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            marked = await marking.mark(data, media_type, TRIAL)
            taken.append(time.perf_counter() - start)
        grown = media_size(marked.media) - media_size(data)
        print(
            f"{media_type:11} {name:22} marks {1000 * float(np.median(taken)):7.1f} ms (median of {repeats}), "
            f"encoding {1000 * encoded_s:8.1f} ms, {media_size(data):9d} bytes + {grown}"
        )


async def make_chains(marking: Marking, count: int) -> None:
    """Sign ``count`` pictures and films over twice; print how many chains are whole."""
    pictures = [(kind, encode_image(cover(stranger(), 256 + 16 * i, 256), kind)) for i, kind in enumerate(PICTURE_TYPES)]
    films = [("video/mp4", video("video/mp4", 256, 144, 9)[0])]
    whole: Counter[str] = Counter()
    start = time.perf_counter()
    for number in range(count):
        media_type, data = (pictures + films)[number % 4]
        first = await marking.mark(data, media_type, TRIAL, sources=[Source(media=data, parent=True)])
        second = await marking.mark(data, media_type, TRIAL, sources=[Source(media=first.media, parent=True)])
        manifest = read_manifest(second.media, c2pa_settings())
        good = manifest is not None and manifest["state"] == "valid" and not manifest["failures"]
        good = good and manifest is not None and [one["actions"] for one in manifest["chain"]] == [manifest["actions"]]
        whole[media_type] += good
    seconds = time.perf_counter() - start
    print(f"chains of two: {sum(whole.values())} of {count} whole ({dict(whole)}), {seconds:.1f} s")


def part_of(content: bytes, at: int) -> str:
    """Return the part of a signed file in which a byte is."""
    manifest = content.index(b"jumdc2pa")
    padding = re.search(rb"\x63pad\x59..", content, re.DOTALL)
    assert padding is not None
    size = int.from_bytes(padding[0][-2:])
    if content.startswith(b"GIF"):  # a block of 255 bytes begins with its length
        size += size // 255 + 1
    if padding.end() <= at < padding.end() + size:
        return "the signature's padding"
    if content[4:8] == b"ftyp" and at < int.from_bytes(content[:4]):
        return "`ftyp`"
    return "the rest of the manifest" if manifest - 64 <= at < padding.end() + size + 80 else "elsewhere"


def shown(content: bytes) -> tuple[str, dict[str, str]]:
    """Return a digest of the frames that a player shows of a file, and what its metadata says."""
    digest = hashlib.sha256()
    for frame, _ in open_source(content, SourceLimits(frames=1000, seconds=1000, pixels=32_000_000, scans=100)).frames():
        digest.update(frame.tobytes())
    properties = find_properties(content)
    return digest.hexdigest(), {} if properties is None else properties.values


def flip_bytes(files: Sequence[tuple[str, Media]], count: int, seed: int) -> None:
    """Flip ``count`` bytes of each file, one at a time; print which files are still valid."""
    for media_type, media in files:
        original = read_media(media)
        content, valid, otherwise = bytearray(original), Counter[str](), 0
        places = random.Random(seed).sample(range(len(content)), min(count, len(content)))
        for at in places:
            content[at] ^= 0xFF
            manifest = read_manifest(bytes(content), c2pa_settings())
            if manifest is not None and manifest["state"] == "valid":
                valid[part_of(original, at)] += 1
                otherwise += shown(bytes(content)) != shown(original)
            content[at] ^= 0xFF
        print(
            f"{media_type}: {len(places)} flipped bytes of {len(content)}, {valid.total()} still valid ({dict(valid)}), "
            f"{otherwise} of them show something else",
            flush=True,
        )


async def send_mutations(files: Sequence[Media], count: int, *, seed: int, secrets: Sequence[bytes]) -> None:
    """Verify ``count`` files that were changed at random; print what became of them."""
    drawn = random.Random(seed)
    verifier = Verifier(max_cpu_s=20, max_memory_bytes=2**30, max_pixels=32_000_000, secrets=secrets)
    outcomes, valid, otherwise = Counter[str](), Counter[str](), 0
    start = time.perf_counter()
    for number in range(count):
        original = read_media(files[number % len(files)])
        content = bytearray(original)
        for _ in range(drawn.choice((1, 5, 50, 500))):
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        cut = drawn.choice((len(content), len(content), drawn.randrange(1, len(content))))
        sent = bytes(content[:cut])
        try:
            report = await verifier.verify(sent)
        except MediaError:
            outcomes["refused (413 or 422)"] += 1
            continue
        outcomes[f"c2pa {report['c2pa']['state']}" if report["c2pa"] else "no manifest"] += 1
        if report["c2pa"] and report["c2pa"]["state"] == "valid":
            changed = {part_of(original, at) for at, (new, old) in enumerate(zip(sent, original, strict=False)) if new != old}
            changed |= {"the end"} if len(sent) < len(original) else set()
            valid[" and ".join(sorted(changed)) or "nowhere"] += 1
            otherwise += shown(sent) != shown(original)
    verifier.close()
    print(f"mutated files: {count} of {count} answered, {dict(outcomes)}, {time.perf_counter() - start:.1f} s")
    print(f"changes of those that are still valid: in {dict(valid)}; {otherwise} of them show something else")


def read_with_exiftool(files: Sequence[tuple[str, Media]], folder: Path) -> None:
    """Print in how many of the files exiftool reads the digital source type."""
    if shutil.which("exiftool") is None:
        print("exiftool is not installed")
        return
    paths = []
    for number, (media_type, media) in enumerate(files):
        paths.append(folder / f"{number}.{EXTENSIONS[media_type]}")
        paths[-1].write_bytes(read_media(media))
    run = subprocess.run(["exiftool", "-s3", "-DigitalSourceType", *paths], capture_output=True, text=True, check=True)
    print(f"exiftool reads the digital source type of {run.stdout.count('trainedAlgorithmicMedia')} of {len(files)} formats")


async def main(arguments: argparse.Namespace) -> None:
    """Print the parts that were asked for."""
    with tempfile.TemporaryDirectory() as name:
        marking = Marking(ProvenanceSettings.model_validate({"c2pa": {"folder": name}}), demo=True, processes=2)
        await marking.start()
        try:
            if "times" in arguments.parts:
                await time_marks(marking, arguments.repeats)
            if "chains" in arguments.parts:
                await make_chains(marking, arguments.chains)
            results: list[tuple[str, Media]] = [
                (kind, encode_image(cover(stranger(), 192, 128), kind)) for kind in PICTURE_TYPES
            ]
            results += [(kind, video(kind, 192, 128, 9)[0]) for kind in ("video/mp4", "image/webp", "image/gif")]
            signed = [(kind, (await marking.mark(data, kind, TRIAL)).media) for kind, data in results]
            if "exiftool" in arguments.parts:
                read_with_exiftool(signed, Path(name))
            if "flips" in arguments.parts:
                flip_bytes(signed, arguments.flips, arguments.seed)
            if "mutations" in arguments.parts:
                secrets = [] if arguments.without_watermark else [PUBLISHED_SECRET]
                await send_mutations([media for _, media in signed], arguments.mutations, seed=arguments.seed, secrets=secrets)
        finally:
            marking.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--flips", type=int, default=2000, help="bytes of each file that are flipped, one at a time")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--without-watermark", action="store_true", help="look for none in mutated files: quicker")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
