"""Models as training scripts leave them: wrapped, prefixed, under older names; and folders that are none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers as hf
from safetensors.torch import load_file, save_file
from test_pretrained import same, scrambled, timm_folder, transformers_folder
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vit import CheckpointError, load
from vit.card import check_channels
from vit.checkpoint import open_file
from vit.library import BUNDLED
from vit.pretrained import from_timm, from_torchvision, from_transformers

SHAPE: dict[str, Any] = dict(embed_dim=32, depth=2, num_heads=4, img_size=32)
TIMM = {"architecture": "vit_base_patch16_224", "num_classes": 5, "model_args": SHAPE}
VISION = dict(
    image_size=32, patch_size=16, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
)
TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32)
PICTURES = torch.randn(2, 3, 32, 32)
AROUND = [
    nn.DataParallel,
    torch.compile,
    ModelEmaV3,
    AveragedModel,
    lambda m: nn.DataParallel(torch.compile(m)),
]


def of_timm() -> nn.Module:
    return scrambled(timm.create_model("vit_base_patch16_224", num_classes=5, **SHAPE))


def of_torchvision() -> nn.Module:
    return scrambled(torchvision.models.VisionTransformer(**VISION))


def of_transformers() -> nn.Module:
    return scrambled(hf.ViTForImageClassification(hf.ViTConfig(**TINY, num_labels=5)))


@pytest.mark.parametrize("around", AROUND, ids=["parallel", "compiled", "ema", "averaged", "both"])
def test_what_stands_around_a_live_model_is_taken_off(around) -> None:
    theirs = of_timm()
    same(from_timm(around(theirs))(PICTURES), theirs(PICTURES))
    theirs = of_torchvision()
    same(from_torchvision(around(theirs))(PICTURES), theirs(PICTURES))
    theirs = of_transformers()
    same(from_transformers(around(theirs))(PICTURES), theirs(PICTURES).logits)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "net.0.module.", ""])
def test_a_prefix_before_every_name_is_taken_off(prefix: str) -> None:
    def put(model: nn.Module) -> dict[str, Any]:
        state = {prefix + name: x for name, x in model.state_dict().items()}
        return state if prefix else {"state_dict": state, "epoch": 3}

    theirs = of_timm()
    same(from_timm(put(theirs), TIMM)(PICTURES), theirs(PICTURES))
    theirs = of_torchvision()
    same(from_torchvision(put(theirs), VISION)(PICTURES), theirs(PICTURES))
    theirs = of_transformers()
    same(from_transformers(put(theirs), theirs.config)(PICTURES), theirs(PICTURES).logits)


def test_a_backbone_and_a_head_beside_it_are_one_model() -> None:
    theirs = of_timm()
    names = {name: name if name.startswith("head.") else f"backbone.{name}" for name in theirs.state_dict()}
    state = {names[name]: x for name, x in theirs.state_dict().items()}
    same(from_timm(state, TIMM)(PICTURES), theirs(PICTURES))


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_behind_a_dropout_and_one_without_bias(bias: bool) -> None:
    """As people change timm's head by hand."""
    theirs = of_timm()
    theirs.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 5, bias=bias)).eval().requires_grad_(False)
    same(from_timm(theirs)(PICTURES), theirs(PICTURES))
    theirs.head = nn.Sequential(nn.Linear(32, 8), nn.GELU(), nn.Linear(8, 5))
    with pytest.raises(CheckpointError, match="has a head of more than one layer"):
        from_timm(theirs)


def test_two_models_in_one_file_are_named() -> None:
    state = of_timm().state_dict()
    both = {prefix + name: x for prefix in ("student.", "teacher.") for name, x in state.items()}
    with pytest.raises(CheckpointError, match=r"several models, .* begin with 'student\.' and 'teacher\.'"):
        from_timm(both, TIMM)
    with pytest.raises(CheckpointError, match=r"with and without 'module\.'"):
        from_timm(
            {f"module.{name}": x for name, x in state.items()} | {"head.bias": state["head.bias"]}, TIMM
        )


def test_what_is_missing_is_named_the_same_way_every_time() -> None:
    state = of_timm().state_dict()
    for name in ("blocks.1.attn.proj.weight", "norm.bias"):
        del state[name]
    with pytest.raises(CheckpointError, match=r"no tensor 'blocks.1.attn.proj.weight'"):
        from_timm(state, TIMM)
    with pytest.raises(CheckpointError, match="give its config, too, at least"):
        from_timm(state)
    with pytest.raises(CheckpointError, match="Linear is not of transformers: it carries no config"):
        from_transformers(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_224_in21k", "vit_base_patch16_224_dino", "vit_base_patch16_224.augreg_in21k"],
)
def test_timms_older_and_tagged_names(name: str, tmp_path: Path) -> None:
    theirs = timm_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": name}))
    same(load(tmp_path)[0](PICTURES), theirs(PICTURES))


def test_timm_inside_transformers(tmp_path: Path) -> None:
    """transformers' TimmWrapper writes `timm_model.` before every name."""
    theirs = timm_folder(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({f"timm_model.{name}": x for name, x in state.items()}, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "timm_wrapper"}))
    same(load(tmp_path)[0](PICTURES), theirs(PICTURES))


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_that_are_no_colours_load(channels: int, tmp_path: Path) -> None:

    theirs = scrambled(timm.create_model("vit_base_patch16_224", num_classes=5, in_chans=channels, **SHAPE))
    arguments = SHAPE | {"img_size": [32, 32], "in_chans": channels}
    timm.models.save_for_hf(theirs, tmp_path, model_args=arguments, safe_serialization=True)
    model, _ = load(tmp_path)
    images = torch.randn(2, channels, 32, 32)
    same(model(images), theirs(images))
    with pytest.raises(CheckpointError, match=f"reads {channels} channels: pictures here have 3"):
        check_channels(model.config, "this")


