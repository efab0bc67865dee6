"""LoRAs by request: they compute what merged weights would, add up, and leave the model alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file

from deployments.errors import LoraNotUsable, NotFinite
from deployments.lora_folder import LoraFolder
from deployments.settings import Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.lora import with_loras
from deployments.video.engine import WanEngine
from deployments.video.loras import LoraShelf
from deployments.video.memory.offload import WeightOffloader
from deployments.wire import Image, LoraChoice, VideoRequest
from tests.engines.random_models import TRANSFORMER, RandomCheckpoints, make_lora, wan22_models
from tests.engines.video.checkpoints.folders import image_folder
from tests.engines.video.checkpoints.published import make
from tests.engines.video.diffusers_calls import diffusers_arguments
from tests.engines.video.merged_lora import merge
from tests.engines.video.recorder import Recorder, image_mode_of, latents_of, text_mode_of

Loras = dict[str, float]


@pytest.fixture(scope="module")
def folder(wan26: WanEngine, wan22: WanEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three LoRAs for Wan26, a pair for the experts, and bad files."""
    folder = tmp_path_factory.mktemp("loras")
    text, image = (mode.transformers["transformer"] for mode in (text_mode_of(wan26), image_mode_of(wan26)))
    experts = image_mode_of(wan22).transformers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        for name, model in {
            "ink": text,
            "film": text,
            "vace": image,
            "pair_high_noise": experts["transformer"],
            "pair-LOW": experts["transformer_2"],
        }.items():
            lora = {f"transformer.{key}": tensor for key, tensor in make_lora(model).items()}
            save_file(lora, folder / f"{name}.safetensors")
    (folder / "pair-LOW.safetensors").rename(folder / "pair_low_noise.safetensors")
    (folder / "broken.safetensors").write_bytes(b"<html>")
    save_file({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 5120)}, folder / "half.safetensors")
    wide = {"A": torch.ones(2, 5120), "B": torch.ones(5120, 2)}
    save_file({f"transformer.blocks.0.attn1.to_q.lora_{k}.weight": t for k, t in wide.items()}, folder / "wide.safetensors")
    return folder


@pytest.fixture(scope="module")
def engine(random_models: RandomCheckpoints, folder: Path) -> WanEngine:
    models = Wan26Models(
        text=str(random_models.vace),
        text_distilled=random_models.vace_lora,
        image_distilled=random_models.vace_lora,
        loras=str(folder),
    )
    return build_wan26(Wan26Settings(), models)


def asking(request: VideoRequest, loras: Loras) -> VideoRequest:
    return replace(request, loras=tuple(LoraChoice(name, scale) for name, scale in loras.items()))


