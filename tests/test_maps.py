"""Maps (explorer/maps.py, probes.py): every method equals a second derivation in float64.

The references are written from the papers' formulas in numpy; they share no line with either.
"""

import dataclasses
import threading
import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from families import FAMILIES
from torch import Tensor

from explorer import maps, methods, probes
from explorer.maps import (
    attention,
    attention_gradcam,
    attention_gradient,
    flow,
    gradient_rollout,
    relevance,
    rollout,
    rollout_all,
    value_weighted,
)
from explorer.methods import COMMON, METHODS, Method
from explorer.probes import integrate, per_patch
from vit import MaskPatches, Trace, ViT, trace
from vit.grid import Grid

ROOT = Path(__file__).resolve().parent.parent
L, H, h, w = 5, 4, 3, 7
PREFIXES = (3, 1, 0)
CLOSE = dict(rtol=1e-5, atol=1e-6)
CLASS_BLIND = {"attention", "attention_all_layers", "value_weighted", "rollout", "flow", "pooling_attention"}


def random_trace(prefix: int, seed: int = 0, depth: int = L, grid: tuple[int, int] = (h, w)) -> Trace:
    """Made by hand: attention with sharp and flat rows, gradients of both signs."""
    g = torch.Generator().manual_seed(seed)
    T = prefix + grid[0] * grid[1]
    return Trace(
        image=torch.randn(3, 4 * grid[0], 4 * grid[1], generator=g),
        tokens=torch.randn(depth + 1, T, 8, generator=g),
        attn=(3 * torch.randn(depth, H, T, T, generator=g)).softmax(dim=-1),
        logits=torch.randn(7, generator=g),
        grid=Grid(grid),
        prefix_names=("[CLS]", "[REG1]", "[REG2]")[:prefix],
        target=2,
        attn_grad=torch.randn(depth, H, T, T, generator=g),
    )


def with_attention(t: Trace, attn: Tensor) -> Trace:
    return dataclasses.replace(t, attn=attn)


def rows_read(t: Trace, query: int | None) -> list[int]:
    """[CLS], or every patch where there is none: written again, not imported."""
    if query is not None:
        return [query]
    return [0] if t.num_prefix_tokens else list(range(h * w))


def cut(t: Trace, matrix: np.ndarray, query: int | None) -> np.ndarray:
    """Rows of a T x T matrix -> their mean over the patches, as a grid."""
    rows = [matrix[row, t.num_prefix_tokens :] for row in rows_read(t, query)]
    return np.mean(rows, axis=0).reshape(t.grid_size)


def numbers(t: Trace) -> tuple[np.ndarray, np.ndarray, int]:
    assert t.attn_grad is not None
    return t.attn.double().numpy(), t.attn_grad.double().numpy(), t.attn.shape[-1]


def same(map: Tensor, reference: np.ndarray, atol: float = 1e-6) -> None:
    assert map.shape == (h, w) and map.dtype == torch.float32 and not map.requires_grad
    np.testing.assert_allclose(map.numpy(), reference, rtol=1e-5, atol=atol)


prefixes = pytest.mark.parametrize("prefix", PREFIXES)
queries = pytest.mark.parametrize("query", [None, 0, 11])


# ---- closed forms against numpy --------------------------------------------------------------------


@prefixes
@queries
@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
def test_attention_is_the_row_of_the_query(prefix: int, query: int | None, fuse: str) -> None:
    t = random_trace(prefix)
    A, _, _ = numbers(t)
    pick = {"mean": np.mean, "max": np.max, "min": np.min}[fuse]
    same(attention(t, query=query, layer=3, fuse=fuse), cut(t, pick(A[3], axis=0), query))
    same(attention(t, query=query, layer=-2, head=1), cut(t, A[3, 1], query))
    everywhere = np.mean([pick(A[layer], axis=0) for layer in range(L)], axis=0)
    same(METHODS["attention_all_layers"](t, query=query, fuse=fuse), cut(t, everywhere, query))


def rollout_by_hand(t: Trace, fuse: str, residual: float, discard: float, depth: int = L) -> np.ndarray:
    A, _, T = numbers(t)
    P, rolled = t.num_prefix_tokens, np.eye(T)
    for layer in range(depth):
        step = np.zeros((T, T))
        for i in range(T):
            row = np.array([getattr(np, fuse)(A[layer, :, i, j]) for j in range(T)])
            weakest = sorted(range(P, T), key=lambda j: row[j])[: int(discard * (T - P))]
            row[weakest] = 0
            step[i] = (1 - residual) * row / row.sum()
            step[i, i] += residual
        rolled = np.einsum("ij,jk->ik", step, rolled)  # later layers on the left
    return rolled


