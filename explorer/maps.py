"""Attribution maps read from a trace: (h, w), how much each patch mattered.

L layers, H heads, T tokens, P patches, D width, d width of one head, (h, w) patch grid.
A[l, h] is attention (rows are queries and sum to 1), Ā one matrix fused from a layer's heads, y the
logit of the class, or how much it is above others, ∂ its gradient, ⊙ the elementwise product, (·)₊
clamping at zero.

Every method is a pure function `f(trace, **options) -> (h, w)`, here or, where the model runs again, in
explorer/probes.py; one row in explorer/methods.py makes it appear in the app, on the command line, in the
docs, in the tests and in the faithfulness table.  Options that mean the same everywhere:
    query    whose row is read: a token's index, or several (their mean); None: the rows that the
             class is read from, [CLS] or, where there is none (or `model` says so), all patches
    layer    an index, negative ones count from the end; for products over depth the last factor
    head     an index; None: all heads, fused by `fuse`: "mean", "max" or "min"
    target   the class to explain (default: the trace's, else the model's answer)
    contrast what it is explained against: another class, or "others" (vit/objective.py)
    model    for methods that run it again; `progress(done, total)` hears about long work
Maps are raw: not smoothed, not stretched to [0, 1].
"""

import importlib
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from explorer.ledger import block_at, output_matrices, pooled_rows, values
from vit.model import ViT
from vit.objective import Contrast
from vit.trace import Trace

Query = int | Sequence[int] | None
Progress = Callable[[int, int], None]  # (passes done, passes in all)

FUSE: dict[str, Callable[[Tensor], Tensor]] = {  # (..., H, T, T) -> (..., T, T)
    "mean": lambda attn: attn.mean(dim=-3),
    "max": lambda attn: attn.amax(dim=-3),
    "min": lambda attn: attn.amin(dim=-3),
}
MAX_FLOW_TOKENS = 260  # one max-flow per patch: 3 s at 197 tokens and 12 layers, minutes at 577


