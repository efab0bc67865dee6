"""Folders in diffusers' layout: what does not fit is refused by name, and no socket is opened."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.folder import empty_vae, find_folder
from deployments.wire import Image, VideoRequest
from tests.engines.random_models import RandomCheckpoints, wan22_models
from tests.engines.video.checkpoints.folders import change_weights, copy_of, image_folder
from tests.engines.video.recorder import latents_of


def load(folder: Path) -> object:
    return build_wan26(Wan26Settings(), Wan26Models(text=str(folder)))


FAULTS: dict[str, tuple[str, Any, str]] = {
    "missing": (
        "transformer",
        lambda t: t.pop("blocks.1.attn1.to_q.weight"),
        "missing tensor `blocks.1.attn1.to_q.weight`",
    ),
    "extra": ("transformer", lambda t: t.update(scale_weight=torch.ones(1)), "unknown tensor `scale_weight`"),
    "misshapen": (
        "vae",
        lambda t: t.update({"post_quant_conv.weight": torch.ones(16, 16, 1, 1, 2)}),
        "tensor `post_quant_conv.weight` has shape [16, 16, 1, 1, 2], expected [16, 16, 1, 1, 1]",
    ),
    "text encoder": (
        "text_encoder",
        lambda t: t.pop("encoder.final_layer_norm.weight"),
        "missing tensor `encoder.final_layer_norm.weight`",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_that_does_not_fit_is_named(random_models: RandomCheckpoints, tmp_path: Path, fault: str) -> None:
    part, change, message = FAULTS[fault]
    folder = copy_of(random_models.text, tmp_path)
    (weights,) = (folder / part).glob("*.safetensors")
    change_weights(weights, change)
    with pytest.raises(CheckpointRefused) as refused:
        load(folder)
    assert message in str(refused.value)
    assert part in str(refused.value)


def test_a_truncated_file_and_a_missing_shard_are_named(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    (weights,) = (folder / "transformer").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointRefused, match="truncated"):
        load(folder)
    weights.write_bytes(whole)
    index = {"weight_map": {"a": weights.name, "b": "model-00002-of-00002.safetensors"}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointRefused, match=r"00002-of-00002.*missing"):
        load(folder)


def test_a_missing_folder_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a host was looked up"))
    with pytest.raises(CheckpointRefused, match="allow_hub"):
        build_wan26(Wan26Settings(), Wan26Models(text="Wan-AI/Wan2.1-T2V-1.3B-Diffusers"))


@pytest.mark.parametrize("revision", ["", "@main", "@0123456", "@" + "g" * 40])
def test_a_hub_id_without_its_commit_is_refused(monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a host was looked up"))
    with pytest.raises(CheckpointRefused, match=r"name the commit to fetch, owner/name@COMMIT"):
        find_folder(f"owner/name{revision}", allow_hub=True)


def test_the_commit_of_a_hub_id_is_what_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched: list[tuple[str, str]] = []

    def snapshot_download(repository: str, *, revision: str) -> str:
        fetched.append((repository, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    commit = "0123456789abcdef" * 2 + "01234567"
    assert find_folder(f"owner/name@{commit}", allow_hub=True) == tmp_path
    assert fetched == [("owner/name", commit)]


def test_other_architectures_are_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"no \*\.safetensors file"):
        load(random_models.a14b)
    folder = copy_of(random_models.text, tmp_path)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(CheckpointRefused, match="FluxTransformer2DModel"):
        load(folder)
    other = copy_of(random_models.vace, tmp_path)
    vae = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps({**vae, "latents_mean": [0.0] * 16}))
    with pytest.raises(CheckpointRefused, match="latents_mean"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(other)))


def test_loading_opens_no_socket(random_models: RandomCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(random_models.vace)))
    build_wan22(Wan22Settings(), wan22_models(random_models))


def test_a_scheduler_without_flow_sigmas_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_flow_sigmas": False}))
    with pytest.raises(CheckpointRefused, match="use_flow_sigmas"):
        load(folder)


@pytest.mark.parametrize("clip", [False, True])
def test_a_36_channel_checkpoint_serves_images(
    random_models: RandomCheckpoints, tmp_path: Path, small: VideoRequest, image: Image, clip: bool
) -> None:
    folder = image_folder(random_models, tmp_path, clip=clip)
    engine = build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))
    one, other = (latents_of(engine, replace(small, image=p)) for p in (image, 255 - image))
    assert one.shape == (1, 16, 2, 8, 8)
    assert not torch.equal(one, other)
    # Requests without an image still work.
    assert latents_of(engine, small).shape == (1, 16, 2, 8, 8)
    if clip:
        (weights,) = (folder / "image_encoder").glob("*.safetensors")
        name = next(n for n in load_file(weights) if n.endswith("mlp.fc1.weight"))
        change_weights(weights, lambda tensors: tensors.pop(name))
        with pytest.raises(CheckpointRefused, match="missing tensor"):
            build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))


def test_a_text_checkpoint_configured_for_images_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    folder = copy_of(random_models.text, tmp_path)
    with pytest.raises(CheckpointRefused, match="no input for an image"):
        build_wan26(Wan26Settings(), Wan26Models(text=str(random_models.text), image=str(folder)))


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made on another device than meta."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make the tensor, and count it."""
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type != "meta":
            self.bytes += made.nbytes
        return made


def test_an_empty_vae_takes_no_memory_while_it_is_built(random_models: RandomCheckpoints) -> None:
    """A wrong number in its configuration would otherwise allocate all that the machine has."""
    with Allocated() as allocated:  # type: ignore[no-untyped-call]
        torch.ones(2)
        assert allocated.bytes == 8
        empty_vae(random_models.text / "vae")
    assert allocated.bytes == 8
