"""vit/pretrained: every family's numbers are its library's own, and what cannot be exact is refused.

Tiny models with every parameter random, biases, gains and tokens too: zeros and ones hide mistakes.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers as hf
from conftest import randomised, tiny_config
from huggingface_hub import CommitOperationAdd
from PIL import Image
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vit import Card, CheckpointError, Recorder, ViT, load, save, trace
from vit.checkpoint import MAX_BYTES
from vit.cost import cost
from vit.hub import fetch, push
from vit.pictures import preprocess
from vit.pretrained import from_timm, from_torchvision, from_transformers
from vit.trace import attention_at

NATIVE, OTHER = (32, 48), (64, 32)  # (height, width): not square, and resampled to another shape
pytestmark = pytest.mark.filterwarnings("ignore:.*loaded without")


def scrambled(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15)
    return module.eval().requires_grad_(False)


def same(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def seen_by(model: ViT, images: Tensor) -> tuple[Tensor, Recorder]:
    recorder = Recorder({"attn", "norm"})
    return model(images, recorder), recorder


# --- timm ---------------------------------------------------------------------------------------------

TIMM = {
    "ViT, AugReg": ("vit_base_patch16_224", {}),
    "ViT without class token": ("vit_medium_patch16_gap_256", {}),
    "ViT with registers": ("vit_medium_patch16_reg4_gap_256", dict(class_token=True, global_pool="token")),
    "ViT with mean pool": ("vit_medium_patch16_reg4_gap_256", {}),
    "registers with positions": ("vit_base_patch16_224", dict(reg_tokens=3)),
    "query and key norm": ("vit_base_patch16_224", dict(qk_norm=True)),
    "DeiT": ("deit_small_patch16_224", {}),
    "DeiT, distilled": ("deit_base_distilled_patch16_224", {}),
    "DeiT, distilled, no head": ("deit_base_distilled_patch16_224", dict(num_classes=0)),
    "DeiT-III": ("deit3_small_patch16_224", {}),
    "DINO": ("vit_small_patch16_224", dict(num_classes=0)),
    "MAE": ("vit_base_patch16_224", dict(num_classes=0, global_pool="avg")),
    "DINOv2": ("vit_small_patch14_dinov2", dict(patch_size=16)),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", dict(patch_size=16)),
    "DINOv2 giant, SwiGLU": ("vit_giant_patch14_dinov2", dict(patch_size=16)),
    "CLIP": ("vit_base_patch16_clip_224", {}),
    "CLIP, quick GELU": ("vit_base_patch16_clip_quickgelu_224", {}),
    "SigLIP with mean pool": ("vit_base_patch16_siglip_gap_224", {}),
    "I-JEPA": ("vit_huge_patch14_gap_224", dict(patch_size=16, num_classes=0)),
}


def tiny_timm(name: str, **changes) -> nn.Module:
    shape = dict(img_size=NATIVE, embed_dim=48, depth=2, num_heads=3, num_classes=5, dynamic_img_size=True)
    return scrambled(timm.create_model(name, pretrained=False, **shape | changes))


def timm_attention(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Each layer's attention, with the fused kernel off."""
    attention: list[Tensor] = []
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, out: attention.append(out))
    module(images)
    return attention


@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "resampled"])
@pytest.mark.parametrize("name, changes", TIMM.values(), ids=TIMM)
def test_timm_family(name: str, changes: dict, size: tuple[int, int]) -> None:
    theirs = tiny_timm(name, **changes)
    ours, images = from_timm(theirs), torch.randn(2, 3, *size)
    same(ours(images), theirs(images))
    logits, recorder = seen_by(ours, images)
    same(logits, theirs(images))
    same(recorder.stack("attn"), torch.stack(timm_attention(theirs, images)), atol=1e-6)


def test_timm_state_dict_needs_only_the_name_of_its_architecture() -> None:
    theirs = scrambled(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=9))
    ours = from_timm(theirs.state_dict(), {"architecture": "vit_tiny_patch16_224", "num_classes": 9})
    images = torch.randn(1, 3, 224, 224)
    same(ours(images), theirs(images))


def test_ours_has_weights_of_its_own() -> None:
    theirs = tiny_timm("vit_base_patch16_224")
    ours, images = from_timm(theirs), torch.randn(1, 3, *NATIVE)
    before = ours(images)
    for parameter in theirs.parameters():
        parameter.zero_()
    same(ours(images), before, atol=0)


# --- torchvision --------------------------------------------------------------------------------------


def tiny_torchvision(**changes) -> nn.Module:
    shape = dict(image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96)
    return scrambled(torchvision.models.VisionTransformer(**shape | dict(num_classes=5) | changes))


