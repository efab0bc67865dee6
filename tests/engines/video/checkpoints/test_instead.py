"""What lies under the name of a model's file after a download went wrong, and files of other forms.

Each is refused by the loader and by `ryla models check`, with what it is and what to do.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.check import check_video_models
from deployments.video.checkpoints.experts import load_expert
from deployments.video.checkpoints.folder import load_text_encoder, load_vae, read_config
from deployments.video.checkpoints.gguf import open_gguf
from deployments.video.checkpoints.lora_file import read_lora
from deployments.video.checkpoints.tensor_files import find_files, found_instead, read_shapes
from deployments.video.checkpoints.tokenizer import read_tokenizer
from tests.engines.random_models import RandomCheckpoints
from tests.engines.video.checkpoints.published import CPU, PAIR, make
from tests.engines.video.checkpoints.published_weights import UMT5, write_json

F32 = torch.float32
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
)
CONTENTS: dict[str, tuple[bytes, str]] = {
    "pointer": (POINTER, "a pointer of Git LFS instead of the file; fetch the file with `git lfs pull`"),
    "page": (b"\n<!DOCTYPE html><html><title>Log in</title>", "a web page instead of the file; download it again"),
    "message": (
        b"Access to model Wan-AI is restricted. Log in.",
        "begins with `Access to model Wan-AI is restricted. Log in.`",
    ),
    "JSON": (b'{"error": "Repository not found"}\n', 'begins with `{"error": "Repository not found"}`; download it again'),
    "other language": ("模型不存在请重新下载该文件或联系管理员模型模型".encode(), "text instead of the file"),
    "archive": (b"PK\x03\x04\0\0\x08\x08data.pkl", "an archive or a pickled file instead; use the model's safetensors file"),
}
TEXT = {"pointer", "page"}
"""The contents by which a JSON file is known to be something else."""


def transformer(path: Path) -> None:
    make("text", path.parent / "transformer")
    load_expert(path, folder=path.parent, part="transformer", dtype=F32, device=CPU)


def text_encoder(path: Path) -> None:
    write_json(path.parent / "text_encoder" / "config.json", UMT5)
    load_text_encoder(path.parent / "text_encoder", F32, CPU, path)


def vae(path: Path) -> None:
    write_json(path.parent / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", "base_dim": 8, "num_res_blocks": 1})
    load_vae(path.parent / "vae", F32, CPU, path)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "transformer": ("wan2.1_t2v.safetensors", transformer),
    "GGUF": ("wan2.1_t2v.gguf", transformer),
    "text encoder": ("umt5_xxl_fp16.safetensors", text_encoder),
    "VAE": ("wan_2.1_vae.safetensors", vae),
    "LoRA": ("lora.safetensors", read_lora),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_another_file_under_the_name_of_a_model_is_told(content: str, reader: str, tmp_path: Path) -> None:
    data, message = CONTENTS[content]
    name, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointRefused) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    (finding,) = check_video_models(tmp_path)
    assert message in "; ".join(finding.faults)


@pytest.mark.parametrize("content", sorted(TEXT))
def test_another_file_under_the_name_of_a_configuration_is_told(content: str, tmp_path: Path) -> None:
    data, message = CONTENTS[content]
    for name, read in (("config.json", read_config), ("tokenizer.json", read_tokenizer)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointRefused) as refused:
            read(tmp_path)
        assert message in str(refused.value)
    (tmp_path / "config.json").write_text('{"in_channels": 16,}')
    with pytest.raises(CheckpointRefused, match=r"not valid JSON .*line 1"):
        read_config(tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_may_not_be_read_is_told(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(b"x" * 100)
    opened = Path.open

    def open_(path: Path, mode: str = "r", **options: Any) -> Any:
        return refuse() if mode == "rb" else opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_)  # a test may run as root, who may read everything
    with pytest.raises(CheckpointRefused, match="cannot be read: Permission denied"):
        read(tmp_path / name)


def test_a_configuration_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointRefused, match="folder: cannot be read: Is a directory"):
        read_config(tmp_path, "folder")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CheckpointRefused, match=r"config\.json: cannot be read: Permission denied"):
        read_config(tmp_path)


def refuse(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_files_by_another_ending_are_to_be_renamed(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    for name, data, message in (
        ("wan.sft", save(PAIR), "rename it so that it ends in .safetensors"),
        ("wan.gguf", save(PAIR), "rename it so that it ends in .safetensors"),
        ("wan.safetensors", random_models.high_noise.read_bytes(), "rename it so that it ends in .gguf"),
        ("wan-00002-of-00003.gguf", random_models.high_noise.read_bytes(), "`llama-gguf-split --merge`"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CheckpointRefused, match=message):
            transformer(path)
        (finding,) = check_video_models(tmp_path)
        assert message in "; ".join(finding.faults)
        path.unlink()


def test_a_download_that_was_cut_off_anywhere_is_refused(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    gguf = random_models.high_noise.read_bytes()
    for name, whole, read in (
        ("m.safetensors", save(PAIR), lambda path: read_shapes(find_files(path))),
        ("m.gguf", gguf, open_gguf),
    ):
        path = tmp_path / name
        cuts = {len(whole) * part // 8 for part in range(8)} | {*range(1, 400, 23), len(whole) - 1}
        for cut in sorted(cuts):
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointRefused, match="truncated"):
                read(path)


@pytest.mark.parametrize("length", [640, 1152])
def test_a_truncated_file_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path: Path, length: int) -> None:
    file = tmp_path / "cut.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + b'{"a": {"dtype": "F32"')
    assert file.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04")
    assert found_instead(file) is None
