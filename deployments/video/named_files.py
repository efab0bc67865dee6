"""Says of model files that are refused which setting names them, and for which checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models, Wan26Models

_PREFIXES = {Wan26Models: "models.wan26", Wan22Models: "models.wan22_gguf"}


@contextmanager
def settings_named(models: Wan26Models | Wan22Models) -> Iterator[None]:
    """Add the setting to the message of a ``CheckpointRefused`` that does not name it.

    For a file that has to fit a checkpoint, the checkpoint's folder is named too.
    """
    try:
        yield
    except CheckpointRefused as error:
        message = str(error)
        setting = _setting_of(message, models)
        if setting is None or f"{setting}`" in message or "configured as `" in message:
            raise
        folder = _folder_of(setting, models)
        of_which = "" if folder is None or message.count(folder) else f", for the model in {folder}"
        raise CheckpointRefused(f"{message} (configured as `{_PREFIXES[type(models)]}.{setting}`{of_which})") from error


def _setting_of(message: str, models: Wan26Models | Wan22Models) -> str | None:
    """Return the setting whose file or folder ``message`` begins with."""
    named = {setting: str(Path(value).expanduser()) for setting, value in _paths(models).items()}
    found = [setting for setting, path in named.items() if message.startswith((f"{path}:", f"{path}/", f"{path} "))]
    return max(found, key=lambda setting: len(named[setting]), default=None)


def _folder_of(setting: str, models: Wan26Models | Wan22Models) -> str | None:
    """Return the checkpoint that a file has to fit, or None for a checkpoint."""
    if isinstance(models, Wan22Models):
        return None if setting == "folder" else models.folder
    if setting in ("text", "image"):
        return None
    return models.image or models.text if setting.startswith("image_") else models.text


def _paths(models: Wan26Models | Wan22Models) -> Mapping[str, str | Path]:
    return {name: value for name, value in models if isinstance(value, str | Path) and name != "loras"}
