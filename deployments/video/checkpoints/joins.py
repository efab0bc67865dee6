"""Whether the parts of a checkpoint fit each other.

Each part is loaded by its own configuration. Two of other sizes would both load, and the first
request would fail between them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.folder import (
    empty_vae,
    load_image_processor,
    read_image_encoder_config,
    read_text_encoder_config,
)

SPATIAL, TEMPORAL = 8, 4
"""The pixels of a latent's side, and the frames of a latent, which requests are checked against."""
PATCH = (1, 2, 2)
"""The latents of a token: frames, rows and columns."""
_INDIFFERENT = ("rope_max_seq_len",)
"""Keys of a transformer's configuration that no weight depends on."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The models that run together, by their configurations."""

    folder: Path
    """The checkpoint with the transformers and, if they need one, the image encoder."""
    transformers: Mapping[str, Any]
    """Its transformers on the meta device, by their names in the pipeline."""
    shared: Path
    """The checkpoint with the text encoder and the VAE, which may be another one."""
    remedy: str
    """What to do about parts that do not fit; it names the setting."""


def require_fit(parts: Parts) -> None:
    """Raise ``CheckpointRefused`` if two of ``parts`` do not fit each other."""
    for check in joins(parts):
        check()


def joins(parts: Parts) -> Iterator[Callable[[], None]]:
    """Yield the comparison of each pair of parts, which raises ``CheckpointRefused``."""
    yield partial(_check_vae, parts)
    for name, transformer in parts.transformers.items():
        where, config = parts.folder / name, transformer.config
        yield partial(_check_patch, parts, where, config)
        yield partial(_check_text, parts, where, config)
        yield partial(_check_latents, parts, where, config)
        yield partial(_check_image_keys, parts, where, config)
        if config.image_dim is not None:
            yield partial(_check_image_encoder, parts, where, config)
    if len(parts.transformers) > 1:
        yield partial(_check_experts, parts)


@dataclass(frozen=True)
class _Size:
    """A size that a part's configuration states."""

    where: Path
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.where}: `{self.key}` is {self.value}"


def _require(parts: Parts, one: _Size, other: _Size, *, expected: Any = None) -> None:
    """Raise ``CheckpointRefused`` unless ``one`` is as ``other`` says, or ``expected``."""
    wanted = other.value if expected is None else expected
    if one.value == wanted:
        return
    for_which = "" if expected is None else f", for which {expected} is needed"
    raise CheckpointRefused(f"{one}, but `{other.key}` in {other.where} is {other.value}{for_which}; {parts.remedy}")


def _check_text(parts: Parts, where: Path, config: Any) -> None:
    encoder = parts.shared / "text_encoder"
    width = read_text_encoder_config(encoder).d_model
    _require(parts, _Size(where, "text_dim", config.text_dim), _Size(encoder, "d_model", width))


def _check_vae(parts: Parts) -> None:
    """Refuse a VAE whose latents are of another kind than all requests are made for."""
    where = parts.shared / "vae"
    config = empty_vae(where).config
    scales = (2 ** (len(config.dim_mult) - 1), 2 ** sum(config.temperal_downsample))
    if (*scales, config.scale_factor_spatial, config.scale_factor_temporal) != (SPATIAL, TEMPORAL) * 2:
        raise CheckpointRefused(
            f"{where}: a latent is {scales[0]} pixels wide and {scales[1]} frames long, and the configuration says "
            f"{config.scale_factor_spatial} and {config.scale_factor_temporal}; only the VAE of Wan 2.1 is supported, where "
            f"both are {SPATIAL} and {TEMPORAL}"
        )
    for key in ("latents_mean", "latents_std"):
        count = len(config[key])
        if count != config.z_dim:
            raise CheckpointRefused(f"{where}: `{key}` has {count} numbers, but `z_dim` is {config.z_dim}; {parts.remedy}")


def _check_patch(parts: Parts, where: Path, config: Any) -> None:
    if tuple(config.patch_size) != PATCH:
        raise CheckpointRefused(f"{where}: `patch_size` is {list(config.patch_size)}; only {list(PATCH)} is supported")


def _check_latents(parts: Parts, where: Path, config: Any) -> None:
    folder = parts.shared / "vae"
    vae = empty_vae(folder).config
    latents = _Size(folder, "z_dim", vae.z_dim)
    made = config.out_channels or config.in_channels  # as the model's class has it
    _require(parts, _Size(where, "out_channels", made), latents)
    with_image = 2 * vae.z_dim + TEMPORAL  # the latents, those of the image, and a mask of the frames of a latent
    if config.get("vace_layers") is not None:
        _require(parts, _Size(where, "in_channels", config.in_channels), latents)
        control = 2 * vae.z_dim + SPATIAL**2  # what is kept, what is made, and a mask of the pixels of a latent
        _require(parts, _Size(where, "vace_in_channels", config.vace_in_channels), latents, expected=control)
    elif config.in_channels not in (vae.z_dim, with_image):
        raise CheckpointRefused(
            f"{where}: `in_channels` is {config.in_channels}, but `z_dim` in {folder} is {vae.z_dim}, for which a model of text "
            f"has {vae.z_dim} and one of images {with_image}; {parts.remedy}"
        )


def _check_image_keys(parts: Parts, where: Path, config: Any) -> None:
    """Refuse a transformer of which only one half is made for an image encoder."""
    width = config.num_attention_heads * config.attention_head_dim
    expected = None if config.image_dim is None else width
    if config.added_kv_proj_dim != expected:
        needed = "it must be absent without `image_dim`" if expected is None else f"`image_dim` and the width need {expected}"
        raise CheckpointRefused(f"{where}: `added_kv_proj_dim` is {config.added_kv_proj_dim}, but {needed}; {parts.remedy}")


def _check_image_encoder(parts: Parts, where: Path, config: Any) -> None:
    folder = parts.folder / "image_encoder"
    encoder = read_image_encoder_config(folder)
    _require(parts, _Size(where, "image_dim", config.image_dim), _Size(folder, "hidden_size", encoder.hidden_size))
    if config.pos_embed_seq_len is not None:
        # The encoder returns a token for each patch and one more, for each of two frames.
        tokens = 2 * (1 + (encoder.image_size // encoder.patch_size) ** 2)
        positions = _Size(where, "pos_embed_seq_len", config.pos_embed_seq_len)
        _require(parts, positions, _Size(folder, "image_size", encoder.image_size), expected=tokens)
    processor = load_image_processor(parts.folder)
    size = dict(processor.crop_size if processor.do_center_crop else processor.size)
    if {size.get("height"), size.get("width")} != {encoder.image_size}:
        raise CheckpointRefused(
            f"{parts.folder / 'image_processor'}: makes images of {size}, but `image_size` in {folder} is {encoder.image_size}; "
            f"{parts.remedy}"
        )


def _check_experts(parts: Parts) -> None:
    """Refuse two experts of other sizes, which cannot take turns on the same latents."""
    (first, high), *others = parts.transformers.items()
    for name, low in others:
        sizes, expected = _sizes_of(low), _sizes_of(high)
        for key in sorted(expected.keys() | sizes.keys()):
            one = _Size(parts.folder / name, key, sizes.get(key))
            _require(parts, one, _Size(parts.folder / first, key, expected.get(key)))


def _sizes_of(transformer: Any) -> dict[str, Any]:
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_") and key not in _INDIFFERENT}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
