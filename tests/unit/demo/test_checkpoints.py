"""The demo's Wan models: the settings name files that the package ships."""

from pathlib import Path

from demo.checkpoints import demo_checkpoints, wan22_models, wan26_models


def test_the_settings_name_shipped_files() -> None:
    wan26, wan22 = wan26_models(), wan22_models()
    for folder in (Path(wan26.text), Path(wan22.folder)):
        assert (folder / "model_index.json").is_file()
    files = [wan26.text_distilled, wan26.image_distilled, wan22.high_noise, wan22.low_noise]
    files += [wan22.high_noise_distilled, wan22.low_noise_distilled]
    assert all(file is not None and file.is_file() for file in files)
    assert wan22.high_noise != wan22.low_noise
    assert wan22.high_noise_distilled != wan22.low_noise_distilled


def test_one_checkpoint_serves_text_and_images() -> None:
    models = wan26_models()
    assert models.image is None
    assert models.text_distilled == models.image_distilled == demo_checkpoints().vace_lora
