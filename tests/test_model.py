"""vit/model.py: the numbers of timm, under its names; hooks that see and edit everything.

The numbers of other libraries and model families: test_pretrained.py.
"""

import dataclasses
import itertools
import math
import threading

import pytest
import timm
import torch
from conftest import clip_config, randomised, tiny_config
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vit import Recorder, ViT, ViTConfig
from vit.config import VARIANTS
from vit.grid import Grid
from vit.positions import resample_pos_embed, sincos_pos_embed

NAMES = "embed pos norm1 q k v scores attn z attn_out resid_mid norm2 mlp_pre mlp_post resid_post norm"
NAMES += " pooled logits"


def timm_twin(model: ViT, **changes) -> torch.nn.Module:
    """timm's ViT of the same architecture with the same weights."""
    c = model.config
    options = dict(
        img_size=c.image_size, patch_size=c.patch_size, num_classes=c.num_classes, embed_dim=c.embed_dim,
        depth=c.depth, num_heads=c.num_heads, mlp_ratio=c.mlp_ratio, dynamic_img_size=True,
    )  # fmt: skip
    twin = timm.models.vision_transformer.VisionTransformer(**options | changes)
    weights = model.state_dict()
    if twin.patch_embed.proj.bias is None:  # timm leaves it out where a norm follows
        model.patch_embed.proj.bias.zero_()
        del weights["patch_embed.proj.bias"]
    twin.load_state_dict(weights, strict=True)
    return twin.eval()


TIMM_CASES = {
    "plain": ({}, {}),
    "mean pool": (
        dict(pool="mean", norm_after_pool=True),
        dict(global_pool="avg"),
    ),
    "registers, layer scale": (
        dict(num_registers=3, pos_embed_prefix=False, layer_scale=0.5),
        dict(reg_tokens=3, no_embed_class=True, init_values=0.5),
    ),
    "pre-norm, query and key norm": (dict(pre_norm=True, qk_norm=True), dict(pre_norm=True, qk_norm=True)),
}


@pytest.mark.parametrize("size", [(12, 20), (24, 16)], ids=["native", "resampled"])
@pytest.mark.parametrize("ours, theirs", TIMM_CASES.values(), ids=TIMM_CASES)
def test_logits_and_attention_equal_timm(ours: dict, theirs: dict, size: tuple[int, int]) -> None:
    model = randomised(ViT(tiny_config(**ours)))
    twin = timm_twin(model, **theirs)
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(model(images), twin(images), rtol=0, atol=1e-5)

    recorder = Recorder({"attn"})
    model(images, recorder)
    timm.layers.set_fused_attn(False)
    try:
        for layer, block in enumerate(twin.blocks):
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(
                lambda module, args, out, layer=layer: torch.testing.assert_close(
                    recorder.seen["attn"][layer], out, rtol=0, atol=1e-6
                )
            )
            block.attn.attn_drop.register_forward_hook(lambda *_: checked.append(1))
        checked: list[int] = []
        twin(images)
        assert len(checked) == len(twin.blocks)
    finally:
        timm.layers.set_fused_attn(True)