def torchvision_attention(module: nn.Module, images: Tensor) -> list[Tensor]:
    """torchvision never asks for the weights: ask its attention again with the same input."""
    inputs: list[Tensor] = []
    for block in module.encoder.layers:
        block.ln_1.register_forward_hook(lambda _, args, out: inputs.append(out))
    module(images)
    layers = zip(module.encoder.layers, inputs)
    return [layer.self_attention(x, x, x, average_attn_weights=False)[1] for layer, x in layers]


@pytest.mark.parametrize("size", [32, 56], ids=["native", "resampled"])
def test_torchvision(size: int) -> None:
    ours = from_torchvision(theirs := tiny_torchvision())
    if size != 32:  # torchvision has one size: the same weights, with positions resampled by timm
        weights = theirs.state_dict()
        weights["encoder.pos_embedding"] = resample_abs_pos_embed(weights["encoder.pos_embedding"], (7, 7))
        theirs = tiny_torchvision(image_size=size)
        theirs.load_state_dict(weights)
    images = torch.randn(2, 3, size, size)
    same(ours(images), theirs(images))
    _, recorder = seen_by(ours, images)
    same(recorder.stack("attn"), torch.stack(torchvision_attention(theirs, images)), atol=1e-6)


def test_torchvision_state_dict_with_the_names_of_today_and_of_old() -> None:
    theirs, images = tiny_torchvision(), torch.randn(1, 3, 32, 32)
    shape = dict(image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96)
    old = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): x
        for name, x in theirs.state_dict().items()
    }
    for state in (theirs.state_dict(), old):
        same(from_torchvision(state, shape | {"num_classes": 5})(images), theirs(images))


# --- transformers -------------------------------------------------------------------------------------

SHAPE = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96)
RECTANGLE, SQUARE = dict(image_size=NATIVE, patch_size=16), dict(image_size=32, patch_size=16)
K5 = dict(num_labels=5)
# (model class, config, what its forward also takes, which output is compared)
TRANSFORMERS = {
    "ViT": (hf.ViTForImageClassification, hf.ViTConfig(**SHAPE, **RECTANGLE, **K5), {}, "logits"),
    "ViT, no bias": (hf.ViTModel, hf.ViTConfig(**SHAPE, **RECTANGLE, qkv_bias=False), {}, "tokens"),
    "DINO": (hf.ViTModel, hf.ViTConfig(**SHAPE, **RECTANGLE), {}, "tokens"),
    "DeiT": (hf.DeiTForImageClassification, hf.DeiTConfig(**SHAPE, **RECTANGLE, **K5), {}, "logits"),
    "DeiT with its teacher's head": (
        hf.DeiTForImageClassificationWithTeacher,
        hf.DeiTConfig(**SHAPE, **RECTANGLE, **K5),
        {},
        "logits",
    ),
    "DeiT, no head": (hf.DeiTModel, hf.DeiTConfig(**SHAPE, **RECTANGLE), {}, "tokens"),
    "MAE": (hf.ViTMAEModel, hf.ViTMAEConfig(**SHAPE, **RECTANGLE, mask_ratio=0.0), {"noise"}, "tokens"),
    "MSN": (hf.ViTMSNForImageClassification, hf.ViTMSNConfig(**SHAPE, **RECTANGLE, **K5), {}, "logits"),
    "DINOv2": (hf.Dinov2Model, hf.Dinov2Config(**SHAPE, **SQUARE), {}, "tokens"),
    "DINOv2, SwiGLU": (hf.Dinov2Model, hf.Dinov2Config(**SHAPE, **SQUARE, use_swiglu_ffn=True), {}, "tokens"),
    "DINOv2 with registers": (
        hf.Dinov2WithRegistersModel,
        hf.Dinov2WithRegistersConfig(**SHAPE, **SQUARE),
        {},
        "tokens",
    ),
    "CLIP": (hf.CLIPVisionModel, hf.CLIPVisionConfig(**SHAPE, **SQUARE), {}, "pooled"),
    "SigLIP": (hf.SiglipVisionModel, hf.SiglipVisionConfig(**SHAPE, **SQUARE), {}, "tokens"),
    "SigLIP, classifier": (
        hf.SiglipForImageClassification,
        hf.SiglipConfig(vision_config=SHAPE | SQUARE, text_config=SHAPE, **K5),
        {},
        "logits",
    ),
    "I-JEPA": (hf.IJepaModel, hf.IJepaConfig(**SHAPE, **RECTANGLE), {}, "tokens"),
    "I-JEPA, classifier": (
        hf.IJepaForImageClassification,
        hf.IJepaConfig(**SHAPE, **RECTANGLE, **K5),
        {},
        "logits",
    ),
}