@prefixes
@queries
@pytest.mark.parametrize(
    ("fuse", "residual", "discard"),
    [("mean", 0.5, 0.0), ("max", 0.5, 0.0), ("min", 0.3, 0.0), ("mean", 0.5, 0.9), ("max", 0.2, 0.5)],
)
def test_rollout_equals_the_paper(
    prefix: int, query: int | None, fuse: str, residual: float, discard: float
) -> None:
    t = random_trace(prefix)
    options = dict(fuse=fuse, residual=residual, discard=discard)
    reference = rollout_by_hand(t, **options)
    same(rollout(t, query=query, **options), cut(t, reference, query))
    np.testing.assert_allclose(rollout_all(t, **options)[-1].numpy(), reference, **CLOSE)


@prefixes
def test_rollout_at_every_depth_at_once(prefix: int) -> None:
    t = random_trace(prefix)
    rolled = rollout_all(t)
    assert rolled.shape == (L + 1, prefix + h * w, prefix + h * w)
    for depth in range(L + 1):
        reference = rollout_by_hand(t, "mean", 0.5, 0.0, depth)
        np.testing.assert_allclose(rolled[depth].numpy(), reference, **CLOSE)
    same(rollout(t, layer=1), cut(t, rolled[2].double().numpy(), None))


@prefixes
@queries
def test_attention_gradient_and_its_gradcam_equal_loops(prefix: int, query: int | None) -> None:
    t = random_trace(prefix)
    A, G, T = numbers(t)
    fused = np.zeros((T, T))
    for head in range(H):
        fused += np.maximum(A[4, head] * G[4, head], 0) / H
    same(attention_gradient(t, query=query), cut(t, fused, query))
    same(attention_gradient(t, query=query, head=2), cut(t, np.maximum(A[4, 2] * G[4, 2], 0), query))

    total = np.zeros(h * w)
    for row in rows_read(t, query):
        mixed = np.zeros(h * w)
        for head in range(H):
            mixed += G[4, head, row, prefix:].mean() * A[4, head, row, prefix:]
        total += np.maximum(mixed, 0) / len(rows_read(t, query))
    same(attention_gradcam(t, query=query), total.reshape(h, w))


@prefixes
@queries
def test_gradient_rollout_takes_layers_in_their_order(prefix: int, query: int | None) -> None:
    t = random_trace(prefix)
    A, G, T = numbers(t)
    rolled, reversed_gradients, never_moved = np.eye(T), np.eye(T), np.ones(T)
    for layer in range(L):
        for which, result in ((layer, "right"), (L - 1 - layer, "reversed")):
            step = np.maximum((A[layer] * G[which]).mean(axis=0), 0) + np.eye(T)
            sums = step.sum(axis=1, keepdims=True)
            step /= sums
            if result == "right":
                rolled = step @ rolled
                never_moved /= sums[:, 0]  # I's share of the diagonal, through all layers
            else:
                reversed_gradients = step @ reversed_gradients
    map = gradient_rollout(t, query=query)
    same(map, cut(t, rolled if query is not None else rolled - np.diag(never_moved), query))
    assert not np.allclose(map.numpy(), cut(t, reversed_gradients, query), rtol=1e-3, atol=1e-4)


@prefixes
@queries
def test_relevance_equals_the_paper(prefix: int, query: int | None) -> None:
    t = random_trace(prefix)
    A, G, T = numbers(t)
    R = np.eye(T)
    for layer in range(L):
        lift = np.zeros((T, T))
        for head in range(H):
            lift += np.maximum(A[layer, head] * G[layer, head], 0) / H  # clamp, then mean
        R = R + np.einsum("ij,jk->ik", lift, R)  # no row is normalised
    map = relevance(t, query=query)
    same(map, cut(t, R if query is not None else R - np.eye(T), query))
    assert (map >= 0).all()


@pytest.mark.parametrize("method", [relevance, gradient_rollout])
def test_under_mean_pooling_a_map_does_not_sit_on_a_constant(method) -> None:
    """One patch that alone is looked at, with gradients as small as they are: all others stay at zero."""
    t = random_trace(0)
    looked = torch.zeros_like(t.attn)
    looked[..., 8] = 1
    faint = dataclasses.replace(t, attn=looked, attn_grad=torch.full_like(t.attn, 1e-4))
    map = method(faint).flatten()
    assert map.argmax() == 8 and map[8] > 1e-4 and map.sum() - map[8] < 1e-9


