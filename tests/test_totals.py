"""explorer/totals.py, LeGrad and the regression: second derivations in float64, and what adds up.

The references hold σ, attention and gates by hand in a forward pass written again from the papers' formulas.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from families import FAMILIES
from test_maps import H, L, families, h, model_and_trace, w
from torch import Tensor, nn

from explorer.ledger import ledger
from explorer.methods import METHODS
from explorer.probes import regress, ridge_fit
from explorer.totals import total_effects
from vit import MaskPatches, Trace, ViT, trace
from vit.grid import Grid
from vit.model import ACTIVATIONS
from vit.objective import OTHERS, Objective

EXACT = dict(attention=True, gates=True)
SCALE_ONLY = dict(attention=False, gates=False)


class ByHand:
    """The model's forward pass from its embedding on, in which what is held keeps its first value."""

    def __init__(self, model: ViT, attention: bool, gates: bool):
        self.model, self.attention, self.gates = model.double(), attention, gates
        self.kept: list[Tensor] = []
        self.at = 0

    def once(self, make: Callable[[], Tensor]) -> Tensor:
        if self.at == len(self.kept):
            self.kept.append(make())
        self.at += 1
        return self.kept[self.at - 1]

    def norm(self, layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Identity):
            return x
        rms = isinstance(layer, nn.RMSNorm)
        centred = x if rms else x - x.mean(dim=-1, keepdim=True)
        sigma = self.once(lambda: (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt())
        return centred / sigma * layer.weight + (0 if rms else layer.bias)

    def turned(self, x: Tensor, layer: int) -> Tensor:
        """Queries or keys (H, T, d), each pair of numbers turned by its token's angle."""
        places = self.model.places(Grid((h, w)))
        turn = self.model.turn(layer, places)
        if turn is None:
            return x
        cos, sin = (each.double() for each in turn)
        half = x.shape[-1] // 2
        one, other = x[..., :half], x[..., half:]
        return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)

    def apart(self, table: Tensor, T: int) -> Tensor:
        """(H, T, T): one number per difference of rows and columns, one loop per pair of tokens."""
        old = self.model.config.grid_size
        assert old == (h, w)
        prefix, bias = T - h * w, torch.zeros(T, T, table.shape[1], dtype=torch.float64)
        for i in range(T):
            for j in range(T):
                if i < prefix or j < prefix:
                    bias[i, j] = table[-1 if i < prefix and j < prefix else -3 if i < prefix else -2]
                else:
                    (a, b), (c, d) = divmod(i - prefix, w), divmod(j - prefix, w)
                    bias[i, j] = table[:-3].view(2 * h - 1, 2 * w - 1, -1)[a - c + h - 1, b - d + w - 1]
        return bias.permute(2, 0, 1)

    def attend(self, block: nn.Module, x: Tensor, layer: int) -> Tensor:
        T, D = x.shape
        q, k, v = block.attn.qkv(x).view(T, 3, H, D // H).permute(1, 2, 0, 3)
        q, k = self.norm(block.attn.q_norm, q), self.norm(block.attn.k_norm, k)
        q, k = self.turned(q, layer), self.turned(k, layer)

        def softmax() -> Tensor:
            scores = torch.einsum("hid,hjd->hij", q, k) / (D // H) ** 0.5
            if self.model.config.rel_pos:
                scores = scores + self.apart(self.model.rel_pos[layer], T)
            weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
            return weights / weights.sum(dim=-1, keepdim=True)

        A = self.once(softmax) if self.attention else softmax()
        z = torch.einsum("hij,hjd->ihd", A, v).reshape(T, D)
        return block.ls1(block.attn.proj(z))

    def think(self, block: nn.Module, x: Tensor) -> Tensor:
        mlp, kind = block.mlp, self.model.config.activation
        x = mlp.fc1(x)
        if not self.gates:
            x = ACTIVATIONS[kind](x)
        elif kind == "swiglu":
            one, other = x.chunk(2, dim=-1)
            x = self.once(lambda: one * torch.sigmoid(one)) * other
        else:
            x = x * self.once(lambda: ACTIVATIONS[kind](x) / x)
        return block.ls2(mlp.fc2(self.norm(mlp.norm, x)))

    def __call__(self, x: Tensor, start: int = 0) -> Tensor:
        """(T, D) -> logits (K,)."""
        self.at, model, config = 0, self.model, self.model.config
        for layer, block in list(enumerate(model.blocks))[start:]:
            if config.post_norm:
                x = self.norm(block.norm1, x + self.attend(block, x, layer))
                x = self.norm(block.norm2, x + self.think(block, x))
            else:
                x = x + self.attend(block, self.norm(block.norm1, x), layer)
                x = x + self.think(block, self.norm(block.norm2, x))
        x = self.norm(model.norm, x)
        prefix = config.num_prefix_tokens
        logits = model.head(
            self.norm(model.fc_norm, x[0] if config.pool == "cls" else x[prefix:].mean(dim=0))
        )
        return (logits + model.head_dist(x[1])) / 2 if config.distillation else logits


BY_HAND = [
    name
    for name, changes in FAMILIES.items()
    if changes.get("pool") != "attention" and changes.get("num_class_tokens", 1) == 1
]


@pytest.mark.parametrize("family", BY_HAND)
@pytest.mark.parametrize(("name", "held"), [("layernorm_rule", SCALE_ONLY), ("cp_lrp", EXACT)])
@pytest.mark.parametrize("layer", [0, 3])
def test_a_total_effect_is_a_slope_of_the_held_network(
    family: str, name: str, held: dict, layer: int
) -> None:
    """Stretching one token by 1 + ε changes y by ε times its entry, by differences in float64."""
    model, t = model_and_trace(family)
    found = METHODS[name](t, model=model, layer=layer)
    assert found.shape == (h, w) and found.dtype == torch.float32 and not found.requires_grad
    by_hand = ByHand(model, **held)
    x = t.tokens[layer].double()
    y = float(by_hand(x, layer)[2])
    assert y == pytest.approx(float(t.logits[2]), abs=1e-5)  # held at what it was: the same answer
    for patch in (0, 9, 20):
        sides = []
        for sign in (1, -1):
            stretched = x.clone()
            stretched[t.num_prefix_tokens + patch] *= 1 + sign * 1e-5
            sides.append(float(by_hand(stretched, layer)[2]))
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(
            float(found.flatten()[patch]), rel=1e-3, abs=2e-6
        )


@families
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_cp_lrp_adds_up_to_the_logit(family: str, layer: int) -> None:
    model, t = model_and_trace(family)
    totals = total_effects(t, model, layer=layer)
    assert abs(totals.gap) < 1e-4 and totals.logit == pytest.approx(float(t.logits[2]), abs=1e-5)
    assert totals.bias != 0 and totals.tokens.shape == (t.num_prefix_tokens + h * w,)
    parts = float(totals.tokens.double().sum()) + totals.bias
    assert parts == pytest.approx(totals.logit, abs=1e-4)
    assert torch.equal(totals.map(), METHODS["cp_lrp"](t, model=model, layer=layer))
    assert METHODS["cp_lrp"](t, model=model, layer=layer).abs().sum() > 0


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_sum_holds_for_every_kind_of_model(kind: str) -> None:
    """Rotary positions, attention pooling and whatever else the project can build."""
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(**FAMILIES[kind])))
    t = trace(model, torch.randn(3, 12, 28), target=2)
    totals = total_effects(t, model)
    assert abs(totals.gap) < 1e-4 and totals.logit == pytest.approx(float(t.logits[2]), abs=1e-5)
    for name in ("cp_lrp", "layernorm_rule", "legrad"):
        assert METHODS[name](t, model=model).abs().sum() > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_breaks_the_sum(activation: str) -> None:
    torch.manual_seed(1)
    model = randomised(ViT(tiny_config(activation=activation)))
    t = trace(model, torch.randn(3, 12, 20), target=1)
    assert abs(total_effects(t, model).gap) < 1e-4
    assert total_effects(t, model).map().abs().max() > 1e-4


