"""Every layout in which a checkpoint lies on disk, and what its own library answers: one table.

A row writes a tiny model with random weights everywhere into a folder, and reads it again with the library
that the layout belongs to. Those of newer families are cut into several files, and of half precision.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from conftest import randomised, tiny_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vit import Card, ViT, save

HALF, BF16, FULL = torch.float16, torch.bfloat16, torch.float32
TINY: dict[str, Any] = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5, img_size=(32, 48))
SQUARE: dict[str, Any] = TINY | dict(img_size=32)
SHAPE: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=16,
    image_size=32,
)  # fmt: skip
CLIP: dict[str, Any] = SHAPE | dict(num_frames=4)


@dataclass(frozen=True)
class Layout:
    write: Callable[[Path], None]
    answer: Callable[[Path, Tensor], Tensor]  # (folder, pixels) -> what the library says, in float32
    depth: tuple[str, ...]  # where its config says how many layers there are
    pixels: tuple[int, ...] = (1, 3, 32, 32)


def cut(folder: Path, files: int = 3) -> None:
    """model.safetensors -> several files and their index, as both libraries name them."""
    whole = folder / "model.safetensors"
    tensors, weight_map = load_file(whole), {}
    whole.unlink()
    for i in range(files):
        part = {name: tensors[name] for name in sorted(tensors)[i::files]}
        name = f"model-{i + 1:05}-of-{files:05}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": sum(x.nbytes for x in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from one file or several."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def write_ours(folder: Path) -> None:
    save(folder, randomised(ViT(tiny_config())), Card("tiny", class_names=tuple("abcdefg")))


def ours_answers(folder: Path, pixels: Tensor) -> Tensor:
    raise NotImplementedError("what our own layout means is ours to say")


def of_timm(name: str, dtype: torch.dtype = FULL, **arguments: Any) -> Layout:
    arguments = TINY | arguments

    def write(folder: Path) -> None:
        model = randomised(timm.create_model(name, pretrained=False, **arguments)).to(dtype)
        timm.models.save_for_hf(model, folder, safe_serialization=True)
        if dtype != FULL:
            cut(folder)

    def answer(folder: Path, pixels: Tensor) -> Tensor:
        config = json.loads((folder / "config.json").read_text())
        arguments = {"num_classes": config["num_classes"]} | config["model_args"]
        model = timm.create_model(config["architecture"], pretrained=False, **arguments)
        model.load_state_dict(tensors_of(folder))
        return model.float().eval()(pixels)

    size = arguments["img_size"]
    return Layout(
        write, answer, ("model_args", "depth"), (1, 3, *((size, size) if type(size) is int else size))
    )


def of_transformers(
    kind: str, config: str, dtype: torch.dtype, pixels: tuple[int, ...] = (1, 3, 32, 32), **fields: Any
) -> Layout:
    def write(folder: Path) -> None:
        model: nn.Module = getattr(hf, kind)(getattr(hf, config)(**SHAPE | fields))
        randomised(model).to(dtype).save_pretrained(folder, max_shard_size="20KB" if dtype != FULL else "5GB")
        hf.ViTImageProcessor().save_pretrained(folder)

    def answer(folder: Path, pixels: Tensor) -> Tensor:
        model, found = getattr(hf, kind).from_pretrained(folder, dtype=FULL, output_loading_info=True)
        if any(found[problem] for problem in ("missing_keys", "mismatched_keys", "error_msgs")):
            raise ValueError("the library fills gaps with random numbers")
        said = model.eval()(pixels)
        for name in ("logits", "summary", "pooler_output", "last_hidden_state"):
            if (found := getattr(said, name, None)) is not None:
                return found
        raise ValueError("the library says nothing")

    return Layout(write, answer, ("num_hidden_layers",), pixels)


LAYOUTS = {
    "ours": Layout(write_ours, ours_answers, ("model", "depth"), (1, 3, 12, 20)),
    "timm": of_timm("vit_base_patch16_224"),
    "timm, bf16": of_timm("vit_base_patch16_224", BF16),
    "timm, DINOv3": of_timm("vit_small_patch16_dinov3", HALF),
    "timm, EVA-02": of_timm("eva02_base_patch14_224", BF16, patch_size=16),
    "timm, BEiT": of_timm("beit_base_patch16_224", HALF, img_size=32),
    "timm, BEiTv2": of_timm("beitv2_base_patch16_224", BF16, img_size=32),
    "timm, AIMv2": of_timm("aimv2_large_patch14_224", HALF, patch_size=16),
    "timm, RADIO": of_timm("vit_base_patch16_radio_v3", BF16),
    "timm, SigLIP": of_timm("vit_base_patch16_siglip_224", HALF),
    "transformers": of_transformers(
        "ViTForImageClassification", "ViTConfig", FULL, (1, 3, 32, 48), image_size=(32, 48), num_labels=5
    ),
    "transformers, DINOv3": of_transformers("DINOv3ViTModel", "DINOv3ViTConfig", HALF, num_register_tokens=2),
    "transformers, SigLIP": of_transformers("SiglipVisionModel", "SiglipVisionConfig", BF16),
    "transformers, BEiT": of_transformers(
        "BeitForImageClassification", "BeitConfig", HALF, use_relative_position_bias=True, num_labels=5
    ),
    "transformers, data2vec": of_transformers(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", BF16, num_labels=5,
        use_shared_relative_position_bias=True,
    ),
    "transformers, AIMv2": of_transformers("Aimv2VisionModel", "Aimv2VisionConfig", HALF),
    "transformers, RADIO": of_transformers("RadioModel", "RadioConfig", BF16, max_img_size=64),
    "transformers, ViViT": of_transformers(
        "VivitForVideoClassification", "VivitConfig", HALF, (1, 4, 3, 32, 32), num_frames=4,
        tubelet_size=(2, 16, 16), num_labels=5,
    ),
    "transformers, VideoMAE": of_transformers(
        "VideoMAEForVideoClassification", "VideoMAEConfig", BF16, (1, 4, 3, 32, 32), num_frames=4,
        num_labels=5,
    ),
}  # fmt: skip