@pytest.mark.parametrize("prefix", [1, 0])
@pytest.mark.parametrize("query", [None, 4])
def test_flow_equals_networkx(prefix: int, query: int | None) -> None:
    grid = (2, 3)
    t = random_trace(prefix, depth=3, grid=grid)
    T = prefix + 6
    graph = nx.DiGraph()
    for layer in range(3):
        for i in range(T):
            for j in range(T):
                width = 0.5 * float(t.attn[layer, :, i, j].double().mean()) + 0.5 * (i == j)
                graph.add_edge((layer + 1, i), (layer, j), capacity=width)
    rows = [query] if query is not None else [0] if prefix else range(6)
    for row in rows:
        graph.add_edge("source", (3, row), capacity=1 / len(rows))
    reference = [nx.maximum_flow_value(graph, "source", (0, prefix + j)) for j in range(6)]
    heard = []
    map = flow(t, query=query, progress=lambda done, total: heard.append((done, total)))
    np.testing.assert_allclose(map.numpy().ravel(), reference, **CLOSE)
    assert heard == [(n, 6) for n in range(1, 7)]


def test_flow_is_bounded_with_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"bounded to 260 tokens; this image has 401: take rollout"):
        flow(random_trace(1, depth=1, grid=(20, 20)))


# ---- what needs the model, against loops over its parts --------------------------------------------

families = pytest.mark.parametrize("family", FAMILIES)


def model_and_trace(family: str, target: int | None = 2, seed: int = 0) -> tuple[ViT, Trace]:
    torch.manual_seed(seed)
    shape = dict(image_size=(12, 28), depth=L, num_heads=H)
    model = randomised(ViT(tiny_config(**shape, **FAMILIES[family])))
    return model, trace(model, torch.randn(3, 12, 28), target=target)


def logit(model: ViT, image: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(image[None])[0, target])


def pooled(model: ViT, t: Trace) -> list[int]:
    if model.config.pool == "mean" or not model.config.pool_prefix:
        return list(range(t.num_prefix_tokens, t.num_prefix_tokens + h * w))
    if model.config.pool == "attention":
        return list(range(t.tokens.shape[1]))
    return list(range(model.config.num_class_tokens + model.config.distillation))


@families
def test_value_weighted_is_the_length_of_what_is_sent(family: str) -> None:
    model, t = model_and_trace(family)
    layer, d = 3, model.config.head_dim
    block = model.blocks[layer]
    x = t.tokens[layer] if model.config.post_norm else block.norm1(t.tokens[layer])
    v = block.attn.qkv(x)[:, 2 * H * d :].double().numpy()  # (T, H·d)
    W = block.attn.proj.weight.double().numpy()  # (D, H·d)
    gain = block.ls1.gamma.double().numpy() if model.config.layer_scale else np.ones(H * d)
    A, _, T = numbers(t)
    reference = np.zeros(T)
    for row in pooled(model, t):
        for j in range(T):
            sent = np.zeros(H * d)
            for head in range(H):
                part = slice(head * d, (head + 1) * d)
                sent += A[layer, head, row, j] * gain * (W[:, part] @ v[j, part])
            reference[j] += np.linalg.norm(sent) / len(pooled(model, t))
    same(value_weighted(t, layer=layer, model=model), reference[t.num_prefix_tokens :].reshape(h, w))
    one_head = value_weighted(t, layer=layer, head=0, model=model)
    assert not torch.allclose(one_head, value_weighted(t, layer=layer, head=1, model=model))


