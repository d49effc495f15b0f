"""vit/trace.py: a trace is what the forward pass did; edits do what they say; gradients are the true ones."""

import dataclasses
import threading
from copy import deepcopy

import pytest
import torch
from conftest import clip_config, randomised, tiny_config
from torch import Tensor

import vit
from vit import MaskPatches, Recorder, Replace, Trace, ViT, ZeroHeads, trace
from vit.model import HOOK_POINTS
from vit.trace import FreezeTime, attention_at

IMAGE = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(1))


def test_a_trace_is_what_the_fused_forward_pass_did(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE)
    assert (t.tokens.shape, t.attn.shape) == ((4, 16, 32), (3, 4, 16, 16))
    assert (t.grid_size, t.num_prefix_tokens, t.target, t.attn_grad) == ((3, 5), 1, None, None)
    torch.testing.assert_close(t.logits, tiny_vit(IMAGE[None])[0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(tiny_vit.read_out(t.tokens[-1:])[0], t.logits)
    torch.testing.assert_close(t.tokens[0], tiny_vit.embed(IMAGE[None])[0])
    assert torch.equal(t.image, IMAGE)
    for layer, block in enumerate(tiny_vit.blocks):
        torch.testing.assert_close(
            block(t.tokens[layer : layer + 1])[0], t.tokens[layer + 1], rtol=1e-4, atol=1e-5
        )


def test_a_trace_of_a_clip_is_over_time_rows_and_columns() -> None:
    model = randomised(ViT(clip_config()))
    clip = torch.randn(8, 3, 12, 20)
    t = trace(model, clip, target=2)
    assert (t.tokens.shape, t.attn.shape, t.grid_size) == ((4, 61, 32), (3, 4, 61, 61), (4, 3, 5))
    torch.testing.assert_close(t.logits, model(clip[None])[0], rtol=1e-5, atol=2e-6)
    assert t.attn_grad is not None and t.attn_grad.shape == t.attn.shape
    assert t.token_name(1 + 22) == "patch (1, 2) at time 1" and torch.equal(t.image, clip)
    assert trace(model, clip[:6]).grid_size == (3, 3, 5)
    with pytest.raises(ValueError, match=r"One clip is \(F, 3, height, width\), not \(3, 12, 20\)"):
        trace(model, clip[0])


def test_a_hidden_frame_is_one_that_nobody_looks_at() -> None:
    model = randomised(ViT(clip_config()))
    clip = torch.randn(8, 3, 12, 20)
    gone = tuple(model.config.grid.in_frame(2))
    hidden = trace(model, clip, edits=[MaskPatches(gone, 1)])
    assert hidden.attn[..., 1 + 30 : 1 + 45].sum() == 0
    other = clip.clone()
    other[4:6] = torch.randn(2, 3, 12, 20)  # what was in it makes no difference
    torch.testing.assert_close(trace(model, other, edits=[MaskPatches(gone, 1)]).logits, hidden.logits)
    assert not torch.allclose(trace(model, other).logits, trace(model, clip).logits, atol=1e-3)


def test_a_trace_is_frozen_and_holds_plain_float32(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE, target=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        t.target = 3  # type: ignore[misc]
    for x in (t.image, t.tokens, t.attn, t.logits, t.attn_grad):
        assert x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad


def test_keep_and_layers_choose_what_is_kept(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE, layers=[1], keep=("attn", "v", "norm"))
    full = trace(tiny_vit, IMAGE, keep=("attn", "v", "scores"))
    assert torch.equal(t.attn, full.attn[1:2])
    assert torch.equal(t.activations["v"], full.activations["v"][1:2])
    assert t.activations["norm"].shape == (1, 16, 32)
    assert t.tokens.shape == full.tokens.shape
    assert set(full.activations) == {"v", "scores"}
    torch.testing.assert_close(full.activations["scores"].softmax(-1), full.attn)
    assert trace(tiny_vit, IMAGE, keep=()).attn.numel() == 0


def test_a_model_without_a_head_has_no_logits() -> None:
    t = trace(randomised(ViT(tiny_config(num_classes=0))), IMAGE)
    assert t.logits.shape == (0,)


@pytest.mark.parametrize("changes", [{}, dict(pool="mean", num_registers=2, pos_embed_prefix=False)])
def test_attention_gradients_equal_finite_differences(changes: dict) -> None:
    """Central differences in float64: nudge one entry of one layer's attention, watch the logit."""
    model = randomised(ViT(tiny_config(**changes))).double()
    t = trace(model, IMAGE.double(), target=4)
    assert t.attn_grad is not None and t.attn_grad.shape == t.attn.shape
    for layer, head, query, key in [(0, 0, 0, 0), (0, 3, 7, 2), (1, 2, 0, 9), (2, 1, 0, 5), (2, 0, 3, 3)]:
        nudge = torch.zeros(t.attn.shape[1:], dtype=torch.float64)
        nudge[head, query, key] = 1e-5

        def logit(nudge: Tensor, layer: int = layer) -> float:
            def edit(name: str, at: int | None, x: Tensor) -> Tensor:
                return x + nudge if (name, at) == ("attn", layer) else x

            return model(IMAGE.double()[None], edit)[0, 4].item()

        slope = (logit(nudge) - logit(-nudge)) / 2e-5
        assert t.attn_grad[layer, head, query, key].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_gradients_never_touch_the_shared_model_and_never_race() -> None:
    model = randomised(ViT(tiny_config())).requires_grad_(True)  # as a model that is being trained
    before = {name: x.clone() for name, x in model.state_dict().items()}
    images = torch.randn(6, 3, 12, 20)
    wanted = [trace(model, image, target=i).attn_grad for i, image in enumerate(images)]
    wrong: list[int] = []

    def ask(i: int) -> None:
        gradients = [trace(model, images[i], target=i).attn_grad for _ in range(20)]
        wrong.extend(i for gradient in gradients if not torch.allclose(gradient, wanted[i], atol=1e-6))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_switched_off_heads_give_nothing(tiny_vit: ViT) -> None:
    off = ZeroHeads(((1, 0), (1, 2)))
    t = trace(tiny_vit, IMAGE, edits=[off], keep=("attn", "z"))
    plain = trace(tiny_vit, IMAGE, keep=("attn", "z"))
    z = t.activations["z"]
    assert z[1, [0, 2]].abs().max() == 0
    assert z[1, [1, 3]].abs().min() > 0 and z[0].abs().min() > 0
    assert torch.equal(t.tokens[:2], plain.tokens[:2]) and not torch.allclose(t.tokens[2], plain.tokens[2])


def test_all_heads_off_leaves_only_the_projections_bias(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE, edits=[ZeroHeads(tuple((0, h) for h in range(4)))], keep=("attn_out",))
    bias = tiny_vit.blocks[0].attn.proj.bias.expand(16, 32)
    torch.testing.assert_close(t.activations["attn_out"][0], bias)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(pool="mean"),
        dict(class_token=False, pool="mean", norm_after_pool=True),
        dict(num_registers=2, pos_embed_prefix=False),
    ],
    ids=["class token", "mean pool", "no class token", "registers"],
)
def test_masked_patches_do_not_exist_for_the_rest(changes: dict) -> None:
    """The same logits as a model that never had those tokens: they are dropped after the embedding."""
    model = randomised(ViT(tiny_config(**changes)))
    prefix, hidden = model.config.num_prefix_tokens, (0, 7, 14)
    masked = trace(model, IMAGE, edits=[MaskPatches(hidden, prefix)])
    kept = [t for t in range(prefix + 15) if t - prefix not in hidden]
    x = model.embed(IMAGE[None])[:, kept]
    for block in model.blocks:
        x = block(x)
    torch.testing.assert_close(masked.logits, model.read_out(x)[0], rtol=1e-4, atol=1e-5)
    assert masked.attn[..., [prefix + p for p in hidden]].max() == 0


def test_replace_patches_one_activation(tiny_vit: ViT) -> None:
    donor = trace(tiny_vit, torch.randn(3, 12, 20))
    t = trace(tiny_vit, IMAGE, edits=[Replace("resid_post", 2, donor.tokens[3])])
    torch.testing.assert_close(t.logits, donor.logits)


def test_gradients_exist_where_an_edit_put_a_constant(tiny_vit: ViT) -> None:
    uniform = Replace("attn", 1, torch.full((16, 16), 1 / 16))
    t = trace(tiny_vit, IMAGE, target=0, edits=[uniform])
    assert t.attn_grad is not None and t.attn_grad[1].abs().max() > 0 and t.attn_grad[0].abs().max() > 0


@pytest.mark.parametrize("layer", [1, 2])
def test_attention_in_front_of_a_constant_has_no_gradient(tiny_vit: ViT, layer: int) -> None:
    t = trace(tiny_vit, IMAGE, target=0, edits=[Replace("resid_post", layer, torch.zeros(()))])
    assert t.attn_grad is not None and t.attn_grad.shape == (3, 4, 16, 16)
    assert [bool(grad.any()) for grad in t.attn_grad] == [at > layer for at in range(3)]


def test_layers_can_be_counted_from_the_end(tiny_vit: ViT) -> None:
    assert torch.equal(trace(tiny_vit, IMAGE, layers=[-1]).attn, trace(tiny_vit, IMAGE).attn[2:])
    with pytest.raises(ValueError, match="this model has 3"):
        trace(tiny_vit, IMAGE, layers=[3])


def test_one_layer_from_the_stream_is_the_layer_of_the_trace(tiny_vit: ViT) -> None:
    edits = [ZeroHeads(((0, 1),)), MaskPatches((3,), 1)]
    t = trace(tiny_vit, IMAGE, edits=edits)
    for layer in range(3):
        one = attention_at(tiny_vit, t.tokens[layer], layer, edits)
        torch.testing.assert_close(one, t.attn[layer], rtol=0, atol=1e-6)


def test_the_gradient_of_patches_after_the_last_block_is_zero_under_cls_pooling(tiny_vit: ViT) -> None:
    recorder = Recorder({"resid_post"})
    logits = tiny_vit(IMAGE[None].requires_grad_(), recorder)
    (gradient,) = torch.autograd.grad(logits[0, 1], recorder.seen["resid_post"][2])
    assert gradient[0, 1:].abs().max() == 0 and gradient[0, 0].abs().max() > 0


def test_a_bf16_model_is_looked_at_as_it_is_and_its_rows_sum_to_one(tiny_vit: ViT) -> None:
    exact, half = trace(tiny_vit, IMAGE), deepcopy(tiny_vit).bfloat16()
    t = trace(half, IMAGE, edits=(Replace("attn", 1, torch.zeros(())),))
    assert t.attn[1].abs().max() == 0  # an edit's rows are not touched
    t = trace(half, IMAGE)
    torch.testing.assert_close(t.attn.sum(-1), torch.ones(3, 4, 16), rtol=0, atol=1e-6)
    torch.testing.assert_close(t.attn, exact.attn, rtol=0, atol=0.05)
    torch.testing.assert_close(attention_at(half, t.tokens[1], 1), t.attn[1], rtol=0, atol=0.02)


def test_bf16_keeps_rows_that_sum_to_one(tiny_vit: ViT) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        t = trace(tiny_vit, IMAGE)
    assert isinstance(t, Trace)
    torch.testing.assert_close(t.attn.sum(-1), torch.ones(3, 4, 16), rtol=0, atol=1e-6)
    torch.testing.assert_close(t.attn, trace(tiny_vit, IMAGE).attn, rtol=0, atol=0.05)


@pytest.mark.parametrize("target", [-1, 7])
def test_a_target_that_is_no_class_is_refused(tiny_vit: ViT, target: int) -> None:
    with pytest.raises(ValueError, match=f"Class {target} does not exist: this model has 7 classes"):
        trace(tiny_vit, IMAGE, target=target)


def test_the_names_are_what_the_model_shows(tiny_vit: ViT) -> None:
    recorder = Recorder()
    tiny_vit(IMAGE[None], recorder)
    assert tuple(recorder.seen) == tuple(name for name in HOOK_POINTS if not name.startswith("pool_"))
    kept = set(trace(tiny_vit, IMAGE, keep=HOOK_POINTS).activations)
    assert kept == {*HOOK_POINTS} - {"attn", "resid_post", "pool_scores", "pool_attn"}


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: trace(ViT(tiny_config()), IMAGE, keep=("atn", "v")), "shows no 'atn': keep any of embed"),
        (lambda: trace(ViT(tiny_config()), IMAGE, keep="attn"), "shows no 'a', 'n', 't'"),
        (lambda: ZeroHeads(((2, 0), (-1, 1))), "counted from 0"),
        (lambda: ZeroHeads(((0, -1),)), "counted from 0"),
        (lambda: MaskPatches((3, -1), 1), "counted from 0"),
        (lambda: Replace("resid_psot", 2, IMAGE), "shows no 'resid_psot'"),
        (lambda: Replace("resid_post", -1, IMAGE), "counted from 0"),
    ],
)
def test_what_names_nothing_is_one_sentence_and_not_silence(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_without_attention_there_are_no_heads_to_speak_of(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE, keep=())
    assert t.attn.shape == (0, 4, 16, 16)
    for some in (t, trace(tiny_vit, IMAGE, layers=[0, 2])):
        with pytest.raises(ValueError, match="did not keep the attention of all layers"):
            some.all_attn()
    full = trace(tiny_vit, IMAGE)
    assert full.all_attn() is full.attn


def test_the_module_trace_is_the_function_and_keeps_its_names(tiny_vit: ViT) -> None:
    import vit.trace as module

    assert module is vit.trace is trace and module.Recorder is Recorder
    assert torch.equal(vit.trace(tiny_vit, IMAGE).attn, module.trace(tiny_vit, IMAGE).attn)


def test_a_trace_names_its_tokens(tiny_vit: ViT) -> None:
    t = trace(tiny_vit, IMAGE)
    assert [t.token_name(token) for token in (0, 1, 7)] == ["[CLS]", "patch (0, 0)", "patch (1, 1)"]
    assert t.prefix_names == tiny_vit.config.prefix_names and t.grid_size == t.grid.shape


@pytest.mark.parametrize("layer", [-1, 3])
def test_attention_of_a_layer_that_there_is_not(tiny_vit: ViT, layer: int) -> None:
    with pytest.raises(ValueError, match=f"There is no layer {layer}: this model has 3, 0 to 2"):
        attention_at(tiny_vit, torch.zeros(16, 16), layer)


EDITS_THAT_NAME_NOTHING = [
    (
        ZeroHeads(((99, 0),)),
        "There is no head 0 in layer 99 to switch off: this model has 3 layers",
    ),
    (ZeroHeads(((0, 1), (0, 99))), "There is no head 99 in layer 0"),
    (MaskPatches((999,), 1), "There is no patch 999 to hide: this image has 15"),
    (MaskPatches((2,), 0), "This model has 1 tokens in front of its patches, not 0"),
    (Replace("z", 99, torch.zeros(1)), "There is no layer 99 to replace 'z' in: this model has 3"),
    (Replace("z", None, torch.zeros(1)), "'z' is in each block: say which"),
    (Replace("embed", 0, torch.zeros(1)), "'embed' is outside the blocks: its layer is None"),
    (Replace("k", 1, torch.zeros(5, 5, 5)), r"'k' has the shape \(1, 4, 16, 8\): \(5, 5, 5\) cannot take"),
]


@pytest.mark.parametrize(("edit", "sentence"), EDITS_THAT_NAME_NOTHING)
def test_edits_that_name_nothing_are_refused(tiny_vit: ViT, edit, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        trace(tiny_vit, IMAGE, edits=[edit])
    stream = trace(tiny_vit, IMAGE).tokens[1]
    with pytest.raises(ValueError, match=sentence):
        attention_at(tiny_vit, stream, 1, [edit])


GRADIENTS = ("relevance", "gradcam", "input_gradient", "smoothgrad", "integrated_gradients")


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_caller_who_turned_gradients_off_gets_the_same_maps(tiny_vit: ViT, around) -> None:
    from explorer.methods import METHODS

    def maps(image: Tensor) -> list[Tensor]:
        t = trace(tiny_vit, image, target=1)
        return [t.attn_grad, *(METHODS[name](t, model=tiny_vit, target=1) for name in GRADIENTS)]

    expected = maps(IMAGE)
    with around():
        image = IMAGE.clone()  # of inference mode, too
        found = maps(image)
    for mine, theirs in zip(expected, found, strict=True):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(maps(image)[0], expected[0])  # prepared inside, traced outside


def test_a_model_made_in_inference_mode_has_no_gradients_and_that_is_said() -> None:
    with torch.inference_mode():
        model = ViT(tiny_config()).eval()
    assert trace(model, IMAGE).attn.shape == (3, 4, 16, 16)
    with pytest.raises(ValueError, match=r"made inside torch\.inference_mode\(\)"):
        trace(model, IMAGE, target=1)


@pytest.mark.parametrize("what", ["model", "block"])
def test_a_compiled_model_has_no_gradients_inside_and_that_is_said(tiny_vit: ViT, what: str) -> None:
    model = tiny_vit
    if what == "model":
        model = torch.compile(tiny_vit, backend="aot_eager")
    else:
        model.blocks[1].compile(backend="aot_eager")
    with pytest.raises(ValueError, match=r"torch\.compile hides what happens inside"):
        trace(model, IMAGE, target=1)
    with pytest.raises(ValueError, match=r"torch\.compile hides what happens inside"):
        trace(model, IMAGE, target=1, edits=[ZeroHeads(((0, 1),))])


def test_a_gradient_that_is_cut_is_an_error_and_no_map_of_zeros(tiny_vit: ViT) -> None:
    class Cut(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    tiny_vit.norm = Cut()
    with pytest.raises(ValueError, match="something in this model cuts them"):
        trace(tiny_vit, IMAGE, target=1)


@pytest.mark.parametrize(
    "pooled",
    [
        dict(pool="mean"),
        dict(pool="mean", num_registers=2),
        dict(pool="attention"),
        dict(pool="attention", num_registers=2, pool_prefix=False),
    ],
)
def test_one_patch_at_least_is_left_to_an_answer_from_patches(pooled: dict) -> None:
    model = randomised(ViT(tiny_config(class_token=False, **pooled)))
    prefix = model.config.num_prefix_tokens
    assert trace(model, IMAGE, edits=[MaskPatches(range(14), prefix)]).logits.isfinite().all()
    with pytest.raises(ValueError, match="leave at least one of them to see"):
        trace(model, IMAGE, edits=[MaskPatches(range(15), prefix)])


def test_attention_of_a_clip_at_its_own_size_has_its_times() -> None:
    model = randomised(ViT(clip_config()))
    clip = torch.randn(8, 3, 12, 20)
    freeze = FreezeTime(1, 4)
    whole = trace(model, clip, edits=[freeze])
    found = attention_at(model, whole.tokens[1], 1, [freeze])
    torch.testing.assert_close(found, whole.attn[1])
