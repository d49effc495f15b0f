"""explorer/ledger.py: the entries are what they claim, and they add up to the logit."""

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from families import ADDING, FAMILIES
from torch import Tensor

from explorer.ablation import without_heads
from explorer.ledger import Ledger, ledger, pooled_rows
from explorer.methods import METHODS
from vit import Trace, ViT, ZeroHeads, trace
from vit.cost import from_every_layer

families = pytest.mark.parametrize("family", ADDING)


def model_and_trace(family: str) -> tuple[ViT, Trace]:
    torch.manual_seed(1)
    model = randomised(ViT(tiny_config(image_size=(12, 28), **FAMILIES[family])))
    return model, trace(model, torch.randn(3, 12, 28))


@families
@pytest.mark.parametrize("target", range(7))
def test_the_ledger_adds_up_to_the_logit(family: str, target: int) -> None:
    model, t = model_and_trace(family)
    book = ledger(t, model, target)
    assert (book.target, book.logit) == (target, float(t.logits[target]))
    assert abs(book.gap) < 1e-4 and book.gap == pytest.approx(book.total - book.logit)
    assert sum(row["logit"] for row in book.table()) == pytest.approx(book.logit, abs=1e-4)
    T = t.tokens.shape[1]
    assert (book.heads.shape, book.mlp.shape, book.embed.shape) == ((3, 4, T), (3,), (T,))


def test_the_ledger_adds_up_at_the_size_of_a_real_model() -> None:
    torch.manual_seed(0)
    shape = dict(image_size=224, patch_size=16, embed_dim=384, depth=12, num_heads=6, num_classes=10)
    model = randomised(ViT(tiny_config(**shape)), std=0.05)
    for target in (0, 7):
        assert abs(ledger(trace(model, torch.randn(3, 224, 224)), model, target).gap) < 1e-4


def by_hand(model: ViT, t: Trace, target: int) -> tuple[np.ndarray, np.ndarray, float]:
    """heads (L, H, T), mlp (L,) and embed in float64: every vector written to the stream is built,
    centred, scaled by the frozen σ and read by the head, one at a time."""
    double = model.double()
    c = model.config
    rows = pooled_rows(model, t.tokens.shape[1])
    norm = double.fc_norm if c.norm_after_pool else double.norm
    final = t.tokens[-1].double()
    T, d = len(final), c.head_dim

    def read(u: Tensor, row: int) -> float:
        """What the vector u, written to one row of the stream, adds to the logit."""
        where = final[rows].mean(dim=0) if c.norm_after_pool else final[row]
        centre = 0 if c.norm == "rms" else 1  # RMSNorm takes no mean away
        sigma = ((where - centre * where.mean()).square().mean() + c.norm_eps).sqrt()
        head = double.head_dist if c.distillation and row == 1 else double.head
        if not c.final_norm:
            return float(u @ head.weight[target]) / len(rows)
        return float((u - centre * u.mean()) / sigma * norm.weight @ head.weight[target]) / len(rows)

    heads, mlp = np.zeros((c.depth, c.num_heads, T)), np.zeros(c.depth)
    for layer, block in enumerate(double.blocks):
        x = t.tokens[layer].double()
        v = block.attn.qkv(block.norm1(x))[:, 2 * c.embed_dim :]
        for row in rows:
            attn_out = block.ls1(block.attn.proj.bias) if c.proj_bias else torch.zeros(c.embed_dim)
            for head in range(c.num_heads):
                part = slice(head * d, (head + 1) * d)
                for j in range(T):
                    weight = t.attn[layer, head, row, j].double()
                    u = block.ls1(weight * (block.attn.proj.weight[:, part] @ v[j, part]))
                    heads[layer, head, j] += read(u, row)
                    attn_out = attn_out + u
            mlp[layer] += read(block.ls2(block.mlp(block.norm2(x[row] + attn_out))), row)
    embed = sum(read(t.tokens[0, row].double(), row) for row in rows)
    return heads, mlp, embed