@pytest.mark.parametrize("fuse, by", [("mean", np.mean), ("max", np.max), ("min", np.min)])
@families
def test_pooling_attention_is_what_the_pool_reads_or_refused(family: str, fuse: str, by) -> None:
    """By the softmax of the paper's formula in float64, from the normed stream after the last layer."""
    model, t = model_and_trace(family)
    row, config = METHODS["pooling_attention"], model.config
    if config.pool != "attention":
        assert "this one reads" in row.refusal(config, t.tokens.shape[1])
        with pytest.raises(ValueError, match="does not pool by attention"):
            row(t)
        return
    assert row.refusal(config, t.tokens.shape[1]) == ""
    model.double()
    pool, x = model.attn_pool, model.norm(t.tokens[-1].double())
    d = config.embed_dim // pool.num_heads
    q, k = pool.q(pool.latent)[0, 0].numpy(), pool.kv(x)[:, : config.embed_dim].numpy()
    found = []
    for head in range(pool.num_heads):
        part = slice(head * d, (head + 1) * d)
        weights = np.exp(k[:, part] @ q[part] / np.sqrt(d))
        weights[: 0 if config.pool_prefix else t.num_prefix_tokens] = 0
        found.append(weights / weights.sum())
    same(row(t, fuse=fuse), by(found, axis=0)[t.num_prefix_tokens :].reshape(h, w))


@families
def test_input_gradient_is_a_directional_derivative(family: str) -> None:
    """Stretching one embedded patch by 1 + ε changes the logit by ε · map_j: differences in float64."""
    model, t = model_and_trace(family)
    map = METHODS["input_gradient"](t, model=model).flatten()
    model, epsilon = model.double(), 1e-5
    for patch in (0, 9, 20):
        sides = []
        for sign in (1, -1):
            x = t.tokens[:1].double()
            x[0, t.num_prefix_tokens + patch] *= 1 + sign * epsilon
            x = model.run(x, places=model.places(t.grid))
            sides.append(float(model.read_out(x)[0, 2]))
        assert (sides[0] - sides[1]) / (2 * epsilon) == pytest.approx(float(map[patch]), rel=1e-3, abs=1e-5)


@families
def test_gradcam_weighs_channels_by_their_gradient(family: str) -> None:
    """F is moved along each channel of all patches at once: the slope is Σ_j ∂y/∂F[j, d], P times α_d."""
    model, t = model_and_trace(family)
    map = METHODS["gradcam"](t, model=model)
    model.double()
    block, prefix, epsilon = model.blocks[-1], t.num_prefix_tokens, 1e-5
    stream = t.tokens[L - 1 : L].double()
    F = stream if model.config.post_norm else block.norm1(stream)
    places = model.places(t.grid)

    def answer(read: Tensor) -> float:
        if model.config.post_norm:
            return float(model.read_out(block(read))[0, 2])
        mid = stream + block.ls1(
            block.attn(read, turn=model.turn(L - 1, places), bias=model.bias(L - 1, places))
        )
        return float(model.read_out(mid + block.ls2(block.mlp(block.norm2(mid))))[0, 2])

    alpha = []
    for channel in range(F.shape[-1]):
        step = torch.zeros_like(F)
        step[0, prefix:, channel] = epsilon
        alpha.append((answer(F + step) - answer(F - step)) / (2 * epsilon) / (h * w))
    reference = np.maximum(F[0, prefix:].numpy() @ np.array(alpha), 0).reshape(h, w)
    assert map.shape == (h, w)
    np.testing.assert_allclose(map.numpy(), reference, rtol=1e-3, atol=1e-6)


