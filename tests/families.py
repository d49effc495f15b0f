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
    "post-norm": dict(post_norm=True),
}
# a ledger needs a residual stream that only adds
ADDING = {name: changes for name, changes in FAMILIES.items() if not changes.get("post_norm")}
