"""`python -m benchmarks.wan_http`: videos of A14B over HTTP, on one GPU and on two or more.

The whole service runs: proxy, ingress, Runner, the replica of Wan22GGUF, and on CPUs the demo's
Wan26 and a FaceSwapper with random graphs. A request has 81 frames of 832x480 in 4 steps, with a
negative prompt (two forward passes a step) or without guidance. Its time ends with the last byte of
an MP4, whose frames are then decoded and counted. Provenance is on, as it is by default. The models
have full size and random weights.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import face_graphs
from benchmarks.wan_checkpoints import Checkpoints
from benchmarks.wan_measurement import IMAGE, settle
from demo.checkpoints import wan26_models
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.client import Client, check_answer
from serve.media.samples import data_uri, jpeg

ENDPOINT = "wan22-i2v"
SIZE = {"width": 832, "height": 480, "num_frames": 81}


def configure(checkpoints: Checkpoints, path: Path, *, gpus: int) -> Path:
    """Write a configuration file in which Wan22GGUF runs on this number of GPUs."""
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    settings = config["applications"][0]["args"]
    faces = {name: str(file) for name, (file, _, _) in face_graphs.write(path.parent / "faces").items()}
    settings["models"] = {
        "wan26": wan26_models().model_dump(mode="json"),
        "wan22_gguf": checkpoints.wan22.model_dump(mode="json"),
        "faces": {"analysis": str(path.parent / "faces" / "buffalo_l"), "swapper": faces["inswapper_128"]},
    }
    settings["wan22_gguf"] = {
        "hardware": {"num_cpus": 2, "num_gpus": gpus, "gpu_type": "GPU"},
        "engine": {"device": "cuda", "spread": "guidance" if gpus > 1 else "none", "warm_up": [SIZE]},
    }
    settings["limits"] = {"max_width": 832, "max_height": 480, "max_frames": 81}
    path.write_text(yaml.safe_dump(config))
    return path


def measure(client: Client, name: str, body: dict[str, Any], rounds: int) -> None:
    """Print the seconds of each request, and the stages of the quickest one."""
    answers = [client.call(ENDPOINT, body | {"seed": seed}, accept="video/mp4") for seed in range(rounds)]
    for answer in answers:
        check_answer(ENDPOINT, answer)
    best = min(answers, key=lambda answer: answer.seconds)
    seconds = ", ".join(f"{answer.seconds:.2f}" for answer in answers)
    timing = best.headers.get("server-timing", "")
    print(f"{name}: {seconds} s; {len(best.data) / 1e6:.1f} MB; {timing}", flush=True)


def main() -> None:
    """Start the service on one GPU and then on all, and print the figures of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder for the checkpoints, which is kept; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpus", type=int, nargs="+", help="numbers of GPUs; default: one, and all")
    options = parser.parse_args()
    count = torch.cuda.device_count()
    print(f"{count} x {torch.cuda.get_device_name()}, torch {torch.__version__}, {SIZE}, 4 steps", flush=True)
    body = {**SIZE, "prompt": "a cat", "source_image": data_uri(jpeg(IMAGE), "image/jpeg"), "steps": 4}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        checkpoints = Checkpoints(folder)
        for gpus in options.gpus or sorted({1, count}):
            config = configure(checkpoints, folder / "service.yaml", gpus=gpus)
            settle()  # what the checkpoints were made with
            with running(config, folder / f"serve-{gpus}.log") as client:
                guided = body | {"negative_prompt": "blurred", "cfg": 5.0}
                measure(client, f"{gpus} GPU, guided", guided, options.rounds)
                measure(client, f"{gpus} GPU, unguided", body | {"cfg": 1.0}, options.rounds)


if __name__ == "__main__":
    main()
