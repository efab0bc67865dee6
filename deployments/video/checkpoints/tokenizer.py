"""Loads UMT5's tokenizer exactly as its file says.

Transformers would build it again from the file's vocabulary by the rules of T5, whose unknown
characters have another number than UMT5's.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.config_values import check_values
from deployments.video.checkpoints.tensor_files import found_instead

_ROLES = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
"""The special tokens that a prompt may need, by what the configuration calls them."""


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in ``folder/tokenizer.json``, which also pads.

    It gives the ids that the file gives when it is read alone. Raises ``CheckpointRefused`` for a
    folder without that file, or a file that is no tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        models = sorted(file.name for file in folder.glob("*.model")) if folder.is_dir() else []
        only = f"only {models[0]}, " if models else ""
        raise CheckpointRefused(
            f"{folder}: has {only}no tokenizer.json; copy the tokenizer.json of `google/umt5-xxl` there, which every Wan "
            "checkpoint in diffusers' layout has in its folder `tokenizer`"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises plain exceptions
        instead = found_instead(path, may_be_text=True) or f"not a tokenizer that the library `tokenizers` can read ({e})"
        raise CheckpointRefused(f"{path}: {instead}") from None
    # A file may have been saved while it padded or cut, which is not part of the tokenizer.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    roles = _read_roles(folder / "tokenizer_config.json")
    known = {role: token for role, token in roles.items() if tokenizer.token_to_id(token) is not None}
    if "pad_token" not in known:
        raise CheckpointRefused(f"{path}: has no token `{roles['pad_token']}`, with which prompts are padded")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **known)


def _read_roles(path: Path) -> dict[str, str]:
    """Return the special tokens that the configuration names, or those of UMT5."""
    try:
        config = json.loads(path.read_text()) if path.is_file() else {}
    except OSError as e:
        raise CheckpointRefused(f"{path}: cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise CheckpointRefused(f"{path}: not valid JSON ({e})") from None
    if not isinstance(config, dict):
        raise CheckpointRefused(f"{path}: not a JSON object")
    check_values(path, config, dict.fromkeys(_ROLES, str | dict[str, Any] | None))
    found = {}
    for role, usual in _ROLES.items():
        token = config.get(role)
        if isinstance(token, dict):
            check_values(path, token, {"content": str})
            token = token.get("content")
        found[role] = token or usual
    return found