@families
def test_occlusion_is_the_loss_of_the_logit(family: str) -> None:
    model, t = model_and_trace(family)
    reference = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            painted = t.image.clone()
            painted[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 0  # the mean colour, after normalisation
            reference[i, j] = logit(model, t.image, 2) - logit(model, painted, 2)
    same(METHODS["occlusion"](t, model=model), reference, atol=1e-5)


@families
def test_knockout_equals_the_mask_patches_edit(family: str) -> None:
    model, t = model_and_trace(family)
    reference = np.zeros(h * w)
    for patch in range(h * w):
        hidden = trace(model, t.image, edits=[MaskPatches((patch,), t.num_prefix_tokens)], keep=())
        reference[patch] = float(t.logits[2] - hidden.logits[2])
    same(METHODS["knockout"](t, model=model), reference.reshape(h, w), atol=1e-5)  # float32 logits


@pytest.mark.parametrize("family", ["cls", "mean pool, no prefix"])
def test_integrated_gradients_equal_a_loop_and_are_complete(family: str) -> None:
    model, t = model_and_trace(family)
    steps, gradient = 8, torch.zeros_like(t.image)
    for step in range(steps):
        x = (t.image * (step + 0.5) / steps).requires_grad_()
        gradient += torch.autograd.grad(model(x[None])[0, 2], x)[0] / steps
    pixels = (t.image * gradient).double().numpy()
    reference = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            reference[i, j] = pixels[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].sum()
    same(METHODS["integrated_gradients"](t, model=model, steps=steps), reference)

    change = logit(model, t.image, 2) - logit(model, torch.zeros_like(t.image), 2)
    gaps = []
    for steps in (2, 64):
        done = integrate(t, model=model, steps=steps)
        assert float(done.map.sum()) - change == pytest.approx(done.gap, abs=1e-5)
        gaps.append(abs(done.gap))
    assert gaps[1] < 2e-3 * abs(change) and gaps[1] < gaps[0]


def test_smoothgrad_equals_captums_on_the_same_noise() -> None:
    """Captum draws from the global generator, which other threads share; ours does not, but agrees."""
    from captum.attr import NoiseTunnel, Saliency

    model, t = model_and_trace("registers")
    map = METHODS["smoothgrad"](t, model=model, samples=6, noise=0.1, seed=5)
    torch.manual_seed(5)
    sigma = 0.1 * float(t.image.max() - t.image.min())
    pixels = NoiseTunnel(Saliency(model)).attribute(
        t.image[None].clone().requires_grad_(), nt_type="smoothgrad", nt_samples=6, stdevs=sigma,
        target=2, abs=False,
    )  # fmt: skip
    torch.testing.assert_close(map, per_patch(pixels.detach().abs(), t), rtol=1e-4, atol=1e-5)
    torch.manual_seed(99)
    assert torch.equal(map, METHODS["smoothgrad"](t, model=model, samples=6, noise=0.1, seed=5))
    with pytest.raises(ValueError, match="at least one sample, not 0"):
        METHODS["smoothgrad"](t, model=model, samples=0)
    assert METHODS["smoothgrad"](t, model=model, samples=1).isfinite().all()


@pytest.mark.parametrize("name", ["smoothgrad", "integrated_gradients"])
def test_gradients_of_many_images_are_taken_for_a_few_at_once(name: str, monkeypatch) -> None:
    model, t = model_and_trace("cls")
    whole, sizes = METHODS[name](t, model=model), []
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    of_one = 4 * L * 22 * (8 * 32 + 2 * 128)
    for bound, most in ((3 * of_one, 3), (1, 1)):
        sizes.clear()
        monkeypatch.setattr(probes, "GRAPH_BYTES", bound)
        torch.testing.assert_close(METHODS[name](t, model=model), whole, rtol=1e-3, atol=1e-5)
        assert max(sizes) == most and sum(sizes) >= 24


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.needs_model])
def test_a_method_costs_the_passes_that_its_row_says(name: str) -> None:
    """Of a forward, counted by what its first block is given; what autograd does besides counts as two."""
    model, t = model_and_trace("cls")
    seen: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    METHODS[name](t, model=model)
    said, patches = METHODS[name], h * w
    forwards = said.forwards + said.forwards_per_patch * patches
    assert forwards <= sum(seen) <= forwards + 2
    assert said.is_long == (forwards > 0)


def test_pixels_are_summed_over_the_models_own_patches() -> None:
    t = random_trace(1)
    pixels = torch.zeros(1, 3, 12, 28)
    pixels[0, :, 4:8, 8:12] = 1
    expected = torch.zeros(h, w)
    expected[1, 2] = 3 * 4 * 4
    torch.testing.assert_close(per_patch(pixels, t), expected)


# ---- properties ------------------------------------------------------------------------------------


@prefixes
def test_rollout_of_identity_attention_is_the_identity(prefix: int) -> None:
    t = random_trace(prefix)
    T = prefix + h * w
    alone = with_attention(t, torch.eye(T).expand(L, H, T, T))
    torch.testing.assert_close(rollout_all(alone), torch.eye(T).expand(L + 1, T, T))
    map = rollout(alone, query=prefix + 8)
    assert map.argmax() == 8 and map.sum() == 1


@prefixes
@pytest.mark.parametrize("name", ["attention", "attention_all_layers", "rollout", "flow"])
def test_uniform_attention_gives_a_uniform_map(prefix: int, name: str) -> None:
    t = random_trace(prefix)
    T = prefix + h * w
    map = METHODS[name](with_attention(t, torch.full((L, H, T, T), 1 / T)))
    torch.testing.assert_close(map, torch.full((h, w), float(map[0, 0])))
    assert map[0, 0] > 0


@prefixes
@pytest.mark.parametrize("options", [{}, {"fuse": "max"}, {"fuse": "min"}, {"discard": 0.9}])
def test_rollout_rows_sum_to_1(prefix: int, options: dict) -> None:
    sums = rollout_all(random_trace(prefix), **options).sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