def __getattr__(name: str) -> Any:
    """The table that is made of these functions, under its public name: `explorer.maps.METHODS`."""
    if name in ("METHODS", "Method"):
        return getattr(importlib.import_module("explorer.methods"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---- parts of a trace ------------------------------------------------------------------------------


def gradient_of(trace: Trace, target: int | None, contrast: Contrast = None) -> Tensor:
    """(L, H, T, T) ∂y/∂A, or one sentence on how to get it."""
    if trace.attn_grad is None:
        raise ValueError("This method explains a class: trace(model, image, target=...) it first.")
    if target is not None and target != trace.target:
        raise ValueError(
            f"This trace holds the gradients of class {trace.target}, not of class {target}: "
            f"trace(model, image, target={target}) it again."
        )
    if contrast is not None and contrast != trace.contrast:
        raise ValueError(
            f"This trace holds gradients of {_against(trace.contrast)}, not of {_against(contrast)}: "
            f"trace(model, image, target={trace.target}, contrast={contrast!r}) it again."
        )
    return trace.attn_grad


def _against(contrast: Contrast) -> str:
    return "the class by itself" if contrast is None else f"the class against {contrast}"


def rows_of(trace: Trace, query: Query, model: ViT | None) -> list[int]:
    """The rows of attention to read; their mean is the map."""
    if query is None and model is not None:
        return pooled_rows(model, num_tokens(trace))
    if query is None:
        return [0] if trace.num_prefix_tokens else list(range(num_tokens(trace)))
    rows = [index(row) for row in torch.as_tensor(query).reshape(-1).tolist()]
    tokens = num_tokens(trace)
    if not rows or not all(-tokens <= row < tokens for row in rows):
        raise ValueError(f"There is no token {query}: this image has {tokens}, 0 to {tokens - 1}.")
    return [row % tokens for row in rows]


def one_hot(trace: Trace, rows: list[int]) -> Tensor:
    """(T,): 1, shared among the rows."""
    row = torch.zeros(num_tokens(trace))
    return row.index_add_(0, torch.tensor(rows), torch.full((len(rows),), 1 / len(rows)))


def start_row(trace: Trace, query: Query, model: ViT | None) -> Tensor:
    """(T,): where a walk through depth starts, one token, several alike, or, where attention pools and no
    query is given, what the pooling reads of each."""
    if query is None and trace.pool_attn is not None:
        return trace.pool_attn.mean(dim=0)
    return one_hot(trace, rows_of(trace, query, model))


def fused_heads(attn: Tensor, fuse: str) -> Tensor:
    if fuse not in FUSE:
        raise ValueError(f"Heads can be fused by {', '.join(FUSE)}, not by {fuse!r}.")
    return FUSE[fuse](attn)


def transitions(trace: Trace, fuse: str, discard: float, layer: int) -> Tensor:
    """(L, T, T): Ā of every layer up to `layer`, rows to sum 1."""
    if not 0 <= discard < 1:
        raise ValueError(f"discard is a share of the patches, from 0 to less than 1, not {discard}.")
    fused = fused_heads(trace.all_attn()[: layer_at(trace, layer) + 1], fuse)
    dropped = int(discard * num_patches(trace))
    if dropped:  # per row, so that flat rows are not emptied for sharp ones
        patches = fused[..., trace.num_prefix_tokens :]
        smallest = patches.topk(dropped, largest=False).indices
        kept = torch.ones_like(patches).scatter_(-1, smallest, 0)
        fused = torch.cat([fused[..., : trace.num_prefix_tokens], patches * kept], dim=-1)
    sums = fused.sum(dim=-1, keepdim=True)  # keepdim: rows, not columns
    if sums.min() > 0:
        return fused / sums
    return torch.where(sums > 0, fused / sums, torch.eye(fused.shape[-1]).to(fused))  # lost all: stays put


def to_map(trace: Trace, row: Tensor) -> Tensor:
    """(T,) -> (h, w): without the prefix tokens."""
    return row[trace.num_prefix_tokens :].float().cpu().unflatten(0, trace.grid_size)


def layer_at(trace: Trace, layer: int) -> int:
    """The index from the front."""
    depth = len(trace.tokens) - 1
    if not -depth <= layer < depth:
        raise ValueError(f"There is no layer {layer}: this model has {depth}, 0 to {depth - 1}.")
    return layer % depth


def head_at(trace: Trace, head: int) -> int:
    heads = trace.attn.shape[1]
    if not -heads <= head < heads:
        raise ValueError(f"There is no head {head}: each layer has {heads}, 0 to {heads - 1}.")
    return head % heads


def num_patches(trace: Trace) -> int:
    return trace.grid.count


def num_tokens(trace: Trace) -> int:
    return trace.num_prefix_tokens + num_patches(trace)


# ---- what the attention says: no class, no further pass --------------------------------------------


def attention(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    head: int | None = None,
    fuse: str = "mean",
    model: ViT | None = None,
) -> Tensor:
    """Where the query looks: a row of one layer's attention.

    map_j = A[l, h][q, j], heads fused.  Vaswani et al. 2017, eq. 1.  Cost: none, it is in the trace.
    What fell on prefix tokens is not on the map, so it sums to less than 1.
    """
    attn = trace.all_attn()[layer_at(trace, layer)]  # (H, T, T)
    fused = fused_heads(attn, fuse) if head is None else attn[head_at(trace, head)]  # (T, T)
    return to_map(trace, fused[rows_of(trace, query, model)].mean(dim=0))


def attention_all_layers(
    trace: Trace, *, query: Query = None, fuse: str = "mean", model: ViT | None = None
) -> Tensor:
    """Where the query looks, averaged over the layers.

    map_j = mean_l Ā_l[q, j].  Vaswani et al. 2017, eq. 1.  Cost: none.
    """
    fused = fused_heads(trace.all_attn(), fuse)  # (L, T, T)
    return to_map(trace, fused[:, rows_of(trace, query, model)].mean(dim=(0, 1)))


def pooling_attention(trace: Trace, *, fuse: str = "mean") -> Tensor:
    """Where the learned query of attention pooling looks: what the head reads of each patch.

    map_j = A_pool[h, j], its heads fused.  Zhai et al. 2022, "Scaling Vision Transformers"; SigLIP.
    Cost: none, it is in the trace.  Raises ValueError for a model that does not pool by attention.
    """
    if trace.pool_attn is None:
        raise ValueError("This model does not pool by attention: look at the attention of its layers.")
    return to_map(trace, fused_heads(trace.pool_attn[:, None], fuse)[0])  # (H', 1, T) -> (T,)


@torch.no_grad()
def value_weighted(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    head: int | None = None,
    model: ViT,
) -> Tensor:
    """How long the vector is that each patch sends: a weight on a short value is a small message.

    map_j = ‖Σ_h A[l, h][q, j] · v[l, h, j] W_o[l, h]‖, with the layer scale.
    Kobayashi et al. 2020, "Attention is Not Only a Weight", eq. 5.  Cost: one value projection.
    """
    layer = layer_at(trace, layer)
    weight = next(model.parameters())
    block = block_at(model, layer)
    attn = trace.all_attn()[layer].to(weight)  # (H, T, T)
    sent = values(block, trace.tokens[layer].to(weight)) @ output_matrices(block)  # (H, T, D)
    if head is not None:
        one = slice(head_at(trace, head), head_at(trace, head) + 1)
        attn, sent = attn[one], sent[one]
    looked = attn[:, rows_of(trace, query, model)]  # (H, R, T)
    products = torch.einsum("hjd,gjd->jhg", sent, sent)  # (T, H, H): ‖Σ_h a_h s_h‖² = Σ_hg a_h a_g s_h·s_g
    squares = torch.einsum("hrj,jhg,grj->rj", looked, products, looked)  # (R, T)
    return to_map(trace, squares.clamp(min=0).sqrt().mean(dim=0))


def rollout(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    fuse: str = "mean",
    residual: float = 0.5,
    discard: float = 0.0,
    model: ViT | None = None,
) -> Tensor:
    """Attention multiplied through depth, half of every token staying where it is.

    Â_l = ρ I + (1 − ρ) Ā_l,  R_l = Â_l R_{l−1},  R_0 = I;  map = R[q].  Only row q is pushed down.
    Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", eq. 1.  Cost: none.

    layer: up to and with which one. residual: ρ. discard: the share of patches, per
    row, whose weights are dropped, the smallest first; prefix tokens stay, and rows sum to 1 again.
    """
    if not 0 <= residual <= 1:
        raise ValueError(f"residual is a share between 0 and 1, not {residual}.")
    looked = transitions(trace, fuse, discard, layer)  # (L, T, T)
    row = start_row(trace, query, model).to(looked)  # (T,)
    for attn in looked.flip(0):
        row = residual * row + (1 - residual) * (row @ attn)
    return to_map(trace, row)


def rollout_all(trace: Trace, *, fuse: str = "mean", residual: float = 0.5, discard: float = 0.0) -> Tensor:
    """(L+1, T, T): the rollout at every depth at once, `rollout_all(trace)[l]` after l layers."""
    looked = transitions(trace, fuse, discard, -1)
    rolled = looked.new_empty(len(looked) + 1, *looked.shape[1:])
    torch.eye(looked.shape[-1], out=rolled[0])
    for at, attn in enumerate(looked):  # ρ R + (1 − ρ) Ā R: the identity is never built
        torch.addmm(rolled[at], attn, rolled[at], beta=residual, alpha=1 - residual, out=rolled[at + 1])
    return rolled


def flow(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    fuse: str = "mean",
    residual: float = 0.5,
    model: ViT | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """How much could flow from each patch to the query, if attention weights were widths of pipes.

    map_j = max-flow from (L, q) to (0, j) in the graph of (L+1)·T nodes with edge
    (l, i) → (l−1, j) of capacity Â_l[i, j], as in rollout.  Abnar & Zuidema 2020, section 3.
    Cost: one max-flow per patch, on L·T² edges: small grids only.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    tokens = num_tokens(trace)
    if tokens > MAX_FLOW_TOKENS:
        raise ValueError(
            f"Attention flow solves one max-flow problem per patch and is bounded to "
            f"{MAX_FLOW_TOKENS} tokens; this image has {tokens}: take rollout instead."
        )
    looked = transitions(trace, fuse, 0.0, layer).double().numpy()
    depth = len(looked)
    capacity = (1 - residual) * looked + residual * np.eye(tokens)  # (L, T, T)
    unit = 2**30  # scipy's flows are 32-bit integers; no path carries more than 1
    widths = (capacity * unit).round().astype(np.int32)
    # node l·T + i is token i after l + 1 layers; two more are the patch, and what feeds the query's rows
    patch, source = depth * tokens, depth * tokens + 1
    rows = np.array(rows_of(trace, query, model))
    above, token, key = np.indices((depth - 1, tokens, tokens))  # of layers 1 to L-1
    fed = (above < depth - 2) | np.isin(token, rows)  # of the last layer only the query's rows are
    every = np.arange(tokens)
    starts = [((above + 1) * tokens + token)[fed], every, np.full(len(rows), source)]
    ends = [(above * tokens + key)[fed], np.full(tokens, patch), (depth - 1) * tokens + rows]
    wide = [widths[1:][fed], np.ones(tokens, np.int32), np.full(len(rows), round(unit / len(rows)), np.int32)]
    places = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.concatenate(wide), places), shape=(source + 1, source + 1)).tocsr()
    into_patch = np.flatnonzero(graph.indices == patch)  # a pipe from every token
    flows = []
    for sink in range(trace.num_prefix_tokens, tokens):
        graph.data[into_patch] = widths[0][:, sink]
        flows.append(maximum_flow(graph, source, patch).flow_value / unit)
        if progress:
            progress(len(flows), tokens - trace.num_prefix_tokens)
    return torch.tensor(flows, dtype=torch.float32).unflatten(0, trace.grid_size)


# ---- attention and its gradient: the trace needs a target ------------------------------------------


def attention_gradient(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    head: int | None = None,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT | None = None,
) -> Tensor:
    """Attention of one layer, weighed by what it does for the class.

    map_j = mean_h (A[l, h] ⊙ ∂y/∂A[l, h])₊ [q, j].  Chefer et al. 2021 (ICCV), eq. 5, one layer.
    Cost: the trace's backward pass.
    """
    layer = layer_at(trace, layer)
    weighed = (trace.attn[layer] * gradient_of(trace, target, contrast)[layer]).clamp(min=0)  # (H, T, T)
    fused = weighed.mean(dim=0) if head is None else weighed[head_at(trace, head)]
    return to_map(trace, fused[rows_of(trace, query, model)].mean(dim=0))


def gradient_rollout(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT | None = None,
) -> Tensor:
    """Rollout of attention ⊙ gradient.

    Ā_l = (mean_h A[l, h] ⊙ ∂y/∂A[l, h])₊,  Â_l = rows of (Ā_l + I) to sum 1,  R_l = Â_l R_{l−1}.
    Gildenblat 2020, "Exploring Explainability for Vision Transformers".  Cost: the trace's backward pass.
    Heads are averaged before the clamp, so that opposite signs cancel, and gradients are small next
    to I: the product is nearly I + Σ_l Ā_l. Without a query, what no attention carried, the product
    of the I alone, is left out: under mean pooling it would give all patches nearly the same.
    """
    attn, grad = trace.all_attn(), gradient_of(trace, target, contrast)
    stayed = start_row(trace, query, model).to(attn)
    carried = torch.zeros_like(stayed)
    for at in reversed(range(layer_at(trace, layer) + 1)):
        fused = (attn[at] * grad[at]).mean(dim=0).clamp_(min=0)  # (T, T)
        sums = 1 + fused.sum(dim=-1)  # of the rows of Ā + I
        stayed, carried = stayed / sums, carried / sums
        carried = carried + (stayed + carried) @ fused
    return to_map(trace, carried if query is None else stayed + carried)


def relevance(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT | None = None,
) -> Tensor:
    """Class relevance: attention's positive pull on the class, gathered through depth.

    Ā_l = mean_h (A[l, h] ⊙ ∂y/∂A[l, h])₊,  R_l = R_{l−1} + Ā_l R_{l−1},  R_0 = I;  map = R_L[q].
    Chefer, Gur & Wolf 2021 (ICCV), "Generic Attention-model Explainability", eqs. 5 and 6: clamped
    before the heads are averaged, and rows are not normalised.  Cost: the trace's backward pass.
    Without a query, map = (R_L − I)[q]: under mean pooling every patch would start with the same 1/P.
    """
    attn, grad = trace.all_attn(), gradient_of(trace, target, contrast)
    start = start_row(trace, query, model).to(attn)  # I[q]
    carried = torch.zeros_like(start)  # (R − I)[q]
    for at in reversed(range(layer_at(trace, layer) + 1)):
        fused = (attn[at] * grad[at]).clamp_(min=0).mean(dim=0)  # (T, T)
        carried = carried + (start + carried) @ fused
    return to_map(trace, carried if query is None else start + carried)


def attention_gradcam(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT | None = None,
) -> Tensor:
    """Heads added up, each by how much the class wants more of it.

    α_h = mean over patches j of ∂y/∂A[l, h][q, j];  map_j = (Σ_h α_h A[l, h][q, j])₊.
    Chefer, Gur & Wolf 2021 (CVPR), "Transformer Interpretability Beyond Attention Visualization",
    their GradCAM baseline.  Cost: the trace's backward pass.
    """
    rows, layer = rows_of(trace, query, model), layer_at(trace, layer)
    attn = trace.attn[layer][:, rows, trace.num_prefix_tokens :]  # (H, R, P)
    alpha = gradient_of(trace, target, contrast)[layer][:, rows, trace.num_prefix_tokens :].mean(dim=-1)
    per_row = torch.einsum("hr,hrp->rp", alpha, attn).clamp(min=0)
    return per_row.mean(dim=0).unflatten(0, trace.grid_size)
