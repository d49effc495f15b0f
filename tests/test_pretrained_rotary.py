"""Rotary positions and attention pooling of timm and transformers -> ViT: the same numbers."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import transformers as hf
from conftest import randomised
from timm.layers import LayerNorm
from timm.models.eva import Eva
from torch import Tensor, nn

from vit import CheckpointError, load, trace
from vit.pretrained import from_timm, from_transformers

NATIVE, OTHER = (16, 24), (24, 8)
TINY = dict(img_size=NATIVE, patch_size=4, embed_dim=32, depth=3, num_heads=4, num_classes=5)
TINY["dynamic_img_size"] = True
EPS = partial(LayerNorm, eps=1e-5)
V3 = dict(
    rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True,
    use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False, init_values=1e-5,
)  # fmt: skip
PE = dict(
    attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True, rope_grid_offset=1.0,
    rope_grid_indexing="xy", norm_layer=EPS,
)  # fmt: skip
EVAS = {
    "DINOv3": V3 | dict(norm_layer=EPS, global_pool="token"),
    "DINOv3 +, mean": V3 | dict(swiglu_mlp=True, swiglu_align_to=8),
    "EVA": dict(mlp_ratio=3.0),
    "EVA-02": dict(
        qkv_fused=False, mlp_ratio=4 * 2 / 3, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True,
        ref_feat_shape=(3, 3),
    ),
    "EVA-02 small": dict(mlp_ratio=4 * 2 / 3, swiglu_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(3, 3)),
    "PE core": PE | dict(
        mlp_ratio=3.0, global_pool="map", ref_feat_shape=(3, 3), attn_pool_num_heads=2,
        attn_pool_mlp_ratio=4.0,
    ),
    "PE spatial": PE
    | dict(ref_feat_shape=(6, 6), use_post_transformer_norm=False, use_fc_norm=False, num_classes=0),
    "RoPE axial": dict(
        attn_type="rope", init_values=1e-5, global_pool="token", no_embed_class=True, use_abs_pos_emb=False,
        use_rot_pos_emb=True, rope_grid_indexing="xy", rope_temperature=100.0,
    ),
    "RoPE mixed, table": dict(
        attn_type="rope", init_values=1e-5, global_pool="token", no_embed_class=True, use_abs_pos_emb=True,
        use_rot_pos_emb=True, rope_grid_indexing="xy", rope_temperature=10.0, rope_type="mixed",
    ),
    "SBB": dict(
        init_values=1e-5, class_token=False, num_reg_tokens=1, use_rot_pos_emb=True, use_abs_pos_emb=False,
        ref_feat_shape=(4, 4),
    ),
}  # fmt: skip


def seen_by(attention: nn.Module, found: list[Tensor]) -> None:
    """Unfuse timm's attention, and keep what it gives."""
    attention.fused_attn = False
    if hasattr(attention, "attn_drop"):
        attention.attn_drop.register_forward_hook(lambda module, args, out: found.append(out[0]))


@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "other"])
@pytest.mark.parametrize("family", EVAS)
def test_evas_logits_and_attention_are_timms(family: str, size: tuple[int, int]) -> None:
    theirs = randomised(Eva(**TINY | EVAS[family]))
    ours = from_timm(theirs)
    image = torch.randn(3, *size)
    expected = theirs(image[None])[0]
    torch.testing.assert_close(ours(image[None])[0], expected, rtol=0, atol=1e-5)
    found: list[Tensor] = []
    for block in theirs.blocks:
        seen_by(block.attn, found)
    theirs(image[None])
    t = trace(ours, image)
    torch.testing.assert_close(t.attn, torch.stack(found), rtol=0, atol=1e-6)
    if family == "PE core":
        assert t.pool_attn.shape == (2, t.tokens.shape[1])
        torch.testing.assert_close(t.pool_attn, pooling_of(theirs, image), rtol=0, atol=1e-6)


def pooling_of(model: nn.Module, image: Tensor) -> Tensor:
    """(H', T): timm's attention pooling, from its own q, k and softmax."""
    pool = model.attn_pool
    x = model.forward_features(image[None])
    past = 0 if getattr(model, "pool_include_prefix", True) else model.num_prefix_tokens
    H = pool.num_heads
    q = pool.q(pool.latent).view(1, 1, H, -1).transpose(1, 2)
    k = pool.kv(x).view(1, x.shape[1], 2, H, -1)[:, :, 0].transpose(1, 2)
    attn = (q @ k[:, :, past:].mT / q.shape[-1] ** 0.5).softmax(dim=-1)[0, :, 0]
    return torch.cat([torch.zeros(H, past), attn], dim=1)


@pytest.mark.parametrize("changes", [dict(final_norm=False), dict(pos_embed="none")], ids=["norm", "table"])
def test_a_vit_without_a_final_norm_or_a_position_table_is_exact(changes: dict) -> None:
    theirs = randomised(timm.models.VisionTransformer(**TINY | changes))
    images = torch.randn(2, 3, *NATIVE)
    torch.testing.assert_close(from_timm(theirs)(images), theirs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "other"])