def test_half_precision_attention_does_not_drift_with_depth() -> None:
    t = random_trace(1, depth=24)
    rough = with_attention(t, t.attn.bfloat16().float() * 0.99)  # rows that sum to a little less than 1
    torch.testing.assert_close(rollout_all(rough).sum(dim=-1), torch.ones(25, 1 + h * w), rtol=0, atol=1e-5)


def test_discarding_keeps_prefix_columns_and_never_empties_a_row() -> None:
    T, prefix = 3 + h * w, 3
    attn = torch.full((1, H, T, T), 0.0)
    attn[..., :prefix] = 0.3  # prefix keys hold what patches do not
    attn[..., prefix:] = 0.1 / (h * w)
    t = with_attention(random_trace(prefix, depth=1), attn)
    step = rollout_all(t, residual=0.0, discard=0.9)[1]
    kept = h * w - int(0.9 * h * w)
    assert ((step > 0).sum(dim=-1) == prefix + kept).all()
    assert (step[:, :prefix] > 0.3).all()


def test_min_fusion_of_heads_that_share_nothing_leaves_tokens_where_they_are() -> None:
    T = 1 + h * w
    heads = torch.stack([torch.eye(T).roll(shift, dims=1) for shift in range(H)])
    t = with_attention(random_trace(1, depth=1), heads[None])
    torch.testing.assert_close(rollout_all(t, fuse="min")[1], torch.eye(T))


@families
@pytest.mark.parametrize("name", METHODS)
def test_only_class_specific_methods_answer_differently_for_two_classes(family: str, name: str) -> None:
    model, first = model_and_trace(family, target=2)
    second = trace(model, first.image, target=5)
    if METHODS[name].refusal(model.config, first.tokens.shape[1]):
        with pytest.raises(ValueError, match=r"only adds|linear|pool by attention"):
            METHODS[name](first, model=model)
        return
    maps = [METHODS[name](t, model=model) for t in (first, second)]
    assert all(map.shape == (h, w) and map.isfinite().all() for map in maps)
    assert not any(map.requires_grad for map in maps)
    if all((map == 0).all() for map in maps):  # clamped at zero everywhere: both classes push away
        others = [trace(model, first.image, target=k) for k in range(7)]
        maps = sorted((METHODS[name](t, model=model) for t in others), key=lambda map: map.max().item())[-2:]
        assert maps[-1].max() > 0, "dark for every class"
    assert torch.equal(*maps) == (name in CLASS_BLIND)
    assert METHODS[name].class_specific == (name not in CLASS_BLIND)
    if not METHODS[name].signed:
        assert all((map >= 0).all() for map in maps)


def test_gradient_of_patches_after_the_last_block_is_zero_under_cls_pooling() -> None:
    for family, zero in (("cls", True), ("registers", True), ("mean pool, no prefix", False)):
        model, t = model_and_trace(family)
        last = t.tokens[-1:].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.read_out(last)[0, 2], last)
        assert bool((gradient[0, t.num_prefix_tokens :] == 0).all()) == zero
    model, _ = model_and_trace("cls")
    alive = [
        METHODS["gradcam"](trace(model, torch.randn(3, 12, 28), target=k), model=model) for k in range(7)
    ]
    assert sum(float(map.sum()) for map in alive) > 0  # where Grad-CAM reads, its gradient is alive


def test_the_read_out_rows_come_from_the_model_where_the_trace_cannot_tell() -> None:
    """A [CLS] token that nobody reads: the mean pool's rows are the patches."""
    model, t = model_and_trace("mean pool, fc_norm")
    torch.testing.assert_close(attention(t, model=model), attention(t, query=range(1, 1 + h * w)))
    assert not torch.allclose(attention(t), attention(t, model=model))
    model, t = model_and_trace("distilled")
    torch.testing.assert_close(rollout(t, model=model), rollout(t, query=[0, 1]))


# ---- one table, kind errors, many threads ----------------------------------------------------------


def test_every_row_says_what_it_is() -> None:
    assert {"attention", "rollout", "gradient_rollout", "relevance"} <= set(METHODS)
    for name, method in METHODS.items():
        assert method.name == name and method.function.__doc__
        assert "Cost:" in method.function.__doc__
        texts = (method.label, method.about, method.formula, method.source, method.cost, method.trap)
        for text in (*texts, method.url):
            assert text and "\n" not in text
        assert method.needs_model <= ("model" in method.options)
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