@families
def test_every_entry_is_its_own_vector_read_by_the_head(family: str) -> None:
    model, t = model_and_trace(family)
    book = ledger(t, model, 3)
    heads, mlp, embed = by_hand(model, t, 3)
    np.testing.assert_allclose(book.heads.numpy(), heads, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(book.mlp.numpy(), mlp, rtol=1e-4, atol=1e-6)
    assert float(book.embed.sum()) == pytest.approx(embed, abs=1e-5)


def test_views_of_the_ledger_are_sums_of_its_entries() -> None:
    model, t = model_and_trace("registers")
    book = ledger(t, model, 3)
    assert book.head_grid().shape == (3, 4)
    torch.testing.assert_close(book.head_grid()[2, 1], book.heads[2, 1].sum())
    torch.testing.assert_close(book.map()[2, 5], book.heads[:, :, 3 + 2 * 7 + 5].sum())
    torch.testing.assert_close(METHODS["logit_ledger"](t, model=model, target=3), book.map())
    names = [(row["part"], row["layer"], row["head"]) for row in book.table()]
    assert names[0] == ("embedding", None, None) and names[-1] == ("biases", None, None)
    assert names[1:6] == [*(("head", 0, head) for head in range(4)), ("mlp", 0, None)]


def test_mean_pooled_patches_also_speak_for_themselves() -> None:
    model, t = model_and_trace("mean pool, prefix")
    book = ledger(t, model, 3)
    assert (book.embed[:3] == 0).all() and (book.embed[3:] != 0).all()
    torch.testing.assert_close(book.map().flatten(), (book.heads.sum((0, 1)) + book.embed)[3:])


def test_target_defaults_to_the_traces_then_to_the_answer() -> None:
    model, t = model_and_trace("cls")
    assert ledger(t, model).target == int(t.logits.argmax())
    assert ledger(trace(model, t.image, target=4), model).target == 4


@pytest.mark.parametrize(
    ("changes", "layers", "sentence"),
    [
        (dict(post_norm=True), None, "residual stream that only adds"),
        (dict(num_classes=0), None, "no classification head"),
        ({}, [0, 1], "attention of all layers"),
    ],
)
def test_what_has_no_ledger_is_one_sentence(changes: dict, layers: list[int] | None, sentence: str) -> None:
    model = randomised(ViT(tiny_config(**changes)))
    with pytest.raises(ValueError, match=sentence):
        ledger(trace(model, torch.randn(3, 12, 20), layers=layers), model)


def test_a_wrong_entry_shows_in_the_gap() -> None:
    """The MLPs are computed, not taken as what is left over: the sum could fail."""
    model, t = model_and_trace("cls")
    attn = t.attn.clone()
    attn[1, 2, 0] = attn[1, 2, 0].roll(3)
    tampered = Trace(t.image, t.tokens, attn, t.logits, t.grid, t.prefix_names)
    assert abs(ledger(tampered, model, 3).gap) > 1e-3
    assert isinstance(ledger(t, model, 3), Ledger)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_lost_without_a_head_is_what_switching_it_off_loses(family: str) -> None:
    changes = FAMILIES[family]
    torch.manual_seed(1)
    model = randomised(ViT(tiny_config(image_size=(12, 28), **changes)))
    image, done = torch.randn(3, 12, 28), []
    t = trace(model, image)
    lost = without_heads(t, model, 3, lambda *at: done.append(at))
    assert lost.shape == (3, 4) and done == [(1, 3), (2, 3), (3, 3)]
    for layer, head in np.ndindex(3, 4):
        off = trace(model, image, edits=[ZeroHeads(((layer, head),))], keep=()).logits
        assert float(lost[layer, head]) == pytest.approx(float(t.logits[3] - off[3]), abs=1e-4)
    answer = int(t.logits.argmax())
    assert torch.equal(without_heads(t, model), without_heads(t, model, answer))


def test_what_switching_off_costs_is_what_the_model_is_given() -> None:
    model, t = model_and_trace("cls")
    ran = []
    for block in model.blocks:
        block.register_forward_hook(lambda *seen: ran.append(1))
    without_heads(t, model, 2)
    depth, heads = len(model.blocks), model.config.num_heads
    assert len(ran) == depth * heads * from_every_layer(depth)


def test_in_the_last_layer_a_head_is_missed_for_what_it_gave_and_what_the_mlp_made_of_it() -> None:
    """Without an MLP, and where the final norm hardly changes, direct and total effect are nearly one."""
    model, t = model_and_trace("cls")
    with torch.no_grad():
        model.blocks[-1].mlp.fc2.weight.zero_()
        model.blocks[-1].attn.proj.weight.mul_(1e-3)
    t = trace(model, t.image)
    given = ledger(t, model, 2).head_grid()[-1]
    torch.testing.assert_close(without_heads(t, model, 2)[-1], given, rtol=0.3, atol=2e-5)
