"""Every kind of ViT that this project can build, as changes to `conftest.tiny_config`: one table.

Whoever adds a kind adds a row, and every method, figure and edit is held to it.
"""

FAMILIES: dict[str, dict] = {
    "cls": {},
    "registers": dict(num_registers=2),
    "registers without places": dict(num_registers=3, pos_embed_prefix=False, layer_scale=0.5),
    "mean pool": dict(pool="mean"),
    "mean pool, prefix": dict(pool="mean", num_registers=2),
    "mean pool, no prefix": dict(class_token=False, pool="mean"),
    "mean pool, fc_norm": dict(pool="mean", norm_after_pool=True),
    "distilled": dict(distillation=True),
    "CLIP": dict(pre_norm=True, activation="quick_gelu"),
    "layer scale, SwiGLU": dict(layer_scale=0.3, activation="swiglu", mlp_ratio=6.0, num_registers=1),
    "tanh GELU, sincos": dict(activation="gelu_tanh", pos_embed="sincos"),
    "query and key norm": dict(qk_norm=True, qkv_bias=False),
    "two class tokens": dict(num_class_tokens=2, num_registers=1),
    "no final norm": dict(final_norm=False, layer_scale=0.3),
    "DINOv3": dict(
        rope="axial",
        rope_span=(-6.28, 6.28),
        rope_offset=0.5,
        pos_embed="none",
        num_registers=2,
        layer_scale=0.3,
    ),
    "EVA-02": dict(
        rope="axial",
        rope_theta=10000.0,
        rope_span=(0.0, 4.0),
        activation="swiglu",
        mlp_ratio=4.0,
        mlp_norm=True,
        pool="mean",
        norm_after_pool=True,
    ),
    "mixed rope": dict(rope="mixed", rope_theta=10.0, pos_embed="none"),
    "SigLIP": dict(class_token=False, pool="attention", activation="gelu_tanh"),
    "SigLIP, past registers": dict(class_token=False, num_registers=2, pool="attention", pool_prefix=False),
    "Perception Encoder": dict(
        rope="axial", rope_theta=10000.0, rope_span=(1.0, 5.0), pre_norm=True, pool="attention", pool_heads=2
    ),
    "AIMv2": dict(
        norm="rms", patch_norm=True, class_token=False, pool="mean", activation="swiglu", mlp_ratio=4.0,
        qkv_bias=False, proj_bias=False,
    ),
    "AIMv2, pooled": dict(
        norm="rms", patch_norm=True, class_token=False, pool="attention", pool_mlp=False, qkv_bias=False
    ),
    "BEiT": dict(rel_pos=True, pos_embed="none", pool="mean", norm_after_pool=True, layer_scale=0.3),
    "BEiT beside a table": dict(rel_pos=True, num_registers=1),
    "RADIO": dict(
        final_norm=False, pos_embed_prefix=False, pos_square=7, num_registers=3, layer_scale=0.3
    ),
    "post-norm": dict(post_norm=True),
}  # fmt: skip
# a ledger needs a residual stream that only adds, and a read-out that is linear
NOT_ADDING = ("post-norm", "SigLIP", "SigLIP, past registers", "Perception Encoder", "AIMv2, pooled")
ADDING = {name: changes for name, changes in FAMILIES.items() if name not in NOT_ADDING}