@pytest.mark.parametrize(
    "prefix",
    [
        dict(class_token=False),
        dict(class_token=False, reg_tokens=3),
        dict(reg_tokens=3, pool_include_prefix=True),
        dict(reg_tokens=3, no_embed_class=True),
    ],
    ids=[
        "patches alone",
        "past registers",
        "class token and registers, too",
        "past class token and registers",
    ],
)
def test_siglips_pooling_is_timms(prefix: dict, size: tuple[int, int]) -> None:
    changes = prefix | dict(global_pool="map", act_layer="gelu_tanh", mlp_ratio=3.5)
    theirs = randomised(timm.models.VisionTransformer(**TINY | changes))
    ours = from_timm(theirs)
    image = torch.randn(3, *size)
    torch.testing.assert_close(ours(image[None]), theirs(image[None]), rtol=0, atol=1e-5)
    torch.testing.assert_close(trace(ours, image).pool_attn, pooling_of(theirs, image), rtol=0, atol=1e-6)


HF = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, patch_size=4, intermediate_size=48)
DINOV3S = {
    "plain": {},
    "no registers": dict(num_register_tokens=0),
    "gated": dict(use_gated_mlp=True, hidden_act="silu", key_bias=True),
}


@pytest.mark.parametrize("size", [NATIVE, OTHER], ids=["native", "other"])
@pytest.mark.parametrize("kind", DINOV3S)
def test_dinov3_of_transformers_is_exact(kind: str, size: tuple[int, int]) -> None:
    changes = dict(image_size=NATIVE, num_register_tokens=3, attn_implementation="eager") | DINOV3S[kind]
    theirs = randomised(hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**HF, **changes)))
    ours = from_transformers(theirs)
    image = torch.randn(3, *size)
    told = theirs(image[None], output_attentions=True)
    t = trace(ours, image)
    torch.testing.assert_close(t.attn, torch.cat(told.attentions), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(image[None]), told.pooler_output, rtol=0, atol=1e-5)
    again = from_transformers(theirs.state_dict(), theirs.config.to_dict())
    assert torch.equal(again(image[None]), ours(image[None]))


def test_pixio_reads_the_mean_of_its_class_tokens() -> None:
    config = hf.PixioConfig(
        **HF, image_size=(16, 16), mlp_ratio=2, n_cls_tokens=3, attn_implementation="eager"
    )
    theirs = randomised(hf.PixioModel(config))
    ours = from_transformers(theirs)
    image = torch.randn(3, 16, 16)
    told = theirs(image[None], output_attentions=True)
    assert ours.config.prefix_names == ("[CLS1]", "[CLS2]", "[CLS3]")
    torch.testing.assert_close(trace(ours, image).attn, torch.cat(told.attentions), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(image[None]), told.pooler_output, rtol=0, atol=1e-5)


def test_siglips_pooling_is_that_of_transformers() -> None:
    theirs = randomised(hf.SiglipVisionModel(hf.SiglipVisionConfig(**HF, image_size=16)))
    ours = from_transformers(theirs)
    image = torch.randn(3, 16, 16)
    told = theirs(image[None])
    torch.testing.assert_close(ours(image[None]), told.pooler_output, rtol=0, atol=1e-5)
    head = theirs.head if hasattr(theirs, "head") else theirs.vision_model.head
    _, attn = head.attention(head.probe, *[told.last_hidden_state] * 2, average_attn_weights=False)
    torch.testing.assert_close(trace(ours, image).pool_attn, attn[0, :, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rotary_model_in_half_precision_comes_from_disk(tmp_path: Path, dtype: torch.dtype) -> None:
    """Sharded, in transformers' layout: the weights are those of the files, in float32."""
    config = hf.DINOv3ViTConfig(**HF, image_size=NATIVE, num_register_tokens=2)
    theirs = randomised(hf.DINOv3ViTModel(config)).to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    ours, _ = load(tmp_path)
    image = torch.randn(3, *NATIVE)
    exact = hf.DINOv3ViTModel(config).eval()  # their frequencies, too, were rounded
    exact.load_state_dict(theirs.float().state_dict())
    expected = exact(image[None]).pooler_output
    torch.testing.assert_close(ours(image[None]), expected, rtol=0, atol=1e-5)


REFUSED = {
    "sub-LN": dict(scale_attn_inner=True),
    "another order": dict(use_post_norm=True),
    "other rotary positions": dict(use_rot_pos_emb=True, rope_type="mrope"),
    "grid that is not square": dict(use_rot_pos_emb=True, ref_feat_shape=(3, 4)),
    "pools by 'max'": dict(global_pool="max"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_an_eva_has_and_we_have_not_is_named(reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        from_timm(Eva(**TINY | REFUSED[reason]))