def with_merged(model: Any, folder: Path, loras: Loras) -> Any:
    """Add LoRAs in diffusers' names to the weights of ``model``."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    total = {name: tensor.clone() for name, tensor in before.items()}
    for name, scale in loras.items():
        model.load_state_dict(before)
        merged = merge(model, folder / f"{name}.safetensors").state_dict()
        for key, tensor in merged.items():
            total[key] += scale * (tensor - before[key])
    model.load_state_dict(total)
    return model


@pytest.mark.parametrize("loras", [{"ink": 1.0}, {"ink": 0.5, "film": -1.5}, {"ink": 1.0, "film": 1.0, "vace": 0.3}])
def test_latents_equal_diffusers_with_merged_weights(
    engine: WanEngine, random_models: RandomCheckpoints, folder: Path, small: VideoRequest, loras: Loras
) -> None:
    pipeline = WanPipeline.from_pretrained(random_models.text, local_files_only=True)
    with_merged(pipeline.transformer, folder, loras)
    theirs = pipeline(**diffusers_arguments(small)).frames
    ours = latents_of(engine, asking(small, loras))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert (ours - latents_of(engine, small)).abs().mean() > 1e-2


def test_names_cannot_be_taken_for_other_parts_of_the_header(random_models: RandomCheckpoints, tmp_path: Path) -> None:
    names = ["a style_1.0", "ink=2; film", "caf\u00e9", "100%", 'a"b', "x,y", "line\nbreak"]
    for name in names:
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    shelf = LoraShelf(LoraFolder(str(tmp_path)), max_loras=9, max_bytes=1, dtype=torch.float32)
    stack = shelf.choose([LoraChoice(name, 0.5) for name in names], experts=1)
    assert stack is not None
    header = stack.describe()
    assert header.startswith("a style_1.0=0.5; ink%3D2%3B film=0.5; caf%C3%A9=0.5; ")
    assert header.isascii()
    assert header.isprintable()
    assert [unquote(part.partition("=")[0]) for part in header.split("; ")] == names


def test_three_loras_alternate_and_the_base_stays_equal_bit_for_bit(
    engine: WanEngine, small: VideoRequest, image: Image
) -> None:
    for request in (small, replace(small, image=image)):
        base = latents_of(engine, request)
        alone = {name: latents_of(engine, asking(request, {name: 1.0})) for name in ("ink", "film", "vace")}
        assert len({tuple(latents.flatten()[:50].tolist()) for latents in alone.values()}) == 3
        for name in ("film", "ink", "vace", "ink"):
            assert torch.equal(latents_of(engine, asking(request, {name: 1.0})), alone[name])
            assert torch.equal(latents_of(engine, request), base)
        assert torch.equal(latents_of(engine, asking(request, {"ink": 0.0})), base)


def test_a_pair_is_found_by_name_and_each_expert_gets_its_own(
    random_models: RandomCheckpoints, wan22: WanEngine, folder: Path, small: VideoRequest, image: Image
) -> None:
    models = wan22_models(random_models).model_copy(update={"loras": str(folder)})
    engine = build_wan22(Wan22Settings(), models)
    request = replace(small, image=image, steps=6)
    ours = latents_of(engine, asking(request, {"pair": 0.7}))
    mode = image_mode_of(build_wan22(Wan22Settings(), wan22_models(random_models)))
    for transformer in mode.transformers.values():
        transformer.dequantize()
    for part, name in (("transformer", "pair_high_noise"), ("transformer_2", "pair_low_noise")):
        with_merged(mode.transformers[part], folder, {name: 0.7})
    theirs = latents_of(replace(wan22, image_mode=mode), request)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert torch.equal(latents_of(engine, request), latents_of(wan22, request))


def test_a_distilled_model_takes_them_too(engine: WanEngine, small: VideoRequest, image: Image) -> None:
    request = replace(small, steps=4, cfg=1.0, acceleration="distilled")
    for plain in (request, replace(request, image=image)):
        distilled = latents_of(engine, plain)
        styled = latents_of(engine, asking(plain, {"ink": 1.0, "film": 0.5}))
        assert (styled - distilled).abs().mean() > 1e-2
        assert torch.equal(latents_of(engine, plain), distilled)
    sink = Recorder()
    finished = engine.generate(asking(request, {"ink": 1.0, "film": 0.5}), sink)
    assert finished.loras == "ink=1; film=0.5"
    assert finished.acceleration == "distilled; steps=4"
    assert engine.generate(small, Recorder()).loras == ""


def test_with_a_step_cache_and_on_two_devices_the_video_is_the_same(
    engine: WanEngine, random_models: RandomCheckpoints, folder: Path, small: VideoRequest
) -> None:
    request = asking(replace(small, steps=4), {"ink": 1.0})
    spread = build_wan26(Wan26Settings(spread="guidance"), Wan26Models(text=str(random_models.text), loras=str(folder)))
    torch.testing.assert_close(latents_of(spread, request), latents_of(engine, request), rtol=1e-3, atol=1e-3)
    cached = replace(request, acceleration="cache", cache_every=2)
    assert (latents_of(engine, cached) - latents_of(engine, replace(cached, loras=()))).abs().mean() > 1e-2


def test_an_offloaded_transformer_takes_them_too(engine: WanEngine, small: VideoRequest) -> None:
    transformers = [mode.transformers["transformer"] for mode in (engine.text_mode, engine.image_mode) if mode is not None]
    offloaded = replace(engine, offloader=WeightOffloader(transformers, torch.device("cpu")))
    request = asking(small, {"ink": 1.0})
    assert torch.equal(latents_of(offloaded, request), latents_of(engine, request))
    assert torch.equal(latents_of(offloaded, small), latents_of(engine, small))


REFUSED: dict[str, tuple[Loras, str]] = {
    "unknown": ({"unknown": 1.0}, "there is no LoRA `unknown`; GET /loras lists"),
    "another case": ({"INK": 1.0}, r"there is no LoRA `INK` \(did you mean `ink`\?\); GET /loras lists"),
    "a path": ({"../ink": 1.0}, r"there is no LoRA `\.\./ink`"),
    "for two experts": ({"pair": 1.0}, "`pair` is for a model of two experts"),
    "too many": (dict.fromkeys("abcde", 1.0), "5 LoRAs were sent; send at most 4"),
    "broken": ({"broken": 1.0}, "does not fit this model: a web page"),
    "half": ({"half": 1.0}, "does not fit this model: the change of .* is incomplete"),
    "another width": ({"wide": 1.0}, "does not fit this model: changes `blocks.0.attn1.to_q` by"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_without_a_path(engine: WanEngine, folder: Path, small: VideoRequest, case: str) -> None:
    loras, message = REFUSED[case]
    sink = Recorder()
    with pytest.raises(LoraNotUsable, match=message) as refused:
        engine.generate(asking(small, loras), sink)
    assert refused.value.field == "loras"
    assert str(folder) not in refused.value.detail
    assert sink.chunks == []


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {"x": "ink.safetensors", "y": "absent.safetensors"}}'])
def test_an_index_beside_a_lora_is_of_no_account(
    engine: WanEngine, folder: Path, small: VideoRequest, tmp_path: Path, index: str
) -> None:
    (tmp_path / "ink.safetensors").write_bytes((folder / "ink.safetensors").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(index.replace("{}", '{"of": "ink.safetensors"}'))
    shelf = LoraShelf(LoraFolder(str(tmp_path)), max_loras=4, max_bytes=2**30, dtype=torch.float32)
    expected = latents_of(engine, asking(small, {"ink": 1.0}))
    assert torch.equal(latents_of(replace(engine, loras=shelf), asking(small, {"ink": 1.0})), expected)


def test_a_lora_with_which_the_model_overflows_is_at_fault(engine: WanEngine, small: VideoRequest, tmp_path: Path) -> None:
    """It is refused as a field, so that three such requests do not cost the replica."""
    lora = make_lora(text_mode_of(engine).transformers["transformer"])
    save_file({f"transformer.{key}": 1e20 * tensor for key, tensor in lora.items()}, tmp_path / "ink.safetensors")
    shelf = LoraShelf(LoraFolder(str(tmp_path)), max_loras=4, max_bytes=2**30, dtype=torch.float32)
    with pytest.raises(LoraNotUsable, match="with ink=1 the model has computed NaN or infinity") as refused:
        replace(engine, loras=shelf).generate(asking(small, {"ink": 1.0}), Recorder())
    assert refused.value.field == "loras"
    assert latents_of(engine, small).isfinite().all()


def test_a_lora_with_which_the_vae_overflows_is_at_fault(
    engine: WanEngine, small: VideoRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bias = engine.vae.decoder.conv_out.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, float("nan")))
    with pytest.raises(LoraNotUsable, match="with ink=1 the model has computed NaN or infinity"):
        engine.generate(asking(small, {"ink": 1.0}), Recorder())
    with pytest.raises(NotFinite, match="the VAE has computed NaN"):
        engine.generate(small, Recorder())


def test_a_model_without_a_folder_refuses(wan26: WanEngine, small: VideoRequest) -> None:
    with pytest.raises(LoraNotUsable, match="has no LoRAs to choose from"):
        wan26.generate(asking(small, {"ink": 1.0}), Recorder())


def test_the_loras_used_last_stay_loaded_within_the_limit(engine: WanEngine, folder: Path) -> None:
    assert engine.text_mode is not None
    transformer = engine.text_mode.transformers["transformer"]
    listed = LoraFolder(str(folder))
    one = listed.entries()["ink"].files["all"]
    other = listed.entries()["film"].files["all"]
    shelf = LoraShelf(listed, max_loras=4, max_bytes=int(1.5 * one.nbytes), dtype=torch.float32)
    first = shelf.load(one, transformer)
    assert shelf.load(one, transformer) is first
    shelf.load(other, transformer)
    assert shelf.loaded_bytes <= 1.5 * one.nbytes
    assert shelf.load(one, transformer) is not first
    with pytest.raises(LoraNotUsable, match="but this model keeps"):
        shelf.choose([LoraChoice("ink"), LoraChoice("film")], experts=1)


def lora_for(model: Any, path: Path) -> Path:
    save_file({f"transformer.{key}": tensor for key, tensor in make_lora(model).items()}, path)
    return path


def named(layer: str, width: int, bias: int) -> dict[str, torch.Tensor]:
    pair = {"lora_A.weight": torch.ones(2, width), "lora_B.weight": torch.ones(width, 2), "diff_b": torch.ones(bias)}
    return {f"transformer.{layer}.{end}": tensor for end, tensor in pair.items()}


@pytest.mark.parametrize("order", [1, -1])
def test_a_lora_is_fitted_to_each_model_that_uses_it_in_any_order(tmp_path: Path, order: int) -> None:
    """All of these models are of one class, and differ in channels, layers or widths."""
    (tmp_path / "files").mkdir()
    kinds = ("text", "36 channels", "36 channels and CLIP")[::order]
    models = {kind: make(kind, tmp_path / str(number)) for number, kind in enumerate(kinds)}
    assert len({type(model) for model in models.values()}) == 1
    lora_for(models["36 channels and CLIP"], tmp_path / "files" / "image.safetensors")
    folder = LoraFolder(str(tmp_path / "files"))
    file = folder.entries()["image"].files["all"]
    shelf = LoraShelf(folder, max_loras=4, max_bytes=2**30, dtype=torch.float32)
    loaded = {kind: shelf.load(file, model) for kind, model in models.items()}
    has_image_layers = {kind: any("add_k_proj" in name for name in lora.changes) for kind, lora in loaded.items()}
    assert has_image_layers == {"text": False, "36 channels": False, "36 channels and CLIP": True}
    assert [shelf.load(file, model) for model in models.values()] == [*loaded.values()]
    assert (shelf.loads, shelf.hits) == (3, 3)
    view = with_loras(models["text"], [(loaded["text"], 1.0)])
    assert shelf.load(file, view) is loaded["text"], "a copy with LoRAs is the same model"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("what", ["width", "bias"])
def test_a_lora_of_another_size_is_refused_after_it_was_used_where_it_fits(tmp_path: Path, what: str, order: int) -> None:
    fitting = {"num_attention_heads": 2} if what == "width" else {"num_attention_heads": 2, "in_channels": 16}
    other = {"num_attention_heads": 4} if what == "width" else {"num_attention_heads": 2, "ffn_dim": 768}
    layer = "blocks.0.attn1.to_q" if what == "width" else "blocks.0.ffn.net.0.proj"
    state = named(layer, 256, 256 if what == "width" else 512)
    if what == "bias":
        state = {name: tensor for name, tensor in state.items() if name.endswith("diff_b")}
    save_file(state, tmp_path / "narrow.safetensors")
    models = [WanTransformer3DModel(**{**TRANSFORMER, **config}) for config in (fitting, other)]
    folder = LoraFolder(str(tmp_path))
    file = folder.entries()["narrow"].files["all"]
    shelf = LoraShelf(folder, max_loras=4, max_bytes=2**30, dtype=torch.float32)
    for model in models[::order]:
        if model is models[0]:
            assert list(shelf.load(file, model).changes) == [layer]
        else:
            with pytest.raises(LoraNotUsable, match=f"`{layer}`"):
                shelf.load(file, model)


def test_a_request_for_text_does_not_spoil_the_lora_of_an_image_model(
    random_models: RandomCheckpoints, small: VideoRequest, image: Image, tmp_path: Path
) -> None:
    """The two models of an engine share a shelf. Either may be asked first."""
    image_model = image_folder(random_models, tmp_path, clip=True)
    loras = tmp_path / "loras"
    loras.mkdir()
    models = Wan26Models(text=str(random_models.text), image=str(image_model), loras=str(loras))
    requests = [asking(request, {"image": 1.0}) for request in (small, replace(small, image=image))]
    results = []
    for order in (1, -1):
        engine = build_wan26(Wan26Settings(), models)
        if order == 1:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(2)
                lora_for(image_mode_of(engine).transformers["transformer"], loras / "image.safetensors")
        results.append([latents_of(engine, request) for request in requests[::order]][::order])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
