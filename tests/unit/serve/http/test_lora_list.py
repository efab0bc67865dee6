"""The list of LoRAs that callers may choose from."""

import asyncio
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from deployments import lora_folder
from deployments.lora_folder import LoraFolderUnavailable
from serve.config import AppConfig, Models
from serve.http import lora_list
from serve.http.lora_list import KEPT_S, LoraList, lora_folders
from serve.models import VIDEO_MODELS
from serve.problems import Problem
from tests.unit.deployments.safetensors_files import safetensors
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_config, make_service_of


def test_a_configured_folder_is_listed_by_model(tmp_path: Path) -> None:
    for name, metadata in (("ink_high_noise", {"trigger_word": "ink"}), ("ink_low_noise", None), ("film", None)):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors(metadata))
    files = {
        "wan26": {"text": "text", "loras": str(tmp_path)},
        "wan22_gguf": {"folder": "f", "high_noise": "h.gguf", "low_noise": "l.gguf"},
        "faces": {"analysis": "a", "swapper": "s.onnx"},
    }
    config = make_config().model_copy(update={"models": Models.model_validate(files)})
    assert lora_folders(config) == {"wan26": str(tmp_path), "wan22-gguf": None}
    listed = TestClient(make_service_of(config, FakeGraph())).get("/loras").json()["loras"]
    size = len(safetensors())
    assert listed == {
        "wan26": [
            {"name": "film", "trigger_words": [], "experts": [], "bytes": size},
            {
                "name": "ink",
                "trigger_words": ["ink"],
                "experts": ["high", "low"],
                "bytes": size + len(safetensors({"trigger_word": "ink"})),
            },
        ],
        "wan22-gguf": [],
    }


def test_the_demo_lists_its_styles_with_their_words() -> None:
    listed = TestClient(make_service_of(make_config(), FakeGraph())).get("/loras").json()["loras"]
    words = {lora["name"]: (lora["trigger_words"], lora["experts"]) for lora in listed["wan26"]}
    assert words == {"ink": (["a line drawing"], []), "sepia": (["an old photograph"], [])}
    assert listed["wan22-gguf"] == []


async def test_a_broken_file_hides_no_other_and_is_logged_once_until_it_changes(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lora_folder, "LISTED_S", -1.0)
    files = {
        "wan26": {"text": "text", "loras": str(tmp_path)},
        "wan22_gguf": {"folder": "f", "high_noise": "h.gguf", "low_noise": "l.gguf"},
        "faces": {"analysis": "a", "swapper": "s.onnx"},
    }
    listed = LoraList(make_config().model_copy(update={"models": Models.model_validate(files)}))
    (tmp_path / "ink.safetensors").write_bytes(safetensors())
    (tmp_path / "broken.safetensors").write_bytes(b"<html>")
    (tmp_path / "film_high_noise.safetensors").write_bytes(safetensors())
    (tmp_path / "film_low_noise.safetensors").symlink_to(tmp_path / "nothing")

    async def names() -> list[str]:
        clock.now += 2 * KEPT_S
        return [lora["name"] for lora in (await listed.all())["wan26"]]

    assert await names() == await names() == ["ink"]
    first, second = caplog.messages
    assert "broken.safetensors cannot be used: it is shorter than a header" in first
    assert "film_low_noise.safetensors cannot be used" in second
    (tmp_path / "broken.safetensors").write_bytes(safetensors()[:-1])
    assert await names() == ["ink"]
    assert len(caplog.messages) == 3
    (tmp_path / "broken.safetensors").write_bytes(safetensors())
    assert await names() == ["broken", "ink"]
    assert len(caplog.messages) == 3


