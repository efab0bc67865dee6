"""The files of the video models are the demo's or those of the settings, for each model its own."""

import subprocess
import sys
from pathlib import Path

from serve.config import AppConfig, Models
from serve.model_files import video_model_files
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


def test_the_ingress_needs_no_library_for_models_to_know_them() -> None:
    program = "import sys, serve.model_files; print({'onnx', 'torch', 'diffusers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed == "set()\n"
