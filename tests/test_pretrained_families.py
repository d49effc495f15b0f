"""RMSNorm, relative positions and positions cut out of a square: AIMv2, BEiT, data2vec, RADIO -> ViT."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from conftest import randomised
from torch import Tensor, nn
from torch.nn import functional as F

from vit import CheckpointError, load, trace
from vit.pretrained import from_timm, from_transformers

NATIVE, OTHER = (16, 24), (24, 8)
TINY: dict[str, Any] = dict(img_size=NATIVE, patch_size=4, embed_dim=32, depth=3, num_heads=4, num_classes=5)
AIMV2 = dict(dynamic_img_size=True)
TIMM = {
    "AIMv2": ("aimv2_large_patch14_224", AIMV2),
    "AIMv2 with query and key norm": ("aimv2_large_patch14_224", AIMV2 | dict(qk_norm=True)),
    "RMSNorm alone": ("vit_base_patch16_224", AIMV2 | dict(norm_layer="rmsnorm")),
    "no bias in projections": ("vit_base_patch16_224", AIMV2 | dict(proj_bias=False)),
    "norm of patches": ("vit_base_patch16_224", AIMV2 | dict(embed_norm_layer="layernorm")),
    "norm in the MLP": ("vit_base_patch16_224", AIMV2 | dict(scale_mlp_norm=True)),
    "BEiT": ("beit_base_patch16_224", {}),
    "BEiT, no head": ("beit_base_patch16_224", dict(num_classes=0, global_pool="token", use_fc_norm=False)),
    "BEiT, shared": ("beitv2_base_patch16_224", dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)),
    "BEiT, both": ("beitv2_base_patch16_224", dict(use_shared_rel_pos_bias=True, use_abs_pos_emb=True)),
    "BEiT, SwiGLU": ("beit_base_patch16_224", dict(swiglu_mlp=True, scale_mlp=True, qkv_bias=False)),
    "RADIO": ("vit_base_patch16_radio_v3", AIMV2),
    "Sapiens 2": ("vit_base_patch16_sapiens2", AIMV2 | dict(num_kv_heads=4)),
}


def same(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def tiny_timm(kind: str) -> nn.Module:
    name, changes = TIMM[kind]
    return randomised(timm.create_model(name, pretrained=False, **TINY | changes), 0.15)


def timm_attention(model: nn.Module, image: Tensor) -> Tensor:
    """(L, H, T, T), with the fused kernels off."""
    found: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, out: found.append(out[0]))
    model(image[None])
    return torch.stack(found)


@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "other"])
@pytest.mark.parametrize("kind", TIMM)
@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple")  # timm's own resampling
def test_timms_logits_and_attention(kind: str, size: tuple[int, int]) -> None:
    theirs = tiny_timm(kind)
    if hasattr(theirs, "set_input_size") and "BEiT" in kind:
        theirs.set_input_size(size)  # timm spaces differences in a way of its own before it runs
    ours, image = from_timm(theirs), torch.randn(3, *size)
    same(ours(image[None]), theirs(image[None]))
    same(trace(ours, image).attn, timm_attention(theirs, image), atol=3e-6)  # processors add in other orders


HF: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, patch_size=4, image_size=16,
    attn_implementation="eager",
)  # fmt: skip
MLP = dict(intermediate_size=48)
OWN = dict(use_relative_position_bias=True)
CLASS_TOKEN = dict(use_mean_pooling=False, layer_scale_init_value=0.0)
BEITS: dict[str, tuple[str, str, dict]] = {
    "own tables": ("BeitForImageClassification", "BeitConfig", OWN),
    "one table": ("BeitForImageClassification", "BeitConfig", dict(use_shared_relative_position_bias=True)),
    "both": ("BeitModel", "BeitConfig", OWN | dict(use_shared_relative_position_bias=True)),
    "beside positions": ("BeitModel", "BeitConfig", OWN | dict(use_absolute_position_embeddings=True)),
    "class token": ("BeitModel", "BeitConfig", OWN | CLASS_TOKEN),
    "mask token": ("BeitForImageClassification", "BeitConfig", OWN | dict(use_mask_token=True)),
    "data2vec": ("Data2VecVisionForImageClassification", "Data2VecVisionConfig", OWN),
    "data2vec, one table": (
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        dict(use_shared_relative_position_bias=True),
    ),
}  # fmt: skip


def tiny_hf(kind: str) -> nn.Module:
    model, config, changes = BEITS[kind]
    return randomised(getattr(hf, model)(getattr(hf, config)(**HF, **MLP, num_labels=5, **changes)))


def answer_of(told: Any) -> Tensor:
    return told.logits if hasattr(told, "logits") else told.pooler_output


@pytest.mark.parametrize("size", [(16, 16), (8, 20)], ids=["native", "other"])
@pytest.mark.parametrize("kind", BEITS)
def test_beits_of_transformers(kind: str, size: tuple[int, int]) -> None:
    theirs = tiny_hf(kind)
    ours, image = from_transformers(theirs), torch.randn(3, *size)
    if kind == "beside positions" and size != (16, 16):  # a table of positions is resampled as timm does it
        return
    told = theirs(image[None], output_attentions=True)
    same(ours(image[None]), answer_of(told))
    same(trace(ours, image).attn, torch.cat(told.attentions), atol=1e-6)


def test_a_beit_for_masked_patches_has_its_norm_on_the_tokens() -> None:
    theirs = randomised(hf.BeitForMaskedImageModeling(hf.BeitConfig(**HF, **MLP, **OWN, vocab_size=9)))
    ours, image = from_transformers(theirs), torch.randn(1, 3, 16, 16)
    features = theirs.layernorm(theirs.beit(image).last_hidden_state)
    same(ours(image), features[:, 1:].mean(dim=1))


def test_a_beit_of_transformers_that_is_not_square_is_refused() -> None:
    config = hf.BeitConfig(**HF | dict(image_size=(16, 24)), **MLP, **OWN)
    with pytest.raises(CheckpointError, match="mixes up rows and columns; in timm's layout"):
        from_transformers(hf.BeitModel(config))


@pytest.mark.parametrize("changes", [{}, dict(use_head=False), dict(qkv_bias=True, mlp_bias=True)])
def test_aimv2_of_transformers(changes: dict) -> None:
    config = hf.Aimv2VisionConfig(**HF, **MLP, **changes)
    theirs = randomised(hf.Aimv2VisionModel(config))
    ours, image = from_transformers(theirs), torch.randn(3, 16, 16)
    told = theirs(image[None], output_attentions=True)
    pooled = told.last_hidden_state.mean(dim=1) if told.pooler_output is None else told.pooler_output
    same(ours(image[None]), pooled)
    t = trace(ours, image)
    same(t.attn, torch.cat(told.attentions), atol=1e-6)
    if theirs.use_head:
        head, x = theirs.head, told.last_hidden_state[0]
        k, q = (y.unflatten(-1, (4, 8)).transpose(0, 1) for y in (head.k_proj(x), head.cls_token[0]))
        same(t.pool_attn, (q @ k.mT / 8**0.5).softmax(dim=-1)[:, 0], atol=1e-6)


def test_the_image_tower_of_a_whole_aimv2() -> None:
    text = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    config = hf.Aimv2Config(text_config=text, vision_config=HF | MLP, projection_dim=8)
    theirs = randomised(hf.Aimv2Model(config))
    image = torch.randn(1, 3, 16, 16)
    same(from_transformers(theirs)(image), theirs.vision_model(image).pooler_output)


def test_aimv2_at_native_resolution_is_refused() -> None:
    with pytest.raises(CheckpointError, match="computes its positions anew for every size"):
        from_transformers(hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**HF, **MLP, is_native=True)))


RADIO = dict(max_img_size=32, num_cls_tokens=2, num_registers=3, mlp_ratio=1.5)


@pytest.mark.filterwarnings("ignore:RADIO's summary")
@pytest.mark.parametrize("size", [(16, 16), (32, 32), (16, 24), (24, 8), (40, 12)])
@pytest.mark.parametrize("changes", [{}, dict(use_swiglu_ffn=True)], ids=["plain", "gated"])
def test_radio_of_transformers(changes: dict, size: tuple[int, int]) -> None:
    """Its pixels lie in [0, 1]: it normalises them itself, which our projection of patches does."""
    theirs = randomised(hf.RadioModel(hf.RadioConfig(**HF, **RADIO, **changes)), 0.1)
    ours, image = from_transformers(theirs), torch.rand(3, *size)
    told = theirs(image[None], output_attentions=True)
    t = trace(ours, image)
    same(t.attn, torch.cat(told.attentions), atol=1e-6)
    same(t.tokens[-1], told.last_hidden_state[0])
    same(ours(image[None]), told.summary[:, :32])


ON_DISK = {
    "BEiT": lambda: tiny_hf("own tables"),
    "BEiT, one table": lambda: tiny_hf("one table"),
    "data2vec": lambda: tiny_hf("data2vec"),
    "AIMv2": lambda: randomised(hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**HF, **MLP))),
    "RADIO": lambda: randomised(hf.RadioModel(hf.RadioConfig(**HF, **RADIO))),
}


@pytest.mark.filterwarnings("ignore:RADIO's summary")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["32", "16", "bf16"])
@pytest.mark.parametrize("kind", ON_DISK)
def test_from_disk_in_several_files(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = ON_DISK[kind]().to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    ours, _ = load(tmp_path)
    image = torch.rand(1, 3, 16, 16)
    told = theirs.float()(image)
    same(ours(image), told.summary[:, :32] if kind == "RADIO" else answer_of(told))


def test_relative_positions_on_another_grid_are_bilinear() -> None:
    """By a formula of its own: one number per difference, no index."""
    torch.manual_seed(1)
    ours = from_transformers(tiny_hf("own tables"))
    image = torch.randn(3, 8, 20)
    seen = trace(ours, image, keep=("attn", "scores", "q", "k")).activations
    added = seen["scores"][0] - (seen["q"][0] @ seen["k"][0].mT) / 8**0.5  # (H, T, T)
    table = ours.rel_pos[0, :-3].T.unflatten(1, (7, 7))  # (H, 2h - 1, 2w - 1) of 4 x 4 patches
    apart = F.interpolate(table[None], size=(3, 9), mode="bilinear")[0]
    for query in range(10):
        for key in range(10):
            rows, columns = query // 5 - key // 5, query % 5 - key % 5
            same(added[:, 1 + query, 1 + key], apart[:, rows + 1, columns + 4], atol=2e-6)


@pytest.mark.filterwarnings("ignore:.*do not fill")
def test_pixels_beyond_the_last_whole_patch_are_left_out() -> None:
    """SigLIP so400m at 384: its patches of 14 pixels end at 378."""
    config = hf.SiglipVisionConfig(**HF | dict(image_size=18), **MLP)
    theirs = randomised(hf.SiglipVisionModel(config))
    ours, image = from_transformers(theirs), torch.randn(1, 3, 18, 18)
    assert ours.config.image_size == (16, 16)
    same(ours(image[..., :16, :16]), theirs(image).pooler_output)
    with pytest.warns(UserWarning, match="do not fill 18 x 18"):
        from_transformers(theirs)