def test_the_docs_are_what_the_command_prints() -> None:
    """Printed from the rows: `python -m explorer.methods docs/methods.md` would change nothing."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert methods.page_with_table(page) == page, "run: python -m explorer.methods docs/methods.md"
    assert all(f"| `{name}` |" in page and method.trap in page for name, method in METHODS.items())
    with pytest.raises(ValueError, match="needs the lines <!-- methods --> and"):
        methods.page_with_table("# Methods")


def test_the_table_has_a_public_name_of_its_own() -> None:
    assert maps.METHODS is METHODS and maps.Method is methods.Method
    with pytest.raises(AttributeError, match="no attribute 'METHOD'"):
        _ = maps.METHOD


def test_refusals_and_costs_are_read_from_the_row() -> None:
    row = dataclasses.replace(
        METHODS["rollout"], max_tokens=9, additive_stream=True, cost="P looks", forwards=2
    )
    assert row.refusal(tiny_config(), 9) == ""
    assert row.refusal(tiny_config(), 10).endswith("is made for up to 9 tokens, and this picture has 10.")
    assert "only adds" in row.refusal(tiny_config(post_norm=True), 9)
    pooled = tiny_config(pool="attention", pool_mlp=False)
    assert row.refusal(pooled, 9).endswith("linear read-out: this model pools by attention.")
    row = dataclasses.replace(row, min_patches=2)
    assert row.refusal(tiny_config(), 3) == ""
    assert row.refusal(tiny_config(), 2).endswith("needs at least 2 patches, and this picture has 1.")
    assert row.cost_for(15) == "15 looks" and row.passes_for(15) == 2
    assert METHODS["knockout"].passes_for(15) == 15


def usable(model: ViT) -> list[Method]:
    """Those that a small model of this kind can have."""
    found = [method for method in METHODS.values() if not method.refusal(model.config, 16)]
    assert len(found) > len(METHODS) - 3
    return found


def test_every_method_takes_the_common_options_and_no_unknown_ones() -> None:
    model, t = model_and_trace("cls")
    common = dict.fromkeys(COMMON - {"layer"}) | {"model": model}
    for method in usable(model):
        layer = method.default("layer") if "layer" in method.options else -1
        torch.testing.assert_close(method(t, **common, layer=layer), method(t, model=model))
        with pytest.raises(TypeError, match="colour"):
            method(t, model=model, colour="red")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("occlusion", {}, "Occlusion runs the model again: pass model="),
        ("attention", {"layer": 5}, "no layer 5: this model has 5, 0 to 4"),
        ("attention", {"head": 4}, "no head 4: each layer has 4, 0 to 3"),
        ("rollout", {"query": 22}, "no token 22: this image has 22, 0 to 21"),
        ("rollout", {"fuse": "median"}, "mean, max, min, not by 'median'"),
        ("relevance", {"target": 3}, "gradients of class 2, not of class 3"),
        ("gradcam", {"target": 99, "model": ViT(tiny_config())}, "no class 99: this model has 7, 0 to 6"),
        ("knockout", {"target": -1, "model": ViT(tiny_config())}, "no class -1: this model has 7"),
        ("logit_ledger", {"target": 7, "model": ViT(tiny_config())}, "no class 7: this model has 7"),
    ],
)
def test_wrong_options_are_one_sentence(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        METHODS[name](random_trace(1), **options)


def test_missing_parts_of_a_trace_are_one_sentence() -> None:
    model, t = model_and_trace("cls", target=None)
    for name, method in METHODS.items():
        if method.needs_grad:
            with pytest.raises(ValueError, match=r"explains a class: trace\(model, image, target="):
                METHODS[name](t, model=model)
    some_layers = trace(model, t.image, layers=[1])
    for name in ("attention", "rollout", "flow", "value_weighted"):
        with pytest.raises(ValueError, match="did not keep the attention of all layers"):
            METHODS[name](some_layers, model=model)
    features = randomised(ViT(tiny_config(num_classes=0)))
    for name in ("occlusion", "knockout", "integrated_gradients", "gradcam", "logit_ledger"):
        with pytest.raises(ValueError, match="no classification head"):
            METHODS[name](trace(features, torch.randn(3, 12, 20)), model=features)


def test_target_defaults_to_the_traces_then_to_the_answer() -> None:
    model, t = model_and_trace("cls", target=None)
    answer = int(t.logits.argmax())
    knockout = METHODS["knockout"]
    assert torch.equal(knockout(t, model=model), knockout(t, model=model, target=answer))
    other = trace(model, t.image, target=(answer + 1) % 7)
    assert torch.equal(knockout(other, model=model), knockout(t, model=model, target=(answer + 1) % 7))


def test_progress_rises_to_its_total() -> None:
    model, t = model_and_trace("cls")
    for name, method in METHODS.items():
        if "progress" not in method.options:
            continue
        heard: list[tuple[int, int]] = []
        METHODS[name](t, model=model, progress=lambda done, total, heard=heard: heard.append((done, total)))
        done, totals = zip(*heard)
        assert list(done) == sorted(done) and done[-1] == totals[-1] and len(set(totals)) == 1


def test_threads_that_share_a_model_get_their_own_answers_and_leave_it_alone() -> None:
    """Different classes of different images, parameters that do require gradients, all methods at once."""
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(depth=2))).requires_grad_(True)
    work = [(torch.randn(3, 12, 20), target) for target in range(6)]

    def everything(image: Tensor, target: int) -> dict[str, Tensor]:
        t = trace(model, image, target=target)
        return {method.name: method(t, model=model) for method in usable(model)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = [everything(*job) for job in work]
        together: list[dict[str, Tensor]] = [{} for _ in work]

        def visitor(at: int) -> None:
            for _ in range(3):
                together[at] = everything(*work[at])

        threads = [threading.Thread(target=visitor, args=(at,)) for at in range(len(work))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for mine, ours in zip(alone, together):
        assert ours.keys() == mine.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], mine[name], rtol=1e-5, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(work[0][0], trace(model, work[0][0]).image)


def test_a_map_never_changes_its_trace() -> None:
    model, t = model_and_trace("registers")
    assert t.attn_grad is not None
    before = [x.clone() for x in (t.image, t.tokens, t.attn, t.attn_grad, t.logits)]
    for method in usable(model):
        method(t, model=model)
    for old, new in zip(before, (t.image, t.tokens, t.attn, t.attn_grad, t.logits)):
        assert torch.equal(old, new) and not new.requires_grad


@pytest.mark.parametrize("method", [rollout, maps.flow])
def test_tokens_can_be_counted_from_the_end_and_named_twice(method) -> None:
    t = random_trace(1)
    last = 1 + h * w - 1
    torch.testing.assert_close(method(t, query=-1), method(t, query=last))
    torch.testing.assert_close(method(t, query=[3, 3]), method(t, query=3))


@pytest.mark.parametrize("query", [3, np.int64(3), torch.tensor(3), [3], (np.int64(3),), torch.tensor([3])])
def test_a_query_is_any_whole_number_or_several(tiny_vit: ViT, query) -> None:
    found = trace(tiny_vit, torch.randn(3, 12, 20))
    assert torch.equal(maps.attention(found, query=query), maps.attention(found, query=[3]))
    for half in (3.5, [3.5]):
        with pytest.raises(TypeError, match="float"):
            maps.attention(found, query=half)


def test_a_gradient_belongs_to_its_layer() -> None:
    found = random_trace(1)
    cut = dataclasses.replace(
        found, attn=found.attn[:2], attn_grad=found.attn_grad[:2], tokens=found.tokens[:3]
    )
    for method in (attention_gradient, attention_gradcam):
        assert torch.equal(method(found, layer=1), method(cut))


def test_gradcam_of_a_layer_follows_what_that_layer_reads() -> None:
    model, found = model_and_trace("cls")
    stream, block = found.tokens[1:2], model.blocks[1]
    read = block.norm1(stream).detach().requires_grad_()
    middle = stream + block.attn(read)
    (grad,) = torch.autograd.grad(
        model.read_out(model.run(middle + block.mlp(block.norm2(middle)), 2))[0, 2], read
    )
    expected = (read[0, 1:] @ grad[0, 1:].mean(dim=0)).clamp(min=0).unflatten(0, found.grid_size)
    torch.testing.assert_close(probes.gradcam(found, layer=1, model=model), expected.detach())


def test_values_are_weighed_by_the_row_of_the_query() -> None:
    model, found = model_and_trace("cls")
    one, other = (maps.value_weighted(found, query=query, model=model) for query in (3, 9))
    assert not torch.allclose(one, other)
