"""The registry of models agrees with everything that names a model."""

import pytest

from serve.app import DEPLOYMENTS
from serve.config import AppConfig, Models, VideoDefaults
from serve.models import FACE_SWAPPER, INGRESS, MODELS, VIDEO_MODELS, Model, find_model


def test_names_settings_and_deployments_are_unique() -> None:
    for names in zip(*((m.name, m.setting, m.files, m.deployment) for m in MODELS), strict=True):
        assert len(set(names)) == len(MODELS)
    assert INGRESS not in {model.deployment for model in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_settings_files_and_a_deployment(model: Model) -> None:
    assert model.setting in AppConfig.model_fields
    assert model.files in Models.model_fields
    assert DEPLOYMENTS[model].name == model.deployment
    assert AppConfig().deployment_of(model).hardware.num_gpus == 0


def test_every_video_model_has_request_defaults_of_its_own() -> None:
    config = AppConfig()
    keys = [name for name, field in AppConfig.model_fields.items() if field.annotation is VideoDefaults]
    assert [model.defaults for model in VIDEO_MODELS] == keys
    assert [config.defaults_of(model) for model in VIDEO_MODELS] == [getattr(config, key) for key in keys]
    with pytest.raises(ValueError, match="face-swapper does not generate videos"):
        config.defaults_of(FACE_SWAPPER)


def test_a_model_is_found_by_its_name_in_the_api() -> None:
    assert [find_model(model.name) for model in MODELS] == list(MODELS)
    assert find_model("wan22_gguf") is None