def test_the_layernorm_rule_tells_what_it_misses() -> None:
    model, t = model_and_trace("cls")
    totals = total_effects(t, model, **SCALE_ONLY)
    parts = float(totals.tokens.double().sum()) + totals.bias
    assert totals.gap == pytest.approx(parts - totals.logit, abs=1e-9) and abs(totals.gap) > 1e-4
    assert totals.logit == pytest.approx(float(t.logits[2]), abs=1e-5)  # two passes in float32


def test_holding_is_of_one_thread_and_leaves_the_model_as_it_was() -> None:
    model, t = model_and_trace("cls")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    total_effects(t, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    plain = METHODS["input_gradient"](t, model=model)
    assert not torch.allclose(plain, METHODS["layernorm_rule"](t, model=model), rtol=1e-2)


# ---- LeGrad ----------------------------------------------------------------------------------------


def legrad_of_a_pool(model: ViT, t: Trace) -> None:
    """The pool reads the stream behind each layer; each of its weights is moved by differences."""
    found = METHODS["legrad"](t, model=model).flatten()
    pool, T = model.double().attn_pool, t.tokens.shape[1]
    heads, steep = pool.num_heads, []

    def answer(A: Tensor, v: Tensor) -> float:
        pooled = pool.proj(torch.einsum("hj,jhd->hd", A, v).flatten())
        if pool.mlp is not None:
            pooled = pooled + pool.mlp(pool.norm(pooled))
        return float(model.head(pooled)[2])

    for layer in range(L):
        x = model.norm(t.tokens[layer + 1].double())
        k, v = pool.kv(x).view(T, 2, heads, -1).unbind(1)
        q = pool.q(pool.latent)[0, 0].view(heads, -1)
        scores = torch.einsum("hd,jhd->hj", q, k) / q.shape[-1] ** 0.5
        scores[:, : 0 if model.config.pool_prefix else t.num_prefix_tokens] = -torch.inf
        A = scores.softmax(dim=-1)
        slopes = torch.zeros_like(A)
        for cell in np.ndindex(*A.shape):
            sides = []
            for sign in (1e-5, -1e-5):
                moved = A.clone()
                moved[cell] += sign
                sides.append(answer(moved, v))
            slopes[cell] = (sides[0] - sides[1]) / 2e-5
        steep.append(slopes.clamp(min=0).mean(dim=0)[t.num_prefix_tokens :].numpy())
    np.testing.assert_allclose(found.numpy(), np.mean(steep, axis=0), rtol=1e-3, atol=1e-6)


@families
def test_legrad_equals_slopes_read_out_at_every_depth(family: str) -> None:
    """Attention of one layer is moved cell by cell; the stream behind it is read out at once."""
    model, t = model_and_trace(family)
    if model.config.pool == "attention":
        return legrad_of_a_pool(model, t)
    found = {layer: METHODS["legrad"](t, model=model, layer=layer).flatten() for layer in (1, -1)}
    model.double()
    T = t.tokens.shape[1]
    d, config = model.config.head_dim, model.config

    def read(layer: int, A: Tensor) -> Tensor:
        block, x = model.blocks[layer], t.tokens[layer].double()
        v = block.attn.qkv(x if config.post_norm else block.norm1(x))[:, 2 * H * d :].view(T, H, d)
        added = block.ls1(block.attn.proj(torch.einsum("hij,jhd->ihd", A, v).reshape(T, -1)))
        if config.post_norm:
            x = block.norm1(x + added)
            return model.read_out(block.norm2(x + block.ls2(block.mlp(x)))[None])[0, 2]
        x = x + added
        return model.read_out((x + block.ls2(block.mlp(block.norm2(x))))[None])[0, 2]

    steep = []
    for layer in range(L):
        A = t.attn[layer].double().requires_grad_()
        (slope,) = torch.autograd.grad(read(layer, A), A)
        steep.append(np.maximum(slope.numpy(), 0).mean(axis=(0, 1))[t.num_prefix_tokens :])
        with torch.no_grad():  # the slopes themselves, by differences
            for cell in ((0, 0, 5), (3, t.num_prefix_tokens, 20)):
                up, down = A.clone(), A.clone()
                up[cell] += 1e-5
                down[cell] -= 1e-5
                difference = float(read(layer, up) - read(layer, down)) / 2e-5
                assert difference == pytest.approx(float(slope[cell]), rel=1e-3, abs=1e-7)
    np.testing.assert_allclose(found[-1].numpy(), np.mean(steep, axis=0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found[1].numpy(), np.mean(steep[:2], axis=0), rtol=1e-3, atol=1e-7)


# ---- the regression --------------------------------------------------------------------------------


def halves(n: int, P: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(np.arange(P) < P // 2) for _ in range(n)], dtype=float)


def test_the_fit_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(3)
    X = halves(60, 12)
    y = X @ rng.normal(size=12) + rng.normal(size=60)
    beta, error, strength, explained = ridge_fit(torch.tensor(X), torch.tensor(y), whole=9.0)
    C = X - X.mean(axis=0)
    inverse = np.linalg.inv(C.T @ C + strength * np.eye(12))
    reference = inverse @ C.T @ (y - y.mean())
    H_ = C @ inverse @ C.T
    left = y - y.mean() - H_ @ (y - y.mean())
    variance = left @ left / (60 - 1 - np.trace(H_))
    spread = np.diag(inverse @ C.T @ C @ inverse)
    np.testing.assert_allclose(beta - beta.mean(), reference - reference.mean(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(error, np.sqrt(variance * (spread + 1 / 60 / 6**2)), rtol=1e-6)
    assert y.mean() + float(beta.sum()) / 2 == pytest.approx(9.0)  # the fit meets the whole picture
    assert explained == pytest.approx(1 - left @ left / np.square(y - y.mean()).sum())

    def score(value: float) -> float:  # generalised cross-validation, by its definition
        hat = C @ np.linalg.inv(C.T @ C + value * np.eye(12)) @ C.T
        off = y - y.mean() - hat @ (y - y.mean())
        return off @ off / (60 - 1 - np.trace(hat)) ** 2

    assert score(strength) <= min(score(strength * 2), score(strength / 2))


def test_standard_errors_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    P, n = 10, 120
    truth = rng.normal(size=P) * 3  # far above the noise, so that the ridge pulls little
    held = []
    for seed in range(150):
        X = halves(n, P, seed)
        y = X @ truth + rng.normal(size=n)
        beta, error, *_ = ridge_fit(torch.tensor(X), torch.tensor(y), whole=float(truth.sum()))
        held.append((beta - torch.tensor(truth)).abs() < 1.96 * error)
    assert 0.92 < float(torch.stack(held).float().mean()) < 0.98


@pytest.mark.parametrize("family", ["cls", "mean pool, no prefix", "distilled"])
def test_a_regression_asks_about_halves_that_are_left_out(family: str, monkeypatch) -> None:
    model, t = model_and_trace(family)
    given = []

    def fit(X: Tensor, y: Tensor, whole: float):
        given.append((X, y, whole))
        return ridge_fit(X, y, whole)

    monkeypatch.setattr("explorer.probes.ridge_fit", fit)
    heard: list[tuple[int, int]] = []
    found = regress(t, model=model, passes=40, progress=lambda *at: heard.append(at))
    ((X, y, whole),) = given
    assert X.shape == (40, h * w) and (X.sum(dim=1) == h * w // 2).all() and heard[-1] == (40, 40)
    assert whole == pytest.approx(float(t.logits[2]), abs=1e-5)
    for row in (0, 17):
        hidden = tuple(int(patch) for patch in (X[row] == 0).nonzero().flatten())
        edit = MaskPatches(hidden, t.num_prefix_tokens)
        masked = trace(model, t.image, edits=[edit], keep=())
        assert float(y[row]) == pytest.approx(float(masked.logits[2]), abs=1e-5)
    assert found.error.shape == found.map.shape == (h, w) and (found.error > 0).all()
    assert torch.equal(METHODS["ridge"](t, model=model, passes=40), found.map)
    assert not torch.equal(METHODS["ridge"](t, model=model, passes=40, seed=1), found.map)
    with pytest.raises(ValueError, match="at least 8 passes, not 7"):
        regress(t, model=model, passes=7)
    assert regress(t, model=model, passes=8).map.isfinite().all()


def test_one_patch_has_no_halves() -> None:
    model = randomised(ViT(tiny_config(image_size=(4, 4))))
    with pytest.raises(ValueError, match="One patch has no halves"):
        regress(trace(model, torch.randn(3, 4, 4), target=2), model=model, passes=8)


def test_more_passes_mean_smaller_errors() -> None:
    model, t = model_and_trace("cls")
    few, many = (regress(t, model=model, passes=passes).error.mean() for passes in (32, 512))
    assert many < few


# ---- why A and not B -------------------------------------------------------------------------------

SPECIFIC = [name for name, method in METHODS.items() if method.class_specific]


def told_apart(family: str, weights: Callable[[Tensor], Tensor]) -> tuple[ViT, Trace]:
    """The same model with a head whose class 2 says the weighed sum of all classes."""
    model, t = model_and_trace(family)
    of_classes = weights(t.logits)
    with torch.no_grad():
        for head in (model.head, model.head_dist):
            if isinstance(head, nn.Linear):
                head.weight[2], head.bias[2] = of_classes @ head.weight, of_classes @ head.bias
    return model, trace(model, t.image, target=2)


@pytest.mark.parametrize("family", ["cls", "mean pool, fc_norm", "distilled"])
@pytest.mark.parametrize("name", SPECIFIC)
def test_a_contrast_is_the_map_of_the_difference(family: str, name: str) -> None:
    model, _ = model_and_trace(family)
    _, image = model, model_and_trace(family)[1].image
    contrasted = trace(model, image, target=2, contrast=4)
    other, plain = told_apart(family, lambda logits: Objective(2, 4).weights(logits))
    found = METHODS[name](contrasted, model=model, target=2, contrast=4)
    torch.testing.assert_close(found, METHODS[name](plain, model=other), rtol=1e-3, atol=1e-5)
    assert torch.equal(found, METHODS[name](contrasted, model=model))  # the trace says what it was asked
    if found.any():
        alone = METHODS[name](trace(model, image, target=2), model=model)
        assert not torch.allclose(found, alone, rtol=1e-3, atol=1e-6)


def test_against_all_others_is_the_log_odds() -> None:
    model, t = model_and_trace("cls")
    y = Objective(2, OTHERS)
    assert float(y(t.logits)) == pytest.approx(float(torch.logit(t.logits.softmax(dim=-1)[2])), abs=1e-5)
    gradient = torch.autograd.functional.jacobian(y, t.logits.double())
    torch.testing.assert_close(y.weights(t.logits.double()), gradient)
    lost = METHODS["knockout"](t, model=model, contrast=OTHERS).flatten()
    for patch in (0, 13):
        hidden = trace(model, t.image, edits=[MaskPatches((patch,), 1)], keep=()).logits
        assert float(lost[patch]) == pytest.approx(float(y(t.logits) - y(hidden)), abs=1e-5)
    _, plain = told_apart("cls", y.weights)
    book = ledger(t, model_and_trace("cls")[0], contrast=OTHERS)
    assert abs(book.gap) < 1e-4 and book.logit == pytest.approx(float(plain.logits[2]), abs=1e-5)
    totals = total_effects(t, model_and_trace("cls")[0], contrast=OTHERS)
    assert abs(totals.gap) < 1e-4 and totals.logit == pytest.approx(book.logit, abs=1e-4)


@pytest.mark.parametrize(
    ("contrast", "sentence"),
    [
        (2, "Class 2 cannot be told from itself"),
        (7, "There is no class 7: this model has 7, 0 to 6"),
        ("rest", "against another class, by its number, or against \"others\", not against 'rest'"),
    ],
)
def test_wrong_contrasts_are_one_sentence(contrast, sentence: str) -> None:
    model, t = model_and_trace("cls")
    with pytest.raises(ValueError, match=sentence):
        METHODS["knockout"](t, model=model, contrast=contrast)
    with pytest.raises(ValueError, match=sentence):
        trace(model, t.image, target=2, contrast=contrast)
    with pytest.raises(ValueError, match="pass target=, too"):
        trace(model, t.image, contrast=4)
    with pytest.raises(ValueError, match=r"of the class by itself, not of the class against 4: trace\("):
        METHODS["relevance"](t, contrast=4)
    alone = ViT(tiny_config(num_classes=1))
    with pytest.raises(ValueError, match="no others to contrast"):
        Objective(0, OTHERS).check(alone.config.num_classes)


# ---- one map per depth -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relevance", "gradient_rollout", "logit_ledger", "legrad"])
def test_a_map_up_to_a_layer_ends_with_the_whole(name: str) -> None:
    model, t = model_and_trace("cls")
    by_depth = [METHODS[name](t, model=model, layer=layer) for layer in range(L)]
    assert torch.equal(by_depth[-1], METHODS[name](t, model=model))
    assert len({map.numpy().tobytes() for map in by_depth}) == L
    with pytest.raises(ValueError, match="no layer 5"):
        METHODS[name](t, model=model, layer=L)


def test_the_ledger_up_to_a_layer_is_a_running_sum() -> None:
    model, t = model_and_trace("mean pool, fc_norm")
    book = ledger(t, model)
    two = book.heads[:2].sum(dim=(0, 1)) + book.embed
    torch.testing.assert_close(METHODS["logit_ledger"](t, model=model, layer=1).flatten(), two[1:])