@pytest.mark.parametrize("changes", [*FAMILIES.values(), dict(num_classes=0)], ids=[*FAMILIES, "no head"])
def test_shown_forward_equals_fused_forward(changes: dict) -> None:
    model = randomised(ViT(tiny_config(**changes)))
    images = torch.randn(2, 3, 12, 20)
    torch.testing.assert_close(model(images, Recorder()), model(images), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("changes", [*FAMILIES.values(), dict(num_classes=0)], ids=[*FAMILIES, "no head"])
def test_every_named_activation_is_shown_once_per_layer_with_its_shape(changes: dict) -> None:
    c = tiny_config(**changes)
    recorder = Recorder()
    ViT(c).eval()(torch.randn(2, 3, 12, 20), recorder)
    pooling = {"pool_scores", "pool_attn"} if c.pool == "attention" else set()
    assert set(recorder.seen) == set(NAMES.split()) | pooling
    B, T, D, H, d, L = 2, c.num_prefix_tokens + 15, 32, 4, 8, 3
    shapes = {
        "embed": (B, 15, D), "pos": (B, T, D), "norm1": (B, T, D), "q": (B, H, T, d), "k": (B, H, T, d),
        "v": (B, H, T, d), "scores": (B, H, T, T), "attn": (B, H, T, T), "z": (B, H, T, d),
        "attn_out": (B, T, D), "resid_mid": (B, T, D), "norm2": (B, T, D), "mlp_pre": (B, T, c.mlp_dim),
        "resid_post": (B, T, D), "norm": (B, T, D), "pooled": (B, D), "logits": (B, c.num_classes or D),
    }  # fmt: skip
    for name, shape in shapes.items():
        per_layer = name not in ("embed", "pos", "norm", "pooled", "logits")
        assert list(recorder.seen[name]) == (list(range(L)) if per_layer else [None])
        assert all(x.shape == shape for x in recorder.seen[name].values()), name
    for name in pooling:
        assert recorder.seen[name][None].shape == (B, c.pool_heads or H, 1, T)
    attn = recorder.stack("attn")
    torch.testing.assert_close(attn.sum(-1), torch.ones_like(attn[..., 0]))


def test_the_model_goes_on_with_what_the_hook_returns(tiny_vit: ViT) -> None:
    images, recorder = torch.randn(2, 3, 12, 20), Recorder()
    plain = tiny_vit(images, recorder)
    for name, seen in recorder.seen.items():
        layer = next(iter(seen))

        def edit(shown: str, at: int | None, x: torch.Tensor, name=name, layer=layer) -> torch.Tensor:
            if (shown, at) != (name, layer):
                return x
            return x + torch.randn_like(x) * 0.1

        assert not torch.allclose(tiny_vit(images, edit), plain, atol=1e-5), name


def test_threads_sharing_a_model_never_mix_images(tiny_vit: ViT) -> None:
    images = torch.randn(8, 3, 12, 20)
    wanted = []
    for image in images:
        recorder = Recorder({"attn"})
        tiny_vit(image[None], recorder)
        wanted.append(recorder.stack("attn"))
    wrong: list[int] = []

    def look(i: int) -> None:
        for _ in range(50):
            recorder = Recorder({"attn"})
            tiny_vit(images[i][None], recorder)
            if not torch.allclose(recorder.stack("attn"), wanted[i], atol=1e-6):
                wrong.append(i)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("old, new", [((3, 5), (6, 4)), ((3, 5), (2, 2)), ((4, 4), (7, 9))])
def test_positions_are_resampled_as_in_timm(old: tuple[int, int], new: tuple[int, int]) -> None:
    pos_embed = torch.randn(1, 2 + math.prod(old), 8)
    theirs = timm.layers.resample_abs_pos_embed(pos_embed, new, old, num_prefix_tokens=2)
    torch.testing.assert_close(resample_pos_embed(pos_embed, old, new), theirs, rtol=0, atol=1e-6)


def test_sincos_positions_follow_maes_formula() -> None:
    """Written out entry by entry: a quarter of the channels each for sin x, cos x, sin y, cos y."""
    table = sincos_pos_embed((2, 3), 16)[0]
    for y, x in itertools.product(range(2), range(3)):
        for i in range(4):
            frequency = 1 / 10000 ** (i / 4)
            wanted = [f(at * frequency) for at in (x, y) for f in (math.sin, math.cos)]
            assert table[y * 3 + x, i::4].tolist() == pytest.approx(wanted, abs=1e-6)


def test_sincos_tell_rows_from_columns() -> None:
    table = sincos_pos_embed((2, 3), 8)[0].unflatten(0, (2, 3))  # (h, w, D): column first, then row
    assert torch.equal(table[0, 1, :4], table[1, 1, :4])
    assert torch.equal(table[1, 0, 4:], table[1, 2, 4:])
    assert not torch.equal(table[0, 1], table[1, 1])


@pytest.mark.parametrize(
    "name, millions", [("Ti/16", 5.72), ("S/16", 22.05), ("B/16", 86.57), ("L/16", 304.33)]
)
def test_variants_have_the_papers_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = ViT(ViTConfig.variant(name))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_initialisation_is_timms_with_a_zero_head() -> None:
    model = ViT(ViTConfig.variant("Ti/16"))
    assert model.head.weight.abs().max() == 0
    assert model.blocks[3].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].mlp.fc1.bias.abs().max() == 0
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)


