"""`python -m benchmarks.service [--folder DIR]`: the whole service on one GPU, called through HTTP.

It runs the preset `single-gpu`, with all three models in the memory of one GPU. The models have
full size and random weights, and are written first (benchmarks/wan_checkpoints.py and
benchmarks/face_graphs.py). Videos are 832x480x33. Requests with and without a face swap alternate,
so that their difference is what the swap adds. The detector finds one face in any frame.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks import face_graphs
from benchmarks.face_engine import film
from benchmarks.wan_checkpoints import Checkpoints, write_vace
from benchmarks.wan_measurement import IMAGE, STEPS
from demo.checkpoints import demo_checkpoints
from deployments.settings import Wan22Models
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.client import Answer, Client, check_answer
from serve.media.samples import PORTRAIT, data_uri, jpeg

FILM_FRAMES = 264


def configure(checkpoints: Checkpoints, folder: Path, *, demo_wan22: bool) -> Path:
    """Write a configuration file: the preset with these models."""
    faces = {name: str(path) for name, (path, _, _) in face_graphs.write(folder / "faces").items()}
    image = folder / "vace"
    if not image.exists():
        write_vace(image, checkpoints.shared)
    demo = demo_checkpoints()
    small = Wan22Models(folder=str(demo.a14b), high_noise=demo.high_noise, low_noise=demo.low_noise)
    config = yaml.safe_load((PRESETS / "single-gpu.yaml").read_text())
    config["applications"][0]["args"]["models"] = {
        "wan26": {"text": checkpoints.wan26.text, "image": str(image)},
        "wan22_gguf": (small if demo_wan22 else checkpoints.wan22).model_dump(mode="json"),
        "faces": {
            "analysis": str(folder / "faces" / "buffalo_l"),
            "swapper": faces["inswapper_128"],
            "gfpgan": faces["GFPGANv1.4"],
        },
    }
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def ask(client: Client, endpoint: str, body: dict[str, Any]) -> Answer:
    """Request an MP4 and check that all of its frames can be decoded."""
    answer = client.call(endpoint, body, accept="video/mp4")
    check_answer(endpoint, answer)
    return answer


def measure_videos(client: Client, name: str, image_field: str, *, steps: int, rounds: int) -> None:
    """Print the time of a video with and without a face swap."""
    body = {"prompt": "a cat", image_field: data_uri(jpeg(IMAGE), "image/jpeg"), "steps": steps, "seed": 1}
    bodies = {name: body, f"{name}-faceswap": {**body, "face_image": data_uri(PORTRAIT.read_bytes(), "image/jpeg")}}
    seconds: dict[str, list[float]] = {endpoint: [] for endpoint in bodies}
    for number in range(rounds + 1):
        for endpoint, request in bodies.items():
            answer = ask(client, endpoint, request)
            if number:  # the first round warms up
                seconds[endpoint].append(answer.seconds)
    for endpoint, taken in seconds.items():
        print(
            f"/{endpoint}, {steps} steps: {statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})", flush=True
        )
    plain, swapped = (statistics.median(taken) for taken in seconds.values())
    print(f"/{name}: the swap adds {swapped - plain:.2f} s, {(swapped / plain - 1) * 100:.1f} %", flush=True)


def measure_film(client: Client) -> None:
    """Print the frames per second at 1080p, including upload and download."""
    video = film(FILM_FRAMES)
    body = {"source_video": data_uri(video, "video/mp4"), "reference_image": data_uri(PORTRAIT.read_bytes(), "image/jpeg")}
    for _ in range(2):
        answer = ask(client, "batch-video-faceswap", body)
        print(
            f"/batch-video-faceswap, 1920x1080, {FILM_FRAMES} frames: {FILM_FRAMES / answer.seconds:.1f} frames/s, "
            f"{answer.headers['x-frames-swapped']} swapped, restorer {answer.headers['x-face-restorer']}",
            flush=True,
        )


def main() -> None:
    """Start the service and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="folder for the checkpoints, 45 GB, which is kept; default: a temporary one"
    )
    parser.add_argument("--log", type=Path, help="log file of the service")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--demo-wan22", action="store_true", help="use the demo's small pair for A14B, which is then not measured"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        config = configure(Checkpoints(folder), folder, demo_wan22=options.demo_wan22)
        with running(config, options.log or folder / "serve.log") as client:
            print(httpx.get(f"{client.url}/readyz").json()["models"], flush=True)
            measure_videos(client, "wan2.6-i2v", "reference_image", steps=STEPS, rounds=options.rounds)
            measure_film(client)
            if not options.demo_wan22:
                measure_videos(client, "wan22-i2v", "source_image", steps=STEPS, rounds=options.rounds)


if __name__ == "__main__":
    main()
