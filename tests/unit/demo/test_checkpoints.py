"""The demo's Wan models: the settings name files that the package ships."""

from pathlib import Path

from demo.checkpoints import demo_checkpoints, wan22_models, wan26_models
from deployments.lora_folder import LoraFolder


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


def test_its_styles_are_listed_with_the_words_that_the_files_name() -> None:
    loras = wan26_models().loras
    assert loras is not None
    folder = LoraFolder(loras)
    listed = {name: (folder.trigger_words(entry), set(entry.files)) for name, entry in folder.entries().items()}
    assert listed == {"sepia": (("an old photograph",), {"all"}), "ink": (("a line drawing",), {"all"})}
    assert wan22_models().loras is None, "they were made for the model of Wan26"