def test_drop_path_skips_whole_images_and_keeps_the_mean() -> None:
    model = ViT(tiny_config(drop_path=0.5))
    branch = model.blocks[-1].drop_path.train()
    x = torch.ones(4000, 2, 3)
    y = branch(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert (y == y[:, :1, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.06)
    assert [round(block.drop_path.rate, 2) for block in model.blocks] == [0, 0.25, 0.5]
    assert torch.equal(branch.eval()(x), x)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(embed_dim=30), "not a multiple of num_heads"),
        (dict(image_size=(12, 21)), "12 x 21 pixels"),
        (dict(image_size=2), "2 x 2 pixels"),
        (dict(pool="max"), "pool must be one of cls, mean"),
        (dict(class_token=False), "without a class token"),
        (dict(depth=0), "depth must be at least 1"),
        (dict(activation="relu"), "activation must be one of"),
    ],
)
def test_a_config_that_cannot_be_built_says_why(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_config(**changes)


def test_an_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(VARIANTS)):
        ViTConfig.variant("XL/16")


def test_post_norm_is_the_encoder_layer_of_torch() -> None:
    model, x = randomised(ViT(tiny_config(post_norm=True, norm_eps=1e-5))), torch.randn(2, 16, 32)
    for block in model.blocks:
        theirs = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", 1e-5, batch_first=True).eval()
        ours = {
            "self_attn.in_proj_": block.attn.qkv,
            "self_attn.out_proj.": block.attn.proj,
            "linear1.": block.mlp.fc1,
            "linear2.": block.mlp.fc2,
            "norm1.": block.norm1,
            "norm2.": block.norm2,
        }
        weights = {name + part: getattr(x, part) for name, x in ours.items() for part in ("weight", "bias")}
        theirs.load_state_dict(weights)
        torch.testing.assert_close(block(x), theirs(x), rtol=0, atol=1e-5)


def test_a_run_in_pieces_is_the_whole_run() -> None:
    model = randomised(ViT(tiny_config()))
    images = torch.randn(2, 3, 12, 20)
    places = model.places(Grid((3, 5)))
    tokens = model.embed(images)
    middle = model.run(tokens, stop=2, places=places)
    end = model.run(middle, 2, places=places)
    torch.testing.assert_close(end, model.run(tokens))
    torch.testing.assert_close(model.read_out(end), model(images))
    assert torch.equal(model.run(tokens, 1, 1), tokens)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (2, 1), (0, 4), (4, None), (0, -1)])
def test_blocks_that_there_are_not_are_refused(start: int, stop: int | None) -> None:
    model = ViT(tiny_config())
    with pytest.raises(ValueError, match="do not exist: this model has 3"):
        model.run(torch.zeros(1, 16, 16), start, stop)


def test_places_are_those_of_the_tokens() -> None:
    model = ViT(tiny_config(num_registers=2))
    places = model.places(Grid((3, 5)))
    assert places.index.tolist() == [*range(-3, 15)]
    assert places[torch.tensor([[0, 4], [3, 17]])].index.tolist() == [[-3, 1], [0, 14]]
    with pytest.raises(ValueError, match="17 tokens cannot have 18 places"):
        model.run(torch.zeros(1, 17, 16), places=places)


def test_a_grid_knows_its_patches() -> None:
    grid = Grid.of((12, 20), 4)
    assert (grid.shape, grid.count) == ((3, 5), 15)
    assert [grid.place(patch) for patch in (0, 4, 5, 14)] == [(0, 0), (0, 4), (1, 0), (2, 4)]
    assert [tuple(place) for place in grid.places().tolist()] == [grid.place(i) for i in range(15)]
    assert grid.name(7) == "patch (1, 2)"
    assert grid.distances((4, 8))[0, 6].item() == pytest.approx(math.hypot(4, 8))
    assert torch.equal(grid.unflatten(torch.arange(30).view(2, 15))[1, 2], torch.arange(25, 30))
    assert Grid((1, 1)).distances((4, 4)).tolist() == [[0.0]] and Grid((1, 4)).places().shape == (4, 2)
    for patch in (-1, 15):
        with pytest.raises(ValueError, match=f"There is no patch {patch}: this grid has 15, 0 to 14"):
            grid.place(patch)
    with pytest.raises(ValueError, match="Patches of 4 pixels do not divide an image of 12 x 18 pixels"):
        Grid.of((12, 18), 4)


