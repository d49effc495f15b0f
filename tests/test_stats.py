"""explorer/stats.py: each figure equals loops in float64, and the self-check notices what is wrong."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import randomised, tiny_config
from families import FAMILIES
from torch import Tensor

from explorer import stats
from vit import Trace, ViT, ViTConfig, ZeroHeads, trace
from vit.grid import Grid
from vit.positions import resample_pos_embed

L, H, h, w = 5, 4, 3, 7


def random_trace(prefix: int) -> Trace:
    T = prefix + h * w
    return Trace(
        image=torch.randn(3, 8 * h, 8 * w),
        tokens=torch.randn(L + 1, T, 12) * torch.arange(1, L + 2)[:, None, None],
        attn=(2 * torch.randn(L, H, T, T)).softmax(dim=-1),
        logits=torch.randn(7),
        grid=Grid((h, w)),
        prefix_names=("[CLS]", "[REG1]", "[REG2]")[:prefix],
    )


def real(**changes) -> tuple[ViT, Trace]:
    model = randomised(ViT(tiny_config(**changes)))
    return model, trace(model, torch.randn(3, 12, 20))


prefixes = pytest.mark.parametrize("prefix", [3, 1, 0])


# ---- heads -----------------------------------------------------------------------------------------


@prefixes
def test_attention_distance_is_in_pixels_and_forgets_prefix_keys(prefix: int) -> None:
    t = random_trace(prefix)
    A = t.attn.double().numpy()
    reference = np.zeros((L, H))
    for layer in range(L):
        for head in range(H):
            for i in range(h * w):
                row = A[layer, head, prefix + i, prefix:]
                far = [8 * math.dist(divmod(i, w), divmod(j, w)) for j in range(h * w)]
                reference[layer, head] += (row @ far) / row.sum() / (h * w)
    np.testing.assert_allclose(stats.attention_distance(t).numpy(), reference, rtol=1e-5)


@pytest.mark.parametrize(("size", "patch", "pixels"), [(224, 16, 116.5), (32, 4, 16.5)])
def test_the_uniform_line_is_where_a_head_without_interest_lies(size: int, patch: int, pixels: float) -> None:
    n = size // patch
    T = 1 + n * n
    uniform = torch.full((1, 1, T, T), 1 / T)
    t = Trace(
        torch.zeros(3, size, size), torch.zeros(2, T, 1), uniform, torch.zeros(2), Grid((n, n)), ("[CLS]",)
    )
    assert stats.uniform_distance(t) == pytest.approx(pixels, abs=0.1)
    assert stats.attention_distance(t).item() == pytest.approx(stats.uniform_distance(t), rel=1e-5)


@prefixes
def test_entropy_and_shares_equal_loops(prefix: int) -> None:
    t = random_trace(prefix)
    A = t.attn.double().numpy()
    np.testing.assert_allclose(stats.entropy(t).numpy(), -(A * np.log(A)).sum(axis=-1), rtol=1e-5, atol=1e-6)
    assert stats.prefix_share(t).shape == (L, H, prefix)
    for key in range(prefix):
        np.testing.assert_allclose(
            stats.prefix_share(t)[..., key].numpy(), A[:, :, prefix:, key].mean(axis=-1), rtol=1e-5
        )
    own = np.mean([A[:, :, i, i] for i in range(prefix, prefix + h * w)], axis=0)
    np.testing.assert_allclose(stats.self_share(t).numpy(), own, rtol=1e-5)
    np.testing.assert_allclose(stats.sink_share(t).numpy(), A.mean(axis=-2).max(axis=-1), rtol=1e-5)


def test_effective_tokens_are_one_for_a_hot_head_and_all_for_a_flat_one() -> None:
    t = random_trace(1)
    T = 1 + h * w
    attn = torch.stack([torch.eye(T), torch.full((T, T), 1 / T)])[None]
    effective = stats.entropy(dataclasses.replace(t, attn=attn)).exp()
    torch.testing.assert_close(effective[0, :, 0], torch.tensor([1.0, T]))


@prefixes
def test_the_head_table_has_a_row_for_every_head(prefix: int) -> None:
    t = random_trace(prefix)
    rows = stats.head_table(t)
    assert [(row["layer"], row["head"]) for row in rows] == [(l_, h_) for l_ in range(L) for h_ in range(H)]
    assert rows[9]["distance_px"] == pytest.approx(float(stats.attention_distance(t)[2, 1]))
    assert ("effective_tokens_cls" in rows[0]) == (prefix > 0)
    without_class = dataclasses.replace(t, prefix_names=("[REG1]", "[REG2]", "[REG3]")[:prefix])
    assert "effective_tokens_cls" not in stats.head_table(without_class)[0], "a register is no class token"
    assert rows[9]["prefix_share"] == pytest.approx(float(stats.prefix_share(t)[2, 1].sum()))
    assert "times_away" not in rows[0]  # a picture has one time


def test_head_similarity_is_the_correlation_of_the_matrices() -> None:
    t = random_trace(1)
    flat = t.attn.double().numpy().reshape(L * H, -1)
    np.testing.assert_allclose(stats.head_similarity(t).numpy(), np.corrcoef(flat), atol=1e-5)


# ---- tokens through depth --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(num_registers=2),
        dict(pool="mean", class_token=False),
        dict(pool="mean", norm_after_pool=True),
        dict(distillation=True),
    ],
)
def test_the_lens_at_full_depth_is_the_answer(changes: dict) -> None:
    model, t = real(**changes)
    lens = stats.logit_lens(model, t)
    assert lens.shape == (4, 7)
    torch.testing.assert_close(lens[-1], t.logits, rtol=1e-5, atol=1e-5)
    patches = stats.patch_lens(model, t)
    assert patches.shape == (15, 7)
    # the read-out of one token, written out
    x = t.tokens[-1, t.num_prefix_tokens + 6]
    x = model.fc_norm(model.norm(x))
    expected = model.head(x)
    if model.head_dist is not None:
        expected = (expected + model.head_dist(x)) / 2
    torch.testing.assert_close(patches[6], expected, rtol=1e-5, atol=1e-5)


def test_norms_flag_only_patches_far_above_their_own_depth() -> None:
    t = random_trace(3)
    tokens = t.tokens.clone()
    tokens[2, 3 + 8] *= 12
    tokens[4, 1] *= 50  # a register: not a patch, not flagged
    norms = stats.token_norms(dataclasses.replace(t, tokens=tokens))
    np.testing.assert_allclose(norms.numpy(), np.linalg.norm(tokens.double().numpy(), axis=-1), rtol=1e-5)
    flagged = stats.outliers(norms, 3)
    assert flagged.shape == (L + 1, h * w)
    assert flagged.nonzero().tolist() == [[2, 8]]
    logs = np.log(norms[2, 3:].double().numpy())
    above = logs - np.median(logs)  # 21 patches: the median is one of them
    far = np.maximum(1.5 * np.median(np.abs(above)), np.log(2))
    assert np.array_equal(stats.outliers(norms, 3, k=1.5)[2], above > far)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_norms_of_any_spread_cry_no_wolf_and_the_floor_holds(spread: float) -> None:
    norms = (spread * torch.randn(2000, 196)).exp()  # as many pictures
    assert stats.outliers(norms, 0).any(dim=-1).float().mean() < 0.002
    flat = torch.full((1, 197), 12.0)
    flat[0, 5] *= 1.00002
    assert not stats.outliers(flat, 1).any()
    norms[:, 7] *= 10 if spread < 0.3 else 10_000
    assert stats.outliers(norms, 0)[:, 7].float().mean() > 0.99


def test_token_similarity_is_the_cosine_at_every_depth() -> None:
    t = random_trace(1)
    x = t.tokens.double().numpy()
    rows = torch.tensor([0, 7, 3])
    for depth in range(L + 1):
        unit = x[depth] / np.linalg.norm(x[depth], axis=1, keepdims=True)
        found = stats.token_similarity(t, depth, rows)
        np.testing.assert_allclose(found.numpy(), unit[[0, 7, 3]] @ unit.T, atol=1e-5)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("width", [12, 200])  # fewer and more directions than patches
def test_pca_finds_the_directions_of_largest_variance(joint: bool, width: int) -> None:
    t = dataclasses.replace(random_trace(3), tokens=torch.randn(L + 1, 3 + h * w, width))
    pca = stats.patch_pca(t, components=3, joint=joint)
    assert pca.scores.shape == (L + 1, h, w, 3) and pca.explained.shape == (1 if joint else L + 1, 3)
    x = t.tokens[:, 3:].double().numpy()
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.sqrt((x**2).mean(axis=(1, 2), keepdims=True))
    groups = [x.reshape(-1, width)] if joint else list(x)
    scores = pca.scores.double().numpy().reshape(len(groups), -1, 3)
    for group, found, share in zip(groups, scores, pca.explained.numpy()):
        _, s, Vt = np.linalg.svd(group, full_matrices=False)
        expected = group @ Vt[:3].T
        expected *= np.sign(Vt[:3][range(3), np.abs(Vt[:3]).argmax(axis=1)])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(share, (s**2 / (s**2).sum())[:3], rtol=1e-4)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2)])
def test_pca_of_one_or_two_patches_has_directions_that_are_zero(joint: bool, grid: tuple[int, int]) -> None:
    t = dataclasses.replace(random_trace(1), tokens=torch.randn(2, 1 + grid[1], 12), grid=Grid(grid))
    pca = stats.patch_pca(t, joint=joint)
    assert pca.scores.shape == (2, *grid, 3) and pca.explained.shape == (1 if joint else 2, 3)
    assert pca.scores.isfinite().all() and pca.explained.isfinite().all()
    directions = {(1, 1): 0, (1, 2): 2 if joint else 1}[grid]  # each depth has one fewer than patches
    assert pca.scores[..., directions:].abs().max() == 0 and pca.explained[..., directions:].max() == 0
    assert grid == (1, 1) or pca.scores[..., 0].abs().min() > 0.1


def test_pca_in_one_basis_is_not_ruled_by_the_longest_layer() -> None:
    t = random_trace(1)
    longer = t.tokens.clone()
    longer[-1] *= 1000
    torch.testing.assert_close(
        stats.patch_pca(t).scores, stats.patch_pca(dataclasses.replace(t, tokens=longer)).scores,
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


# ---- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, dict(pos_embed_prefix=False, num_registers=3), dict(distillation=True)]
)
def test_position_similarity_leaves_the_prefix_out(changes: dict) -> None:
    model, _ = real(**changes)
    similarity = stats.position_similarity(model)
    assert similarity.shape == (3, 5, 3, 5)
    table = model.pos_embed[0, -15:].double().numpy()
    cosine = table[7] @ table[11] / np.linalg.norm(table[7]) / np.linalg.norm(table[11])
    assert float(similarity[1, 2, 2, 1]) == pytest.approx(cosine, abs=1e-5)
    assert stats.position_similarity(model, (4, 4)).shape == (4, 4, 4, 4)


@pytest.mark.parametrize("grid", [(3, 5), (4, 3)])
@pytest.mark.parametrize("family", ["BEiT", "RADIO", "mixed rope", "DINOv3"])
def test_position_similarity_of_other_positions_equals_loops(family: str, grid: tuple[int, int]) -> None:
    model, _ = real(**FAMILIES[family])
    prefix, at = model.config.num_prefix_tokens, [divmod(i, grid[1]) for i in range(math.prod(grid))]
    found = stats.position_similarity(model, grid).reshape(len(at), len(at)).double()
    places, layers = model.places(Grid(grid)), range(model.config.depth)
    if family == "BEiT":  # what is added to scores, over its largest
        added = sum(model.bias(layer, places)[head] for layer in layers for head in range(4))
        expected = added[prefix:, prefix:].double() / added[prefix:, prefix:].abs().max()
    elif family == "RADIO":  # a table for squares, cropped: cosines of its rows
        table = resample_pos_embed(model.pos_embed, (7, 7), grid, crop=True)[0].double().numpy()
        rows = table[len(table) - len(at) :]
        expected = torch.tensor([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in rows] for a in rows])
    else:  # the cosine of the angle between two places, by layer, head and pair of numbers
        terms = []
        for layer in layers:
            cos, sin = (x[:, prefix:].double() for x in model.turn(layer, places))  # (H or 1, P, d/2)
            angle = torch.atan2(sin, cos)
            terms += [(one[:, None] - one[None]).cos().mean(dim=-1) for one in angle]
        expected = sum(terms) / len(terms)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
    assert found.std() > 0.01


def test_fixed_positions_look_alike_nearby() -> None:
    model = ViT(
        ViTConfig(image_size=32, patch_size=4, embed_dim=32, num_heads=4, depth=1, pos_embed="sincos")
    )
    row = stats.position_similarity(model)[4, 4, 4]
    assert row.argmax() == 4 and row[3] > row[1] and row[5] > row[7]


def test_patch_filters_are_the_principal_components_of_the_projection() -> None:
    model, _ = real()
    filters = stats.patch_filters(model, 5)
    assert filters.shape == (5, 4, 4, 3)
    assert filters.amin(dim=(1, 2, 3)).tolist() == [0] * 5 and filters.amax(dim=(1, 2, 3)).tolist() == [1] * 5
    rows = model.patch_embed.proj.weight.double().numpy().reshape(32, 48)  # (D, 3·p·p), channels first
    rows = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    first = vectors[:, values.argmax()].reshape(3, 4, 4).transpose(1, 2, 0)
    correlation = np.corrcoef(first.ravel(), filters[0].numpy().ravel())[0, 1]
    assert abs(correlation) == pytest.approx(1, abs=1e-5)
    assert len(stats.patch_filters(model, 100)) == 32  # no more than there are


# ---- CKA -------------------------------------------------------------------------------------------


def unbiased_hsic(K: np.ndarray, M: np.ndarray) -> float:
    """Song et al. 2012 as a sum over indices that all differ, for tiny n."""
    n = len(K)
    indices = range(n)
    pairs = sum(K[i, j] * M[i, j] for i in indices for j in indices if i != j) / (n * (n - 1))
    triples = sum(
        K[i, j] * M[i, k] for i in indices for j in indices for k in indices if len({i, j, k}) == 3
    ) / (n * (n - 1) * (n - 2))
    quadruples = sum(
        K[i, j] * M[k, m]
        for i in indices for j in indices for k in indices for m in indices
        if len({i, j, k, m}) == 4
    ) / (n * (n - 1) * (n - 2) * (n - 3))  # fmt: skip
    return pairs + quadruples - 2 * triples


def test_cka_equals_its_definition_over_distinct_images() -> None:
    batches = [torch.randn(3, 7, 5) + torch.randn(1, 7, 5) for _ in range(2)]
    result = stats.cka(batches)
    hsic = np.zeros((3, 3))
    for batch in batches:
        grams = [x @ x.T for x in batch.double().numpy()]
        hsic += [[unbiased_hsic(a, b) for b in grams] for a in grams]
    reference = hsic / np.sqrt(np.outer(hsic.diagonal(), hsic.diagonal()))
    np.testing.assert_allclose(result.numpy(), reference, rtol=1e-4, atol=1e-5)
    assert torch.equal(stats.cka([[*batch.numpy()] for batch in batches]), result)  # as a file holds them


def test_cka_knows_rotations_and_does_not_take_noise_for_likeness() -> None:
    x = torch.randn(400, 50)
    turn, _ = torch.linalg.qr(torch.randn(50, 50))
    unrelated = torch.randn(400, 50)
    layers = torch.stack([x, 3 * x @ turn + 1, unrelated])
    similarity = stats.cka(layers.split(40, dim=1))  # 50 features, 40 images: plain CKA says about 0.5
    assert similarity[0, 1] == pytest.approx(1, abs=1e-4)
    assert abs(float(similarity[0, 2])) < 0.1


def test_layer_cka_compares_what_the_head_reads() -> None:
    model, _ = real(num_registers=1)
    images = torch.randn(16, 3, 12, 20)
    similarity = stats.layer_cka(model, images.split(8))
    assert similarity.shape == (4, 4) and similarity[0].isnan().all()  # [CLS] has not yet seen the image
    torch.testing.assert_close(similarity[1:, 1:].diagonal(), torch.ones(3))
    cls = torch.stack([trace(model, image).tokens[:, 0] for image in images], dim=1)
    torch.testing.assert_close(stats.depth_features(model, images), cls, rtol=1e-4, atol=1e-5)
    model, _ = real(pool="mean", class_token=False)
    assert stats.layer_cka(model, images.split(8)).isfinite().all()


def test_cka_needs_images() -> None:
    with pytest.raises(ValueError, match="there was none"):
        stats.cka([])
    with pytest.raises(ValueError, match="at least 4 images"):
        stats.cka([torch.randn(2, 3, 5)])


# ---- the self-check --------------------------------------------------------------------------------


def failed(model: ViT, t: Trace) -> list[str]:
    return [check.name for check in stats.self_check(model, t) if not check.ok]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(pool="mean", class_token=False),
        dict(distillation=True, layer_scale=0.2),
        dict(post_norm=True),
        dict(num_classes=0),
        dict(pre_norm=True, qk_norm=True, num_registers=2),
    ],
)
def test_an_honest_trace_passes_every_check(changes: dict) -> None:
    model, t = real(**changes)
    checks = stats.self_check(model, t)
    assert failed(model, t) == []
    assert len(checks) == 5 - (model.config.num_classes == 0) * 2 - model.config.post_norm
    assert all(check.about and check.bound > 0 and math.isfinite(check.value) for check in checks)


def scaled(x: Tensor) -> Tensor:
    return x * 1.01


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (dict(logits=scaled), {"fused = spelled out", "ledger adds up"}),
        (dict(attn=scaled), {"rows sum to 1", "attention · V", "ledger adds up"}),
        (dict(attn=lambda attn: attn.flip(1)), {"attention · V", "ledger adds up"}),
        (dict(tokens=lambda tokens: tokens.flip(0)), {"attention · V", "ledger adds up"}),
    ],
)
def test_the_self_check_notices(change: dict, noticed: set[str]) -> None:
    model, t = real()
    wrong = dataclasses.replace(t, **{name: f(getattr(t, name)) for name, f in change.items()})
    assert set(failed(model, wrong)) == noticed


@pytest.mark.parametrize("place", [(1, 4), (-1, -1)])
def test_the_self_check_notices_one_token_that_is_not_the_models(place: tuple[int, int]) -> None:
    model, t = real(num_classes=0)
    tokens = t.tokens.clone()
    tokens[place][3] += 0.1 * tokens[place[0]].abs().max()
    assert failed(model, dataclasses.replace(t, tokens=tokens)) == ["attention · V"]


def test_the_self_check_notices_another_model_and_an_edited_trace() -> None:
    model, t = real()
    torch.manual_seed(1)
    other, _ = real()
    assert "fused = spelled out" in failed(other, t)
    edited = trace(model, t.image, edits=[ZeroHeads(((1, 2),))])
    assert "fused = spelled out" in failed(model, edited)


def test_heads_of_some_layers_are_not_counted_from_zero(tiny_vit: ViT) -> None:
    with pytest.raises(ValueError, match="did not keep the attention of all layers"):
        stats.head_table(trace(tiny_vit, torch.randn(3, 12, 20), layers=[2]))


def test_the_head_table_holds_every_head_in_its_place() -> None:
    found = random_trace(1)
    heads = found.attn.shape[1]
    row = stats.head_table(found)[2 * heads + 1]
    assert (row["layer"], row["head"]) == (2, 1)
    assert row["self_share"] == pytest.approx(float(stats.self_share(found)[2, 1]))
    assert row["effective_tokens_cls"] == pytest.approx(float(stats.effective_tokens(found)[2, 1, 0]))


def test_figures_over_images_are_those_of_each(tiny_vit: ViT) -> None:
    images, done = torch.randn(5, 3, 12, 20), []
    found = stats.over_images(tiny_vit, iter(images), done.append)
    assert done == [1, 2, 3, 4, 5] and found.num_tokens == 16
    third = trace(tiny_vit, images[2])
    assert found.uniform_px == stats.uniform_distance(third)
    for name, column in stats.head_columns(third).items():
        assert torch.equal(found.columns[name][2], column)
    torch.testing.assert_close(found.features, stats.depth_features(tiny_vit, images), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="there was none"):
        stats.over_images(tiny_vit, [])


def test_layers_of_models_of_other_widths_are_compared() -> None:
    narrow, wide = torch.randn(2, 9, 5), torch.randn(3, 9, 11)
    both = stats.cka([[*narrow, *wide]])
    torch.testing.assert_close(both[:2, :2], stats.cka([narrow]))
    torch.testing.assert_close(both[2:, 2:], stats.cka([wide]))
    turned = narrow[0] @ torch.linalg.qr(torch.randn(5, 5)).Q
    assert stats.cka([[narrow[0], F.pad(turned, (0, 3))]])[0, 1] == pytest.approx(1, abs=1e-5)


def test_attention_over_time_is_a_sum_over_pairs_of_frames():
    model = randomised(ViT(tiny_config(num_frames=6, tubelet=2)))
    found = trace(model, torch.randn(6, 3, 12, 20))
    t, prefix = 3, found.num_prefix_tokens
    attn, frames = found.attn.double(), found.grid.places()[:, 0]
    L, H = attn.shape[:2]
    expected = torch.zeros(L, H, t, dtype=torch.float64)
    for query in range(found.grid.count):
        row = attn[:, :, prefix + query, prefix:]
        for key in range(found.grid.count):
            lag = abs(int(frames[query]) - int(frames[key]))
            expected[:, :, lag] += row[..., key] / row.sum(dim=-1) / found.grid.count
    lags = stats.lag_share(found)
    torch.testing.assert_close(lags.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(lags.sum(dim=-1), torch.ones(L, H))
    columns = stats.head_columns(found)
    torch.testing.assert_close(columns["times_away"], lags[..., 1] + 2 * lags[..., 2])
    torch.testing.assert_close(columns["same_time_share"], lags[..., 0])
    flat = dataclasses.replace(found, attn=torch.full_like(found.attn, 1 / found.attn.shape[-1]))
    torch.testing.assert_close(stats.lag_share(flat)[0, 0], stats.uniform_lags(found.grid))


def test_distance_in_a_clip_is_that_within_the_frame():
    model = randomised(ViT(tiny_config(num_frames=6, tubelet=2)))
    clip, still = trace(model, torch.randn(6, 3, 12, 20)), Grid((3, 5)).distances((4, 4))
    torch.testing.assert_close(stats.patch_distances(clip), still.repeat(3, 3))
