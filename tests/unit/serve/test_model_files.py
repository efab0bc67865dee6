"""The files of the video models are the demo's or those of the settings, for each model its own."""

import json
import subprocess
import sys
from pathlib import Path

from deployments.settings import Wan26Models
from serve.config import AppConfig, Models
from serve.model_files import transformer_counts, video_model_files
from serve.models import VIDEO_MODELS, WAN22_GGUF, WAN26

FILES = {
    "wan26": {"text": "text", "loras": "styles"},
    "wan22_gguf": {"folder": "f", "high_noise": "h.gguf", "low_noise": "l.gguf"},
    "faces": {"analysis": "a", "swapper": "s.onnx"},
}


def test_configured_files_are_those_of_the_settings() -> None:
    config = AppConfig().model_copy(update={"models": Models.model_validate(FILES)})
    files = video_model_files(config)
    assert list(files) == list(VIDEO_MODELS)
    assert isinstance(config.models, Models)
    assert (files[WAN26], files[WAN22_GGUF]) == (config.models.wan26, config.models.wan22_gguf)


def test_the_demos_files_come_with_the_package() -> None:
    files = video_model_files(AppConfig())
    assert set(files) == set(VIDEO_MODELS)
    for model in files.values():
        named = [value for value in model.model_dump().values() if value is not None and Path(str(value)).is_absolute()]
        assert len(named) >= 2
        assert all(Path(str(value)).exists() for value in named)


def test_the_index_of_a_checkpoint_says_how_many_transformers_it_has(tmp_path: Path) -> None:
    for name, second in (("one", [None, None]), ("old", None), ("two", ["diffusers", "WanTransformer3DModel"])):
        (tmp_path / name).mkdir()
        index = {"_class_name": "WanPipeline", **({} if second is None else {"transformer_2": second})}
        (tmp_path / name / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("[1")

    def counts(**files: str) -> frozenset[int]:
        paths = {name: str(tmp_path / value) for name, value in files.items()}
        return transformer_counts(Wan26Models.model_validate(paths))

    assert counts(text="one") == counts(text="old") == counts(text="one", image="old") == {1}
    assert counts(text="two") == {2}
    assert counts(text="one", image="two") == {1, 2}
    assert counts(text="broken") == counts(text="missing") == {1, 2}, "what cannot be read may be either"
    assert counts(text="missing", text_weights="high", text_weights_low_noise="low") == {2}


def test_the_demos_models_have_one_and_two_transformers() -> None:
    files = video_model_files(AppConfig())
    assert {model: transformer_counts(files[model]) for model in files} == {WAN26: {1}, WAN22_GGUF: {2}}


def test_the_ingress_needs_no_library_for_models_to_know_them() -> None:
    program = "import sys, serve.model_files; print({'onnx', 'torch', 'diffusers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed == "set()\n"