def test_a_grid_of_a_clip_counts_frame_by_frame() -> None:
    grid = Grid.of((12, 20), 4, frames=8, tubelet=2)
    assert (grid.shape, grid.count, grid.frames, grid.space) == ((4, 3, 5), 60, 4, (3, 5))
    assert [grid.place(patch) for patch in (0, 14, 15, 59)] == [(0, 0, 0), (0, 2, 4), (1, 0, 0), (3, 2, 4)]
    assert [tuple(place) for place in grid.places().tolist()] == [grid.place(i) for i in range(60)]
    assert grid.name(22) == "patch (1, 2) at time 1"
    assert [grid.number(grid.place(i)) for i in range(60)] == [*range(60)]
    with pytest.raises(
        ValueError, match="no patch 4,0,0: this grid has times from 0 to 3, rows from 0 to 2, col"
    ):
        grid.number((4, 0, 0))
    assert [grid.place(i)[0] for i in grid.in_frame(2)] == [2] * 15 and len(grid.in_frame(0)) == 15
    assert [grid.place(i) for i in grid.through_time(22)] == [(t, 1, 2) for t in range(4)]
    assert grid.distances((0, 4, 8))[0, 21].item() == pytest.approx(math.hypot(4, 8))
    assert grid.distances((3, 0, 0))[2, 59].item() == pytest.approx(9)
    assert grid.unflatten(torch.arange(60))[1, 2, 3] == 15 + 10 + 3
    still = Grid((3, 5))
    assert (still.frames, still.space, still.in_frame(0), list(still.through_time(7))) == (
        *(1, (3, 5), range(15)),
        [7],
    )
    with pytest.raises(ValueError, match="Patches of 2 frames do not divide a clip of 7 frames"):
        Grid.of((12, 20), 4, frames=7, tubelet=2)
    with pytest.raises(ValueError, match="There is no time 4: this grid has 4"):
        grid.in_frame(4)