def tiny_transformers(case: str) -> nn.Module:
    kind, config, *_ = TRANSFORMERS[case]
    model = kind(config)
    model.set_attn_implementation("eager")
    return scrambled(model)


def run_transformers(case: str, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(the compared output, attention (L, B, H, T, T)); positions resampled by timm, as everywhere here."""
    *_, options, output = TRANSFORMERS[case]
    height, width = images.shape[-2:]
    grid = (height // 16, width // 16)
    extra: dict = {"noise": torch.arange(grid[0] * grid[1]).expand(2, -1)} if options else {}
    embeddings = next(m for m in model.modules() if hasattr(m, "interpolate_pos_encoding"))
    flat = getattr(embeddings, "position_embedding", None)
    table = embeddings.position_embeddings if flat is None else flat.weight[None]
    size = getattr(model.config, "vision_config", model.config).image_size
    old = (2, 2) if size == 32 else (2, 3)
    prefix = table.shape[1] - old[0] * old[1]
    resampled = resample_abs_pos_embed(table, grid, old, num_prefix_tokens=prefix)
    embeddings.interpolate_pos_encoding = lambda *_: resampled
    if not isinstance(model, hf.Dinov2Model | hf.Dinov2WithRegistersModel):
        extra["interpolate_pos_encoding"] = True
    out = model(images, output_attentions=True, **extra)
    pick = {"logits": "logits", "tokens": "last_hidden_state", "pooled": "pooler_output"}[output]
    return out[pick], torch.stack(out.attentions)


@pytest.mark.parametrize("size", ["native", "resampled"])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers_family(case: str, size: str) -> None:
    theirs = tiny_transformers(case)
    ours = from_transformers(theirs)
    images = torch.randn(2, 3, *(OTHER if size == "resampled" else ours.config.image_size))
    wanted, attention = run_transformers(case, theirs, images)
    logits, recorder = seen_by(ours, images)
    same(recorder.stack("norm")[0] if TRANSFORMERS[case][3] == "tokens" else logits, wanted)
    same(recorder.stack("attn"), attention, atol=1e-6)
    same(ours(images), logits)


def test_registers_are_resampled_as_transformers_does_too() -> None:
    """DINOv2 with registers is the one family whose library resamples with anti-aliasing, as timm does."""
    theirs = tiny_transformers("DINOv2 with registers")
    images = torch.randn(2, 3, *OTHER)
    same(seen_by(from_transformers(theirs), images)[1].stack("norm")[0], theirs(images).last_hidden_state)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_transformers_files_carry_older_names_and_load_all_the_same(case: str, tmp_path: Path) -> None:
    theirs = tiny_transformers(case)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    live = from_transformers(theirs)
    images = torch.randn(1, 3, *live.config.image_size)
    same(from_transformers(state, config)(images), live(images), atol=1e-6)


def test_the_vision_tower_of_a_whole_clip() -> None:
    text = SHAPE | dict(vocab_size=9, max_position_embeddings=5, eos_token_id=8)
    whole = scrambled(hf.CLIPModel(hf.CLIPConfig(vision_config=SHAPE | SQUARE, text_config=text)))
    images = torch.randn(2, 3, 32, 32)
    same(from_transformers(whole)(images), whole.vision_model(images).pooler_output)


def test_mae_for_pretraining_gives_its_encoder() -> None:
    config = hf.ViTMAEConfig(**SHAPE, **SQUARE, mask_ratio=0.0, decoder_hidden_size=16)
    whole = scrambled(hf.ViTMAEForPreTraining(config))
    images, noise = torch.randn(2, 3, 32, 32), torch.arange(4.0).expand(2, -1)
    _, recorder = seen_by(from_transformers(whole), images)
    same(recorder.stack("norm")[0], whole.vit(images, noise=noise).last_hidden_state)


# --- what is left behind, what is refused ----------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "load_it, said",
    [
        (
            lambda: from_transformers(
                hf.Dinov2ForImageClassification(hf.Dinov2Config(**SHAPE, **SQUARE, **K5))
            ),
            "class token and mean patch",
        ),
    ],
)
def test_a_head_that_is_not_plain_is_left_behind_and_said_so(load_it, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        assert load_it().config.num_classes == 0


def test_the_encoder_of_siglip_is_exact_below_its_pooling() -> None:
    theirs = tiny_timm("vit_base_patch16_siglip_224")
    images = torch.randn(2, 3, *NATIVE)
    _, recorder = seen_by(from_timm(theirs), images)
    same(recorder.stack("norm")[0], theirs.forward_features(images))


REFUSED_TIMM = {
    "swin_tiny_patch4_window7_224": "windows",
    "vit_relpos_small_patch16_224": "with a small network, not from a table",
    "convit_tiny": "gated positional attention",
    "naflexvit_base_patch16_gap": "pictures of many shapes",
    "vit_tiny_r_s16_p8_224": "convolutional stem",
    "samvit_base_patch16": "windows",
    "cait_xxs24_224": "talking heads",
    "xcit_nano_12_p16_224": "between channels",
    "pvt_v2_b0": "merges patches",
    "resnet18": "convolutional network",
    "sequencer2d_s": "other means than attention",
    "deepseek_vit_412m": "none in those of its MLP",
    "qwen3_vit_88m": "from corner to corner",
    "csatv2": "not a plain ViT",
    "vit_base_patch16_xp_224": "attention and MLP run side by side",
    "vit_base_patch16_rpn_224": "each branch is normalised behind it",
    "beit3_base_patch16_224": "inside its attention",
    "vit_large_patch16_sapiens2": "grouped queries",
}


@pytest.mark.parametrize("name, why", REFUSED_TIMM.items())
def test_timm_models_that_are_no_plain_vit_are_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=why) as caught:
        from_timm({}, {"architecture": name})
    assert "\n" not in str(caught.value)


REFUSED_PARTS = {
    "blocks of another order": dict(block_fn=timm.models.vision_transformer.ParallelScalingBlock),
    "another attention": dict(attn_layer="diff"),
    "pools by 'max'": dict(global_pool="max"),
    "normalises in another way": dict(norm_layer="rmsnormfp32"),
    "ReLU": dict(act_layer="relu"),
    "not square": dict(patch_size=(16, 8)),
    "pools its class token": dict(global_pool="avg", pool_include_prefix=True),
    "another MLP": dict(mlp_layer=timm.layers.GluMlp),
}


@pytest.mark.parametrize("why, changes", REFUSED_PARTS.items(), ids=REFUSED_PARTS)
def test_a_timm_vit_with_an_unusual_part_is_refused_by_that_part(why: str, changes: dict) -> None:
    with pytest.raises(CheckpointError, match=why):
        from_timm(tiny_timm("vit_base_patch16_224", **changes))


def test_an_activation_that_learns_is_refused_before_its_weights_are_there() -> None:
    with pytest.raises(CheckpointError, match="PReLU"):
        from_timm({}, {"architecture": "vit_base_patch16_224", "model_args": {"act_layer": "prelu"}})


@pytest.mark.parametrize(
    "config, why",
    [
        (hf.SwinConfig(), "windows"),
        (hf.HieraConfig(), "merges patches"),
        (hf.TimesformerConfig(), "in turns"),
        (hf.BertConfig(), "not known to be a plain ViT"),
        (hf.ViTConfig(hidden_act="relu"), "activation"),
        (hf.ViTConfig(patch_size=(16, 8)), "not square"),
    ],
)
def test_transformers_models_that_are_no_plain_vit_are_refused(config, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        from_transformers({}, config)


def test_torchvision_models_that_are_no_plain_vit_are_refused() -> None:
    with pytest.raises(CheckpointError, match="windows"):
        from_torchvision(torchvision.models.swin_t())
    with pytest.raises(CheckpointError, match="more than one layer"):
        from_torchvision(tiny_torchvision(representation_size=8))
    stem = [torchvision.models.vision_transformer.ConvStemConfig(8, 3, 8)]
    with pytest.raises(CheckpointError, match="convolutional stem"):
        from_torchvision(tiny_torchvision(conv_stem_configs=stem))


def test_a_tensor_too_many_or_too_few_is_refused() -> None:
    theirs = tiny_timm("vit_base_patch16_224")
    state, config = theirs.state_dict(), {"architecture": "vit_base_patch16_224"}
    config["model_args"] = dict(img_size=NATIVE, embed_dim=48, depth=2, num_heads=3, num_classes=5)
    with pytest.raises(CheckpointError, match=r"blocks.0.attn.gate"):
        from_timm(state | {"blocks.0.attn.gate": torch.zeros(3)}, config)
    del state["norm.weight"]
    with pytest.raises(CheckpointError, match=r"norm.weight"):
        from_timm(state, config)


@pytest.mark.parametrize("read", [from_torchvision, from_transformers])
def test_a_state_dict_without_its_config_is_refused(read) -> None:
    with pytest.raises(CheckpointError, match="give its config"):
        read({})


@pytest.mark.parametrize(
    "name, x",
    [
        ("vit.layers.0.attention.q_proj.weight", torch.zeros(48, 40)),
        ("vit.embeddings.distillation_token", torch.tensor(1.0)),
        ("vit.layernorm.weight", torch.zeros(48, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)),
    ],
)
def test_tensors_that_do_not_go_together_are_refused(name: str, x: Tensor) -> None:
    theirs = tiny_transformers("ViT")
    with pytest.raises(CheckpointError, match="describes no ViT that can be built"):
        from_transformers(theirs.state_dict() | {name: x}, theirs.config)


# --- folders and the Hub --------------------------------------------------------------------------------


def timm_folder(folder: Path, **changes) -> nn.Module:
    theirs = tiny_timm("vit_base_patch16_224", **changes)
    timm.models.save_for_hf(theirs, folder, safe_serialization=True)
    return theirs


def transformers_folder(folder: Path, processor=None, **save_options) -> nn.Module:
    theirs = tiny_transformers("ViT")
    theirs.config.id2label = {0: "cat", 1: "dog", 2: "LABEL_2", 3: "owl", 4: "fox"}
    theirs.save_pretrained(folder, **save_options)
    if processor is not None:
        processor.save_pretrained(folder)
    return theirs


def test_a_folder_of_timm(tmp_path: Path) -> None:
    theirs = timm_folder(tmp_path)
    model, card = load(str(tmp_path))
    images = torch.randn(1, 3, *NATIVE)
    same(model(images), theirs(images))
    same(load(tmp_path / "model.safetensors")[0](images), theirs(images))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    about = theirs.pretrained_cfg
    assert (card.mean, card.std) == (tuple(about["mean"]), tuple(about["std"]))
    assert (card.crop_pct, card.interpolation) == (about["crop_pct"], about["interpolation"])
    assert card.class_names == tuple(f"class {i}" for i in range(5))


def test_imagenet_names_come_from_the_package_and_only_for_a_model_that_says_imagenet(tmp_path: Path) -> None:
    timm_folder(tmp_path, num_classes=1000)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretrained_cfg"]["tag"].endswith("in1k")
    names = load(str(tmp_path))[1].class_names
    assert names[0].startswith("tench") and len(names) == 1000
    config["pretrained_cfg"]["tag"] = "my_own_thousand"
    (tmp_path / "config.json").write_text(json.dumps(config))
    own = tmp_path.rename(tmp_path.with_name("after-in1k"))  # a folder's name is no word of timm's
    assert load(str(own))[1].class_names[0] == "class 0"


@pytest.mark.parametrize(
    "name, outputs, classes",
    [
        ("vit_base_patch16_clip_224.openai", 512, 0),
        ("vit_base_patch16_clip_224.openai", 5, 5),  # somebody's own, trained on the tower
        ("vit_base_patch16_clip_224.openai_ft_in1k", 512, 512),
        ("vit_pe_core_tiny_patch16_384.fb", 512, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:Its projection")
def test_the_projection_of_a_tower_of_timms_is_not_taken_for_classes(
    tmp_path: Path, name: str, outputs: int, classes: int
) -> None:
    theirs = tiny_timm(name, num_classes=outputs)
    folder = tmp_path / "learned-in1k"  # a folder's name says nothing about what is in it
    timm.models.save_for_hf(theirs, folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["tag"] == name.partition(".")[2]
    model, card = load(str(folder))
    assert (model.config.num_classes, len(card.class_names)) == (classes, classes)
    assert ("projection" in card.source) == (not classes)
    images = torch.randn(1, 3, *NATIVE)
    told = theirs(images) if classes else theirs.forward_head(theirs.forward_features(images), True)
    for ours in (model, from_timm(theirs), from_timm(theirs.state_dict(), config)):
        same(ours(images), told)


def test_timm_labels_of_the_config_come_first(tmp_path: Path) -> None:
    timm_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "label_names": ["n1", "n2", "n3", "n4", "n5"],
        "label_descriptions": {"n1": "cat", "n5": "owl"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(str(tmp_path))[1].class_names == ("cat", "n2", "n3", "n4", "owl")


def test_pixels_that_timms_config_does_not_tell_are_those_of_its_architecture(tmp_path: Path) -> None:
    timm_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config = {"architecture": "deit_small_patch16_224", "num_classes": 5, "model_args": config["model_args"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    card, usual = load(str(tmp_path))[1], timm.get_pretrained_cfg("deit_small_patch16_224")
    assert (card.mean, card.std, card.crop_pct) == (usual.mean, usual.std, usual.crop_pct)
    assert "as for timm's deit_small_patch16_224" in card.note


def test_a_state_dict_with_other_classes_keeps_the_picture_size_of_its_architecture() -> None:
    theirs = timm.create_model("vit_small_patch14_dinov2.lvd142m", num_classes=5, depth=1)
    config = {"architecture": "vit_small_patch14_dinov2.lvd142m", "model_args": {"depth": 1}}
    ours = from_timm(theirs.state_dict(), config | {"num_classes": 5})
    assert ours.config.image_size == (518, 518) and ours.config.num_classes == 5


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    crop = dict(do_center_crop=True, crop_size={"height": 224, "width": 224}, size={"shortest_edge": 256})
    processor = hf.BitImageProcessor(
        **crop, resample=2, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    theirs = transformers_folder(tmp_path, processor)
    model, card = load(str(tmp_path))
    images = torch.randn(1, 3, *NATIVE)
    same(model(images), theirs(images).logits)
    assert card.class_names == ("cat", "dog", "class 2", "owl", "fox")
    assert card.image_size == (224, 224) and model.config.image_size == NATIVE
    assert (card.mean, card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (card.crop_pct, card.interpolation) == (0.875, "bilinear")


def as_theirs(processor: Any, picture: Image.Image) -> torch.Tensor:
    found = processor(picture, return_tensors="pt", input_data_format="channels_last")
    return found["pixel_values"][0].float()


@pytest.mark.parametrize(
    "said",
    [
        dict(do_normalize=False),
        dict(do_normalize=False, do_rescale=False),
        dict(rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3),
        dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_pixels_are_those_of_the_processor(tmp_path: Path, said: dict, nested: bool) -> None:
    """CLIP's processor keeps the one of pictures as a part of its own file."""
    height, width = NATIVE
    processor = hf.ViTImageProcessor(size={"height": height, "width": width}, resample=3, **said)
    transformers_folder(tmp_path, processor)
    if nested:
        file = tmp_path / "preprocessor_config.json"
        (tmp_path / "processor_config.json").write_text(
            json.dumps({"image_processor": json.loads(file.read_text())})
        )
        file.unlink()
    card = load(str(tmp_path))[1]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    torch.testing.assert_close(preprocess(picture, card), as_theirs(processor, picture), rtol=1e-4, atol=1e-4)
    assert card.name == tmp_path.name and card.note == card.source == ""


def test_a_folder_that_does_not_say_how_pixels_are_prepared_says_so_in_its_card(tmp_path: Path) -> None:
    transformers_folder(tmp_path)
    card = load(str(tmp_path))[1]
    assert card.image_size == NATIVE and "do not say how pixels are prepared" in card.source


def test_weights_in_several_files(tmp_path: Path) -> None:
    theirs = transformers_folder(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    images = torch.randn(1, 3, *NATIVE)
    same(load(str(tmp_path))[0](images), theirs(images).logits)
    max(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="does not list exactly"):
        load(str(tmp_path))


def test_what_was_left_behind_stands_in_the_card(tmp_path: Path) -> None:
    config = hf.Dinov2Config(**SHAPE, **SQUARE, **K5)
    hf.Dinov2ForImageClassification(config).save_pretrained(tmp_path)
    model, card = load(str(tmp_path))
    assert model.config.num_classes == 0 and card.class_names == ()
    assert "class token and mean patch" in card.source


class Hub:
    """The Hugging Face Hub as a folder: what its client would say and do, and what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path):
        self.folder, self.asked = folder, []
        self.pull_requests: list[SimpleNamespace] = []
        self.caches: set[Path | None] = set()  # where what was asked for was to be kept
        self.error: Exception | None = None
        self.monkeypatch = monkeypatch
        api = "huggingface_hub.HfApi."
        monkeypatch.setattr(api + "model_info", lambda _, repo, **options: self.model_info(**options))
        monkeypatch.setattr(
            api + "get_repo_discussions", lambda _, repo, **options: self.discussions(**options)
        )
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def model_info(self, revision: str | None = None, **_) -> SimpleNamespace:
        if self.error:
            raise self.error
        files = [
            f
            for f in self.folder.iterdir()
            if revision is not None or not self.pull_requests or f.suffix != ".safetensors"
        ]
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=f.name, size=f.stat().st_size) for f in files]
        )

    def discussions(self, author: str, discussion_type: str) -> list[SimpleNamespace]:
        assert (author, discussion_type) == ("SFconvertbot", "pull_request")
        return self.pull_requests

    def snapshot_download(
        self,
        repo: str,
        *,
        cache_dir: Path | None,
        token: str | bool | None,
        revision: str | None,
        allow_patterns: list[str],
    ) -> str:
        self.caches.add(cache_dir)
        self.asked += [(revision, name) for name in allow_patterns]
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return Hub(monkeypatch, tmp_path)


@pytest.mark.parametrize("name", ["timm/tiny.test", "hf-hub:timm/tiny.test", "timm/tiny.test@v2"])
def test_a_hub_id_downloads_json_and_safetensors_only(hub: Hub, name: str) -> None:
    theirs = timm_folder(hub.folder)
    torch.save(theirs.state_dict(), hub.folder / "pytorch_model.bin")
    model, card = load(name)
    same(model(torch.ones(1, 3, *NATIVE)), theirs(torch.ones(1, 3, *NATIVE)))
    assert card.name == name.removeprefix("hf-hub:")
    assert {revision for revision, _ in hub.asked} == {"v2" if "@" in name else None}
    assert {Path(file).suffix for _, file in hub.asked} == {".json", ".safetensors"}
    fetch(card.name, MAX_BYTES, hub.folder / "mine")
    assert hub.caches == {None, hub.folder / "mine"}, "the Hub's own, unless told otherwise"


def test_only_pickled_weights_are_taken_from_the_hubs_own_safe_copy(hub: Hub) -> None:
    transformers_folder(hub.folder)
    (hub.folder / "pytorch_model.bin").write_bytes(b"")
    hub.pull_requests = [SimpleNamespace(status="open", git_reference="refs/pr/3")]
    assert load("facebook/tiny")[0].config.num_classes == 5
    assert {revision for revision, _ in hub.asked} == {"refs/pr/3"}


def test_only_pickled_weights_are_refused(hub: Hub) -> None:
    transformers_folder(hub.folder)
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="may run code"):
        load("facebook/tiny")
    assert not hub.asked


def test_a_config_that_fills_the_disk_does_not_travel(hub: Hub, monkeypatch) -> None:
    timm_folder(hub.folder)
    monkeypatch.setattr("vit.hub.MAX_JSON", 100)
    with pytest.raises(CheckpointError, match=r"has a config.json of .* MiB: that describes no model"):
        load("timm/tiny")
    assert not hub.asked


def test_a_model_that_will_be_refused_does_not_travel(hub: Hub) -> None:
    (hub.folder / "config.json").write_text('{"model_type": "swin"}')
    (hub.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="windows"):
        load("microsoft/swin-tiny")
    assert not any(file.endswith(".safetensors") for _, file in hub.asked)


def test_a_model_that_is_too_large_does_not_travel(hub: Hub) -> None:
    timm_folder(hub.folder)
    with pytest.raises(CheckpointError, match="choose a smaller model"):
        load("timm/tiny", max_bytes=100_000)
    assert not hub.asked and MAX_BYTES == 8 * 2**30


@pytest.mark.parametrize("ours", [False, True])
def test_a_folder_that_is_too_large_is_not_read(tmp_path: Path, ours: bool) -> None:
    theirs = timm_folder(tmp_path)
    if ours:
        save(tmp_path, from_timm(theirs), Card("tiny"))
    in_files = (tmp_path / "model.safetensors").stat().st_size
    with pytest.raises(CheckpointError, match="choose a smaller model"):
        load(str(tmp_path), max_bytes=int(1.5 * in_files) if ours else 100_000)  # fp16 doubles


def hub_error(name: str) -> Exception:
    """An error of huggingface_hub without the HTTP response that its constructor wants."""
    kind = getattr(huggingface_hub.errors, name)
    return kind.__new__(kind)


@pytest.mark.parametrize(
    "error, said",
    [
        (hub_error("RepositoryNotFoundError"), "neither a folder here nor a model"),
        (hub_error("RevisionNotFoundError"), "neither a folder here nor a model"),
        (hub_error("GatedRepoError"), "accept its terms at https://huggingface.co/timm/tiny"),
        (hub_error("OfflineModeIsEnabled"), "cannot be reached"),
        (ConnectionError("no route"), "cannot be reached"),
        (TimeoutError(), "cannot be reached"),
    ],
)
def test_what_the_hub_says_is_one_sentence(hub: Hub, error: Exception, said: str) -> None:
    hub.error = error
    with pytest.raises(CheckpointError, match=said) as caught:
        load("timm/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error, said",
    [
        (hub_error("GatedRepoError"), "accept its terms"),
        (ConnectionError("reset"), "run it again"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_a_download_that_breaks_off_is_one_sentence(hub: Hub, error: Exception, said: str) -> None:
    timm_folder(hub.folder)

    def break_off(*_, **__) -> str:
        raise error

    hub.monkeypatch.setattr(huggingface_hub, "snapshot_download", break_off)
    with pytest.raises(CheckpointError, match=said):
        load("timm/tiny")


def test_what_was_loaded_before_loads_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repo = tmp_path / "models--timm--tiny"
    theirs = timm_folder(repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    same(load("timm/tiny")[0](torch.ones(1, 3, *NATIVE)), theirs(torch.ones(1, 3, *NATIVE)))
    with pytest.raises(CheckpointError, match="not loaded before"):
        load("timm/another")
    (repo / "refs" / "refs" / "pr").mkdir(parents=True)  # the Hub's safe copy of a repository of pickles
    (repo / "refs" / "main").rename(repo / "refs" / "refs" / "pr" / "7")
    same(load("timm/tiny")[0](torch.ones(1, 3, *NATIVE)), theirs(torch.ones(1, 3, *NATIVE)))


@pytest.mark.parametrize(
    "files, words",
    [
        (["open_clip_config.json", "open_clip_model.safetensors"], "is in OpenCLIP's layout"),
        (["adapter_config.json", "adapter_model.safetensors"], "holds a PEFT adapter and no model"),
    ],
)
def test_a_repository_that_is_something_else(hub: Hub, files: list[str], words: str) -> None:
    for name in files:
        (hub.folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"^them/it {words}"):
        load("them/it")


@pytest.mark.parametrize(
    "name",
    ["no-such-model", "a/b/c", "../..", "owner/na me", "", "timm/", "~nobody/x", "x" * 9999, "a\0b", "/"],
)
def test_a_name_that_is_nothing_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        load(name)


def test_our_own_checkpoint_goes_to_the_hub_and_comes_back(hub: Hub, tmp_path_factory) -> None:
    source = tmp_path_factory.mktemp("checkpoint")
    model = randomised(ViT(tiny_config()))
    card = Card("mine", class_names=tuple("abcdefg"), image_size=(24, 20), accuracy=0.5)
    save(source, model, card, dtype=torch.float32)
    (source / "README.md").write_text("---\nlibrary_name: vit-explorer\n---\n")
    (source / "last.pt").write_bytes(b"optimiser")

    def create_commit(_, repo_id: str, parts: list[CommitOperationAdd], *, commit_message: str) -> None:
        for part in parts:
            shutil.copy(part.path_or_fileobj, hub.folder / part.path_in_repo)

    hub.monkeypatch.setattr(
        "huggingface_hub.HfApi.create_repo", lambda *_, **__: "https://huggingface.co/me/mine"
    )
    hub.monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    assert push(source, "me/mine") == "https://huggingface.co/me/mine"
    assert {path.name for path in hub.folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    back, back_card = load("me/mine")
    same(back(torch.ones(1, 3, 12, 20)), model(torch.ones(1, 3, 12, 20)))
    assert back_card == card and back.config == model.config
    first, later = (source / "config.json").read_text(), replace(card, name="later")
    save(source, model, later)
    (source / "config.json").rename(source / "config.next.json")
    (source / "config.json").write_text(first)  # as if that save had been cut short right after its weights
    push(source, "me/mine")
    assert load("me/mine")[1] == later


# --- other sizes: what it costs, told before -----------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(distillation=True),
        dict(activation="swiglu"),
        dict(num_classes=0),
        dict(pool="attention", pool_mlp_ratio=2.0),
        dict(pool="attention", pool_mlp=False),
        dict(pool="attention", pool_prefix=False, num_registers=2),
    ],
)
def test_the_cost_that_is_told_is_the_cost_that_is_paid(changes: dict) -> None:
    model, image = randomised(ViT(tiny_config(**changes))), torch.randn(3, 16, 24)
    told = cost(model.config, (16, 24))
    with FlopCounterMode(display=False) as paid:
        seen = trace(model, image)
    assert told.flops == paid.get_total_flops()
    assert told.tokens == seen.tokens.shape[1]
    assert told.attn_bytes == seen.attn.nbytes
    assert told.layer_bytes == attention_at(model, seen.tokens[0], 0).nbytes


# B/8's twelve heads, narrow: the (T, T) matrices, which are what is large, are those of B/8
LARGE = """
import resource, torch
from vit import ViT, ViTConfig, trace
from vit.trace import attention_at
config = ViTConfig.variant("B/8", image_size=224, depth=1, embed_dim=96, num_classes=0)
model = ViT(config).eval().requires_grad_(False)
seen = trace(model, torch.randn(3, 480, 640), keep=())
attn = attention_at(model, seen.tokens[0], 0)
assert attn.shape == (12, 4801, 4801) and seen.attn.numel() == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_4801_tokens_stay_within_4_gigabytes() -> None:
    run = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    weights, tokens, mlp = 0.33, 13 * 4801 * 768 * 4 / 2**30, 3 * 4801 * 3072 * 4 / 2**30  # of a whole B/8
    assert float(run.stdout) + weights + tokens + mlp < 4