# --- towers ---------------------------------------------------------------------------------------------

SMALL = TINY | {"patch_size": 8}
TEXT = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=99)
TOWERS = {
    "MetaCLIP 2": (hf.MetaClip2VisionModel, hf.MetaClip2VisionConfig),
    "Chinese-CLIP": (hf.ChineseCLIPVisionModel, hf.ChineseCLIPVisionConfig),
    "AltCLIP": (hf.AltCLIPVisionModel, hf.AltCLIPVisionConfig),
    "CLIPSeg": (hf.CLIPSegVisionModel, hf.CLIPSegVisionConfig),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_towers_that_are_clips(kind: str, tmp_path: Path) -> None:
    model, config = TOWERS[kind]
    theirs = scrambled(model(config(**SMALL)))
    expected = theirs(PICTURES).pooler_output
    same(from_transformers(theirs)(PICTURES), expected)
    theirs.save_pretrained(tmp_path)
    same(load(tmp_path)[0](PICTURES), expected)


@pytest.mark.parametrize("swiglu", [False, True])
def test_tipsv2_alone_and_with_its_text_tower(swiglu: bool, tmp_path: Path) -> None:
    shape = {**SMALL, "num_register_tokens": 1, "use_swiglu_ffn": swiglu}
    shape.pop("intermediate_size")
    theirs = scrambled(hf.Tipsv2VisionModel(hf.Tipsv2VisionConfig(**shape)))
    expected = theirs(PICTURES).last_hidden_state
    same(from_transformers(theirs)(PICTURES), expected[:, 0])
    whole = scrambled(hf.Tipsv2Model(hf.Tipsv2Config(vision_config=shape, text_config=TEXT)))
    whole.save_pretrained(tmp_path)
    same(load(tmp_path)[0](PICTURES), whole.vision_model(PICTURES).last_hidden_state[:, 0])


def test_the_whole_clipseg_gives_its_vision_tower(tmp_path: Path) -> None:
    config = hf.CLIPSegConfig(vision_config=SMALL, text_config=TEXT, extract_layers=[0, 1], reduce_dim=8)
    whole = scrambled(hf.CLIPSegForImageSegmentation(config))
    whole.save_pretrained(tmp_path)
    same(load(tmp_path)[0](PICTURES), whole.clip.vision_model(PICTURES).pooler_output)


@pytest.mark.parametrize(
    "config, why",
    [
        ({"model_type": "sam_vision_model"}, "attends within windows"),
        ({"model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"model_type": "aimv2_vision_model"}, "no tensor 'pos_embed'"),
        ({"model_type": "beit"}, "no tensor 'cls_token'"),
    ],
)
def test_a_tower_that_is_none_is_refused_by_the_part_that_it_has(config: dict, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        from_transformers({}, config)


# --- folders and files that are not what they seem --------------------------------------------------------


def told_of(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert str(folder.parent) not in message, "the way to a folder is nobody's business"
    return message


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    folder = tmp_path / "lfs"
    folder.mkdir()
    shutil.copy(BUNDLED / "shapes" / "config.json", folder)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 346293852\n"
    (folder / "model.safetensors").write_text(pointer)
    assert "lfs/model.safetensors is only a pointer" in told_of(folder) and "git lfs pull" in told_of(folder)


@pytest.mark.parametrize("closed", ["model.safetensors", "config.json"])
def test_files_that_may_not_be_read_are_called_that(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        if path.name == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path)

    folder = tmp_path / "closed"
    transformers_folder(folder)
    monkeypatch.setattr("vit.checkpoint.open_file", refuse)
    assert f"closed/{closed} may not be read by you" in told_of(folder)


@pytest.mark.parametrize(
    "files, words",
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds a PEFT adapter and no model"),
        (["checkpoint-500/config.json", "checkpoint-90/x"], "name one of them, such as checkpoint-500"),
        (["refs/main", "snapshots/abc/config.json"], "name the model itself, as owner/name"),
        (["open_clip_config.json", "open_clip_model.safetensors"], "in OpenCLIP's layout"),
        (["README.md"], "has no config.json, which says what model it is"),
    ],
)
def test_a_folder_that_is_something_else(tmp_path: Path, files: list, words: str) -> None:
    folder = tmp_path / "it"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    assert told_of(folder).startswith("it ") and words in told_of(folder)


def test_weights_under_another_name_are_pointed_to(tmp_path: Path) -> None:
    transformers_folder(tmp_path / "it")
    (tmp_path / "it" / "model.safetensors").rename(tmp_path / "it" / "model.fp16.safetensors")
    assert "no model.safetensors but model.fp16.safetensors: rename it" in told_of(tmp_path / "it")


@pytest.mark.parametrize("said, kept", [("bilinear", "bilinear"), ("lanczos", "lanczos"), (2, "bilinear")])
def test_interpolation_by_name_or_by_number(tmp_path: Path, said: Any, kept: str) -> None:
    transformers_folder(tmp_path)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "resample": said,
        "size": {"height": 32, "width": 32},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert load(tmp_path)[1].interpolation == kept


def test_a_crop_that_is_larger_than_its_picture_takes_the_whole_picture(tmp_path: Path) -> None:
    transformers_folder(tmp_path)
    processor = {"do_center_crop": True, "crop_size": 64, "size": {"shortest_edge": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    card = load(tmp_path)[1]
    assert (card.crop_pct, card.image_size) == (1.0, (64, 64))
    assert "black border around pictures of 32 pixels" in card.note