def test_a_clip_is_embedded_by_pieces_of_several_frames() -> None:
    """Each patch by itself: a matrix times its pixels, and its position, in the order of the grid."""
    model = randomised(ViT(clip_config()))
    clip = torch.randn(8, 3, 12, 20)
    recorder = Recorder({"embed", "pos"})
    logits = model(clip[None], recorder)
    assert logits.shape == (1, 7) and model.config.input_shape() == clip.shape
    weight, bias = (x.double() for x in (model.patch_embed.proj.weight, model.patch_embed.proj.bias))
    grid = model.config.grid
    for patch in (0, 22, 59):
        t, row, column = grid.place(patch)
        pixels = clip[2 * t : 2 * t + 2, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        expected = torch.einsum("dcfyx,fcyx->d", weight, pixels.double()) + bias
        torch.testing.assert_close(recorder.seen["embed"][None][0, patch], expected.float())
        placed = recorder.seen["pos"][None][0, 1 + patch] - recorder.seen["embed"][None][0, patch]
        torch.testing.assert_close(placed, model.pos_embed[0, 1 + patch])
    torch.testing.assert_close(model(clip[None], Recorder()), model(clip[None]), rtol=1e-5, atol=2e-6)
    assert model(torch.randn(2, 4, 3, 24, 16)).shape == (2, 7)  # other frames, another size
    with pytest.raises(ValueError, match=r"Clips are \(B, F, 3, height, width\), not \(8, 3, 12, 20\)"):
        model(clip)
    with pytest.raises(ValueError, match="2 frames do not divide a clip of 3 frames"):
        model(clip[None, :3])
    for changes, words in (
        (dict(rope="axial"), "know rows and columns, not time"),
        (dict(num_frames=1), "needs a"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(model.config, **changes)


def test_positions_of_a_clip_are_resampled_in_space_and_then_through_time() -> None:
    table = torch.randn(1, 1 + 4 * 3 * 5, 8)
    found = resample_pos_embed(table, (4, 3, 5), (6, 4, 3))
    frames = [resample_pos_embed(table[:, 1 + 15 * t : 16 + 15 * t], (3, 5), (4, 3)) for t in range(4)]
    at = (torch.arange(6) + 0.5) * 4 / 6 - 0.5  # linear between the middles of frames, held at the ends
    expected = []
    for t in at.clamp(0, 3).tolist():
        low = min(int(t), 2)
        expected.append(torch.lerp(frames[low], frames[low + 1], t - low))
    torch.testing.assert_close(found, torch.cat([table[:, :1], *expected], dim=1), rtol=0, atol=1e-5)
    assert torch.equal(resample_pos_embed(table, (4, 3, 5), (4, 3, 5)), table)
    ramp = torch.arange(4.0).repeat_interleave(15).view(1, 60, 1)
    halved = resample_pos_embed(ramp, (4, 3, 5), (2, 3, 5)).view(2, 15)
    torch.testing.assert_close(halved.mean(dim=0), torch.full((15,), 1.5))


def test_sinusoids_of_a_clip_follow_their_formula() -> None:
    table = sincos_pos_embed((2, 3, 5), 12)
    assert table.shape == (1, 30, 12)
    for n, i in ((0, 0), (7, 4), (29, 10)):
        angle = n / 10000 ** (i / 12)
        found = table[0, n, i : i + 2].tolist()
        assert found == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


REFUSED = {
    "num_registers": -1, "num_classes": -1, "mlp_ratio": -1.0, "depth": 0, "num_heads": 2.0,
    "embed_dim": True, "drop_path": 1.0, "dropout": -0.1, "norm_eps": -1.0, 
    "layer_scale": float("nan"), "activation": "relu",
    "image_size": (12,), "patch_size": "4", "class_token": 1, "pool": None,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_a_config_that_cannot_be_built_is_refused_by_the_name_of_its_field(name: str, value) -> None:
    with pytest.raises(ValueError, match=name):
        tiny_config(**{name: value})


def test_the_mlps_width_is_refused_where_it_has_none_or_no_half() -> None:
    with pytest.raises(ValueError, match=r"embed_dim x mlp_ratio = 0, must be at least 1"):
        tiny_config(mlp_ratio=0.001)
    with pytest.raises(ValueError, match=r"= 129, must be even: SwiGLU gates one half with the other"):
        tiny_config(activation="swiglu", mlp_ratio=129 / 32)


anything = st.one_of(st.integers(-2, 5), st.floats(-2, 5), st.sampled_from([None, True, math.nan, math.inf]))
CHANGES = {
    "patch_size": st.integers(0, 6), "in_chans": st.integers(-1, 3), "num_classes": st.integers(-2, 3),
    "embed_dim": st.integers(0, 12), "depth": st.integers(-1, 2), "num_heads": st.integers(0, 4),
    "mlp_ratio": anything, "num_registers": st.integers(-2, 2), "pool": st.sampled_from(["cls", "mean", ""]),
    "pos_embed": st.sampled_from(["learned", "sincos"]), "layer_scale": anything, "norm_eps": anything,
    "activation": st.sampled_from(["gelu", "swiglu"]), "dropout": anything, "drop_path": anything,
}  # fmt: skip
FLAGS = [f.name for f in dataclasses.fields(ViTConfig) if f.type is bool]


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional=CHANGES | dict.fromkeys(FLAGS, st.booleans())))
def test_every_config_is_refused_in_a_sentence_or_its_vit_runs(changes: dict) -> None:
    base = dict(image_size=(8, 12), patch_size=4, num_classes=2, embed_dim=8, depth=2, num_heads=2)
    try:
        config = ViTConfig(**base | changes)
    except ValueError as error:
        assert str(error).endswith(".")
        return
    model = ViT(config).train()
    images = torch.randn(2, config.in_chans, *config.image_size)
    logits = model(images, Recorder())
    assert logits.shape == (2, config.num_classes or config.embed_dim) and logits.isfinite().all()
    torch.testing.assert_close(model.eval()(images, Recorder()), model(images), rtol=1e-4, atol=1e-4)