def test_what_no_request_can_use_is_not_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names of tensors tell it, and how many experts there are; weights are not read."""
    folders = {count: tmp_path / count for count in ("one", "two", "loras")}
    for folder in folders.values():
        folder.mkdir()
    for count, second in (("one", [None, None]), ("two", ["diffusers", "WanTransformer3DModel"])):
        (folders[count] / "model_index.json").write_text(json.dumps({"transformer_2": second}))
    contents = {
        "ink": safetensors(),
        "weights": safetensors(names=["blocks.0.ffn.0.weight"]),
        "half": safetensors(names=["a.lora_A.weight"]),
        "film_high_noise": safetensors(),
        "film_low_noise": safetensors(),
        "hat_high_noise": safetensors(),
    }
    for name, content in contents.items():
        (folders["loras"] / f"{name}.safetensors").write_bytes(content)

    def names(count: str) -> list[str]:
        files = {
            "wan26": {"text": str(folders[count]), "loras": str(folders["loras"])},
            "wan22_gguf": {"folder": "f", "high_noise": "h.gguf", "low_noise": "l.gguf"},
            "faces": {"analysis": "a", "swapper": "s.onnx"},
        }
        config = make_config().model_copy(update={"models": Models.model_validate(files)})
        listed = TestClient(make_service_of(config, FakeGraph())).get("/loras").json()["loras"]
        return [lora["name"] for lora in listed["wan26"]]

    assert names("two") == ["film", "hat", "ink"]
    assert names("one") == ["ink"]
    said = " ".join(caplog.messages)
    assert "film is for a model of two experts, and this model has one transformer" in said
    assert "weights.safetensors cannot be used: unknown tensor `blocks.0.ffn.0.weight`" in said
    assert "half.safetensors cannot be used: the change of `a` is incomplete" in said


def test_a_folder_that_cannot_be_read_is_a_503(tmp_path: Path) -> None:
    files = {
        "wan26": {"text": "text", "loras": str(tmp_path / "none")},
        "wan22_gguf": {"folder": "f", "high_noise": "h.gguf", "low_noise": "l.gguf"},
        "faces": {"analysis": "a", "swapper": "s.onnx"},
    }
    config = make_config().model_copy(update={"models": Models.model_validate(files)})
    response = TestClient(make_service_of(config, FakeGraph())).get("/loras")
    assert (response.status_code, response.json()["detail"]) == (503, "the folder of LoRAs cannot be read now")


class Reads(LoraList):
    """A list that counts how often its folders are read, and fails while they are ``away``."""

    def __init__(self) -> None:
        super().__init__(AppConfig())
        self.count = 0
        self.away = False
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def _read(self) -> dict[str, list[dict[str, object]]]:
        self.count += 1
        self.threads.add(threading.get_ident())
        self.gate.wait(60)
        if self.away:
            raise LoraFolderUnavailable("no route to s3://a-secret-bucket")
        return {"wan26": [{"name": f"number {self.count}"}]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    moved = SimpleNamespace(now=0.0)
    monkeypatch.setattr(lora_list, "time", SimpleNamespace(monotonic=lambda: moved.now))
    return moved


async def test_a_list_is_read_again_only_when_it_is_old(clock: SimpleNamespace) -> None:
    reads = Reads()
    first = await reads.all()
    clock.now = KEPT_S
    assert await reads.all() is first
    clock.now += 0.1
    assert (await reads.all())["wan26"] == [{"name": "number 2"}]
    assert threading.get_ident() not in reads.threads, "a slow folder does not hold the event loop"


async def test_however_many_ask_one_of_them_reads(clock: SimpleNamespace) -> None:
    reads = Reads()
    reads.gate.clear()
    asking = [asyncio.ensure_future(reads.all()) for _ in range(20)]
    await asyncio.sleep(0)
    reads.gate.set()
    answers = await asyncio.gather(*asking)
    assert (reads.count, len({id(answer) for answer in answers})) == (1, 1)


async def test_a_failure_is_a_503_that_keeps_the_folder_to_itself_and_is_not_kept(clock: SimpleNamespace) -> None:
    reads = Reads()
    reads.away = True
    with pytest.raises(Problem) as refused:
        await reads.all()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "30")
    assert "secret" not in refused.value.detail
    reads.away = False
    assert (await reads.all())["wan26"] == [{"name": "number 2"}]


def test_every_video_model_has_a_folder_or_none_in_the_demo_too() -> None:
    assert set(lora_folders(AppConfig())) == {model.name for model in VIDEO_MODELS}
