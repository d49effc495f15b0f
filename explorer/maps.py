"""Attribution methods: from a trace to an (h, w) map of how much each patch mattered.

L layers, H heads, T tokens, P patches, D width, d width of one head, (h, w) patch grid.
A[l, h] is attention (rows are queries and sum to 1), Ā one matrix fused from a layer's heads, y the
logit of the class, ∂ its gradient, ⊙ the elementwise product, (·)₊ clamping at zero.

Every method is a pure function `f(trace, **options) -> (h, w)`; one row in `METHODS` makes it appear
in the app, on the command line, in the tests and in the faithfulness table.  Options that mean the
same everywhere:
    query    whose row is read: a token's index, or several (their mean); None: the rows that the
             class is read from, [CLS] or, where there is none (or `model` says so), all patches
    layer    an index, negative ones count from the end; for products over depth the last factor
    head     an index; None: all heads, fused by `fuse`: "mean", "max" or "min"
    model    for methods that run it again; `target` is the class to explain (default: the
             trace's target, else the model's answer); `progress(done, total)` hears about long work
Gradients are taken by torch.autograd.grad for the one tensor that is asked about, so that many
threads may share one model.  Maps are raw: not smoothed, not stretched to [0, 1].
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.ledger import block_at, class_to_explain, ledger, output_matrices, pooled_rows, values
from vit.model import ViT, ViTConfig, shown_at
from vit.trace import Recorder, Trace

Query = int | Sequence[int] | None
Progress = Callable[[int, int], None]  # (passes done, passes in all)

FUSE: dict[str, Callable[[Tensor], Tensor]] = {  # (..., H, T, T) -> (..., T, T)
    "mean": lambda attn: attn.mean(dim=-3),
    "max": lambda attn: attn.amax(dim=-3),
    "min": lambda attn: attn.amin(dim=-3),
}
MAX_FLOW_TOKENS = 260  # one max-flow per patch: 3 s at 197 tokens and 12 layers, minutes at 577
SAMPLES, STEPS = 24, 32  # noisy images of SmoothGrad; points on the way of integrated gradients
BATCH = 32  # images per forward pass where a method needs many, and
GRAPH_BYTES = 2**30  # what autograd may keep of them, where each needs its gradient


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
    attn = trace.all_attn()[_layer(trace, layer)]  # (H, T, T)
    fused = _fuse(attn, fuse) if head is None else attn[_head(trace, head)]  # (T, T)
    return _map(trace, fused[_rows(trace, query, model)].mean(dim=0))


def attention_all_layers(
    trace: Trace, *, query: Query = None, fuse: str = "mean", model: ViT | None = None
) -> Tensor:
    """Where the query looks, averaged over the layers.

    map_j = mean_l Ā_l[q, j].  Vaswani et al. 2017, eq. 1.  Cost: none.
    """
    fused = _fuse(trace.all_attn(), fuse)  # (L, T, T)
    return _map(trace, fused[:, _rows(trace, query, model)].mean(dim=(0, 1)))


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
    layer = _layer(trace, layer)
    weight = next(model.parameters())
    block = block_at(model, layer)
    attn = trace.all_attn()[layer].to(weight)  # (H, T, T)
    sent = values(block, trace.tokens[layer].to(weight)) @ output_matrices(block)  # (H, T, D)
    if head is not None:
        one = slice(_head(trace, head), _head(trace, head) + 1)
        attn, sent = attn[one], sent[one]
    looked = attn[:, _rows(trace, query, model)]  # (H, R, T)
    products = torch.einsum("hjd,gjd->jhg", sent, sent)  # (T, H, H): ‖Σ_h a_h s_h‖² = Σ_hg a_h a_g s_h·s_g
    squares = torch.einsum("hrj,jhg,grj->rj", looked, products, looked)  # (R, T)
    return _map(trace, squares.clamp(min=0).sqrt().mean(dim=0))


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
    looked = _transitions(trace, fuse, discard, layer)  # (L, T, T)
    row = _one_hot(trace, _rows(trace, query, model)).to(looked)  # (T,)
    for attn in looked.flip(0):
        row = residual * row + (1 - residual) * (row @ attn)
    return _map(trace, row)


def rollout_all(trace: Trace, *, fuse: str = "mean", residual: float = 0.5, discard: float = 0.0) -> Tensor:
    """(L+1, T, T): the rollout at every depth at once, `rollout_all(trace)[l]` after l layers."""
    looked = _transitions(trace, fuse, discard, -1)
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

    tokens = _num_tokens(trace)
    if tokens > MAX_FLOW_TOKENS:
        raise ValueError(
            f"Attention flow solves one max-flow problem per patch and is bounded to "
            f"{MAX_FLOW_TOKENS} tokens; this image has {tokens}: take rollout instead."
        )
    looked = _transitions(trace, fuse, 0.0, layer).double().numpy()
    depth = len(looked)
    capacity = (1 - residual) * looked + residual * np.eye(tokens)  # (L, T, T)
    # node l·T + i is token i after l layers; one node more is the source, which feeds the query's rows
    after, token, key = np.indices(capacity.shape).reshape(3, -1)
    source = (depth + 1) * tokens
    rows = np.array(_rows(trace, query, model))
    starts = np.concatenate([(after + 1) * tokens + token, np.full(len(rows), source)])
    ends = np.concatenate([after * tokens + key, depth * tokens + rows])
    widths = np.concatenate([capacity.ravel(), np.full(len(rows), 1 / len(rows))])
    unit = 2**30  # scipy's flows are 32-bit integers; no path carries more than 1
    widths = (widths * unit).round().astype(np.int32)
    graph = coo_array((widths, (starts, ends)), shape=(source + 1, source + 1)).tocsr()
    flows = []
    for sink in range(trace.num_prefix_tokens, tokens):
        flows.append(maximum_flow(graph, source, sink).flow_value / unit)
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
    model: ViT | None = None,
) -> Tensor:
    """Attention of one layer, weighed by what it does for the class.

    map_j = mean_h (A[l, h] ⊙ ∂y/∂A[l, h])₊ [q, j].  Chefer et al. 2021 (ICCV), eq. 5, one layer.
    Cost: the trace's backward pass.
    """
    layer = _layer(trace, layer)
    weighed = (trace.attn[layer] * _gradient(trace, target)[layer]).clamp(min=0)  # (H, T, T)
    fused = weighed.mean(dim=0) if head is None else weighed[_head(trace, head)]
    return _map(trace, fused[_rows(trace, query, model)].mean(dim=0))


def gradient_rollout(
    trace: Trace,
    *,
    query: Query = None,
    target: int | None = None,
    model: ViT | None = None,
) -> Tensor:
    """Rollout of attention ⊙ gradient.

    Ā_l = (mean_h A[l, h] ⊙ ∂y/∂A[l, h])₊,  Â_l = rows of (Ā_l + I) to sum 1,  R_l = Â_l R_{l−1}.
    Gildenblat 2020, "Exploring Explainability for Vision Transformers".  Cost: the trace's backward pass.
    Heads are averaged before the clamp, so that opposite signs cancel, and gradients are small next
    to I: the product is nearly I + Σ_l Ā_l. Without a query, what no attention carried, the product
    of the I alone, is left out: under mean pooling it would give all patches nearly the same.
    """
    attn, grad = trace.all_attn(), _gradient(trace, target)
    stayed = _one_hot(trace, _rows(trace, query, model)).to(attn)
    carried = torch.zeros_like(stayed)
    for layer in reversed(range(len(attn))):
        fused = (attn[layer] * grad[layer]).mean(dim=0).clamp_(min=0)  # (T, T)
        sums = 1 + fused.sum(dim=-1)  # of the rows of Ā + I
        stayed, carried = stayed / sums, carried / sums
        carried = carried + (stayed + carried) @ fused
    return _map(trace, carried if query is None else stayed + carried)


def relevance(
    trace: Trace,
    *,
    query: Query = None,
    target: int | None = None,
    model: ViT | None = None,
) -> Tensor:
    """Class relevance: attention's positive pull on the class, gathered through depth.

    Ā_l = mean_h (A[l, h] ⊙ ∂y/∂A[l, h])₊,  R_l = R_{l−1} + Ā_l R_{l−1},  R_0 = I;  map = R_L[q].
    Chefer, Gur & Wolf 2021 (ICCV), "Generic Attention-model Explainability", eqs. 5 and 6: clamped
    before the heads are averaged, and rows are not normalised.  Cost: the trace's backward pass.
    Without a query, map = (R_L − I)[q]: under mean pooling every patch would start with the same 1/P.
    """
    attn, grad = trace.all_attn(), _gradient(trace, target)
    start = _one_hot(trace, _rows(trace, query, model)).to(attn)  # I[q]
    carried = torch.zeros_like(start)  # (R − I)[q]
    for layer in reversed(range(len(attn))):
        fused = (attn[layer] * grad[layer]).clamp_(min=0).mean(dim=0)  # (T, T)
        carried = carried + (start + carried) @ fused
    return _map(trace, carried if query is None else start + carried)


def attention_gradcam(
    trace: Trace,
    *,
    query: Query = None,
    layer: int = -1,
    target: int | None = None,
    model: ViT | None = None,
) -> Tensor:
    """Heads added up, each by how much the class wants more of it.

    α_h = mean over patches j of ∂y/∂A[l, h][q, j];  map_j = (Σ_h α_h A[l, h][q, j])₊.
    Chefer, Gur & Wolf 2021 (CVPR), "Transformer Interpretability Beyond Attention Visualization",
    their GradCAM baseline.  Cost: the trace's backward pass.
    """
    rows, layer = _rows(trace, query, model), _layer(trace, layer)
    attn = trace.attn[layer][:, rows, trace.num_prefix_tokens :]  # (H, R, P)
    alpha = _gradient(trace, target)[layer][:, rows, trace.num_prefix_tokens :].mean(dim=-1)
    per_row = torch.einsum("hr,hrp->rp", alpha, attn).clamp(min=0)
    return per_row.mean(dim=0).unflatten(0, trace.grid_size)


# ---- the model runs again --------------------------------------------------------------------------


def gradcam(trace: Trace, *, layer: int = -1, target: int | None = None, model: ViT) -> Tensor:
    """Channels added up over the grid, each by how much the class wants more of it.

    F = what the layer's attention reads (its norm1);  α_d = mean_j ∂y/∂F[j, d];  map_j = (Σ_d α_d F[j, d])₊.
    Selvaraju et al. 2017, "Grad-CAM", eqs. 1 and 2.  Cost: from that layer, one forward and backward.
    Under [CLS] pooling nothing after the last attention reads a patch: later layers give exactly zero.
    """
    target = class_to_explain(trace, model, target)
    layer = _layer(trace, layer)
    block = block_at(model, layer)
    with torch.enable_grad():
        stream = _stream(trace, model, layer)
        seen = Recorder({"norm1"})
        tokens = block(stream, shown_at(layer, seen))
        read = stream if block.post_norm else seen.seen["norm1"][layer]
        (grad,) = torch.autograd.grad(model.finish(tokens, layer + 1)[0, target], read)
    read = read.detach()[0, trace.num_prefix_tokens :]  # (P, D)
    alpha = grad[0, trace.num_prefix_tokens :].mean(dim=0)
    return (read @ alpha).clamp(min=0).float().cpu().unflatten(0, trace.grid_size)


def input_gradient(trace: Trace, *, target: int | None = None, model: ViT) -> Tensor:
    """Input × gradient on the embedded patches: what each adds to the logit, to first order.

    map_j = Σ_d x_0[j, d] · ∂y/∂x_0[j, d], signed.  Shrikumar et al. 2016, "Not Just a Black Box"
    (arXiv 1605.01713).  Cost: one forward and one backward.
    """
    target = class_to_explain(trace, model, target)
    with torch.enable_grad():
        stream = _stream(trace, model, 0)
        (grad,) = torch.autograd.grad(model.finish(stream)[0, target], stream)
    return _map(trace, (stream.detach() * grad)[0].sum(dim=-1).float().cpu())


def smoothgrad(
    trace: Trace,
    *,
    target: int | None = None,
    model: ViT,
    samples: int = SAMPLES,
    noise: float = 0.15,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """The pixel gradient, averaged over noisy copies of the image.

    map = Σ over the patch's pixels of |mean_n ∂y/∂x(x + ε_n)|,  ε ~ N(0, (noise · (max x − min x))²).
    Smilkov et al. 2017, "SmoothGrad", section 2.2.  Cost: `samples` forwards and backwards.
    The noise is drawn from a generator of its own: the same map every time, whatever other threads draw.
    """
    target = class_to_explain(trace, model, target)
    if samples < 1:
        raise ValueError(f"SmoothGrad needs at least one sample, not {samples}.")
    image = _image(trace, model)  # (1, 3, height, width)
    sigma = noise * (trace.image.max() - trace.image.min())
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(image)
    batch = _batch(trace, model)
    for start in range(0, samples, batch):
        count = min(batch, samples - start)
        epsilon = torch.randn(count, *trace.image.shape, generator=generator) * sigma
        with torch.enable_grad():
            noisy = (image + epsilon.to(image)).requires_grad_()
            (grad,) = torch.autograd.grad(model(noisy)[:, target].sum(), noisy)
        total += grad.sum(dim=0)
        if progress:
            progress(start + count, samples)
    return _per_patch((total / samples).abs(), trace)


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients and what they fail to account for."""

    map: Tensor  # (h, w), signed
    gap: float  # Σ map − (y(x) − y(baseline)): zero as steps grow


def integrate(
    trace: Trace,
    *,
    target: int | None = None,
    model: ViT,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Integrated:
    """Integrated gradients with their completeness gap, by Captum; see `integrated_gradients`."""
    from captum.attr import IntegratedGradients

    target = class_to_explain(trace, model, target)
    image = _image(trace, model)
    attributions, gap = IntegratedGradients(_counted(model, steps, progress)).attribute(
        image,
        baselines=torch.zeros_like(image),
        target=target,
        n_steps=steps,
        method="riemann_middle",
        internal_batch_size=_batch(trace, model),
        return_convergence_delta=True,
    )
    return Integrated(_per_patch(attributions.detach(), trace), float(gap))


def integrated_gradients(
    trace: Trace,
    *,
    target: int | None = None,
    model: ViT,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Tensor:
    """Gradients gathered on the way from a grey image to this one: they add up to the logit's change.

    map = Σ over the patch's pixels of (x − x′) ⊙ mean_α ∂y/∂x(x′ + α (x − x′)), at the midpoints α; x′ is
    zero after normalisation: the card's mean, which often is plain grey.  Sundararajan et al. 2017, eq. 1.
    Signed.  Cost: `steps` forwards and backwards.  `integrate` also tells the completeness gap.
    """
    return integrate(trace, target=target, model=model, steps=steps, progress=progress).map


def occlusion(
    trace: Trace, *, target: int | None = None, model: ViT, progress: Progress | None = None
) -> Tensor:
    """What the logit loses when one patch, of the model's own grid, is painted grey.

    map_j = y(x) − y(x with patch j at zero after normalisation), signed, by Captum.
    Zeiler & Fergus 2014, section 4.2.  Cost: P forwards, batched.
    """
    from captum.attr import Occlusion

    target = class_to_explain(trace, model, target)
    p = model.config.patch_size
    window = (trace.image.shape[0], p, p)
    image = _image(trace, model)
    attributions = Occlusion(_counted(model, _num_patches(trace), progress)).attribute(
        image, window, strides=window, target=target, perturbations_per_eval=BATCH
    )
    return attributions[0, 0, ::p, ::p].float().cpu()


@torch.no_grad()
def knockout(
    trace: Trace, *, target: int | None = None, model: ViT, progress: Progress | None = None
) -> Tensor:
    """What the logit loses when no token can attend to a patch, in any layer.

    map_j = y(x) − y(x without token j; a mean pool leaves it out too), signed: the `MaskPatches` edit,
    done by leaving the token out, which is the same and runs on the fused kernels.
    Geva et al. 2023, "Dissecting Recall of Factual Associations", section 4.  Cost: P forwards, batched.
    """
    target = class_to_explain(trace, model, target)
    tokens = model.embed(_image(trace, model))[0]  # (T, D)
    y = model.finish(tokens[None])[0, target]
    everything = torch.arange(len(tokens))
    patches = everything[trace.num_prefix_tokens :]
    losses = []
    for some in patches.split(BATCH):
        kept = torch.stack([everything[everything != patch] for patch in some])  # (n, T−1)
        losses.append(y - model.finish(tokens[kept])[:, target])
        if progress:
            progress(sum(map(len, losses)), len(patches))
    return torch.cat(losses).float().cpu().unflatten(0, trace.grid_size)


def logit_ledger(trace: Trace, *, target: int | None = None, model: ViT) -> Tensor:
    """What the heads of all layers carried from each patch straight into the logit.

    map_j = Σ_{l, h} A[l, h][q, j] · (v[l, h, j] W_o[l, h]) · u, signed, u the read-out with frozen σ;
    where patches are pooled, what patch j brought itself, x₀[j] · u, is part of it.
    Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; exact, see explorer/ledger.py.
    Cost: less than half a forward pass; about one where patches are pooled.
    """
    return ledger(trace, model, target).map()


# ---- the table -------------------------------------------------------------------------------------

COMMON = {"query", "layer", "head", "fuse", "model", "target", "progress"}


@dataclass(frozen=True)
class Method:
    """A row of METHODS, called like its function: `METHODS["rollout"](trace, query=3)`.

    Options that mean the same everywhere (query, layer, head, fuse, model, target, progress) may be
    given to every method: None means not given, and those that a method has no use for are left
    out. Another unknown option is a TypeError.
    """

    function: Callable[..., Tensor]
    label: str
    about: str  # one line for the visitor
    formula: str
    source: str
    cost: str
    class_specific: bool = True
    needs_model: bool = False
    needs_grad: bool = False  # a trace with a target
    signed: bool = False
    passes: int = 0  # forward passes, where it takes more than a few; a backward pass counts as two
    passes_per_patch: int = 0

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the method knows."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    @property
    def is_long(self) -> bool:
        """Is it many passes, or other long work, of which it tells the progress?"""
        return "progress" in self.options

    @property
    def entry(self) -> dict[str, Any]:
        """What the viewer is told of it; depends: what its map belongs to."""
        depends = ["target"] * self.class_specific
        about = f"{self.about}  {self.formula}  ({self.source})"
        return {"name": self.name, "label": self.label, "about": about, "depends": depends}

    def refusal(self, config: ViTConfig, num_tokens: int) -> str:
        """Why it says nothing about such a model or picture, in one sentence; empty if it does."""
        if self.class_specific and not config.num_classes:
            return f"{self.label} explains a class, and this model has no classification head."
        if self.function is logit_ledger and config.post_norm:
            return f"{self.label} needs a residual stream that only adds: this model has post_norm."
        if self.function is flow and num_tokens > MAX_FLOW_TOKENS:
            most = f"is made for up to {MAX_FLOW_TOKENS} tokens"
            return f"{self.label} {most}, and this picture has {num_tokens}."
        return ""

    def __call__(self, trace: Trace, **options: object) -> Tensor:
        if self.needs_model and options.get("model") is None:
            raise ValueError(f"{self.label} runs the model again: pass model=.")
        for key in COMMON & options.keys():
            if options[key] is None or key not in self.options:
                del options[key]
        return self.function(trace, **options)


_ROWS = (
    Method(
        attention,
        "Attention",
        "Where the query looks in one layer.",
        "A[l, h][q, j]",
        "Vaswani et al. 2017, eq. 1",
        "none",
        class_specific=False,
    ),
    Method(
        attention_all_layers,
        "Attention, all layers",
        "Where the query looks, averaged over depth.",
        "meanₗ Āₗ[q, j]",
        "Vaswani et al. 2017, eq. 1",
        "none",
        class_specific=False,
    ),
    Method(
        value_weighted,
        "Value-weighted attention",
        "How large a message each patch sends, not how large a weight it gets.",
        "‖Σₕ A[l, h][q, j] · v[j] Wₒ‖",
        "Kobayashi et al. 2020, eq. 5",
        "1 projection",
        class_specific=False,
        needs_model=True,
    ),
    Method(
        rollout,
        "Attention rollout",
        "Attention multiplied through depth, with the residual path.",
        "Rₗ = (½ I + ½ Āₗ) Rₗ₋₁",
        "Abnar & Zuidema 2020, eq. 1",
        "none",
        class_specific=False,
    ),
    Method(
        flow,
        "Attention flow",
        "The most that could flow from each patch through attention's pipes.",
        "max-flow over ½ I + ½ Āₗ",
        "Abnar & Zuidema 2020, sec. 3",
        "P max-flows",
        class_specific=False,
    ),
    Method(
        attention_gradient,
        "Attention × gradient",
        "Attention of one layer, weighed by what it does for the class.",
        "meanₕ (A ⊙ ∂y/∂A)₊",
        "Chefer et al. 2021 (ICCV), eq. 5",
        "1 backward",
        needs_grad=True,
    ),
    Method(
        gradient_rollout,
        "Gradient rollout",
        "Rollout of attention × gradient.",
        "Rₗ = rownorm(I + (meanₕ A ⊙ ∂y/∂A)₊) Rₗ₋₁",
        "Gildenblat 2020",
        "1 backward",
        needs_grad=True,
    ),
    Method(
        relevance,
        "Class relevance",
        "Attention's positive pull on the class, gathered through depth.",
        "Rₗ = Rₗ₋₁ + meanₕ (A ⊙ ∂y/∂A)₊ Rₗ₋₁",
        "Chefer et al. 2021 (ICCV), eqs. 5, 6",
        "1 backward",
        needs_grad=True,
    ),
    Method(
        attention_gradcam,
        "Attention Grad-CAM",
        "Heads of one layer added up, each by how much the class wants it.",
        "(Σₕ αₕ A[l, h][q, j])₊,  αₕ = meanⱼ ∂y/∂A",
        "Chefer et al. 2021 (CVPR), baseline",
        "1 backward",
        needs_grad=True,
    ),
    Method(
        gradcam,
        "Grad-CAM",
        "Channels of the last block's input, each by how much the class wants it.",
        "(Σ_d α_d F[j, d])₊,  α_d = meanⱼ ∂y/∂F",
        "Selvaraju et al. 2017, eqs. 1, 2",
        "1 block, forward and backward",
        needs_model=True,
    ),
    Method(
        input_gradient,
        "Input × gradient",
        "What each embedded patch adds to the logit, to first order.",
        "Σ_d x₀[j, d] · ∂y/∂x₀",
        "Shrikumar et al. 2016",
        "1 forward, 1 backward",
        needs_model=True,
        signed=True,
    ),
    Method(
        smoothgrad,
        "SmoothGrad",
        "The pixel gradient, averaged over noisy copies of the image.",
        "Σ_pixels |meanₙ ∂y/∂x(x + εₙ)|",
        "Smilkov et al. 2017, sec. 2.2",
        f"{SAMPLES} forwards, {SAMPLES} backwards",
        needs_model=True,
        passes=3 * SAMPLES,
    ),
    Method(
        integrated_gradients,
        "Integrated gradients",
        "Gradients gathered between a grey image and this one; they add up to the logit's change.",
        "Σ_pixels (x − x′) ⊙ mean_α ∂y/∂x(x′ + α (x − x′))",
        "Sundararajan et al. 2017, eq. 1",
        f"{STEPS} forwards, {STEPS} backwards",
        needs_model=True,
        signed=True,
        passes=3 * STEPS,
    ),
    Method(
        occlusion,
        "Occlusion",
        "What the logit loses when one patch is painted grey.",
        "y(x) − y(x, patch j grey)",
        "Zeiler & Fergus 2014, sec. 4.2",
        "P forwards",
        needs_model=True,
        signed=True,
        passes_per_patch=1,
    ),
    Method(
        knockout,
        "Attention knock-out",
        "What the logit loses when no token can attend to a patch.",
        "y(x) − y(x, token j unseen)",
        "Geva et al. 2023, sec. 4",
        "P forwards",
        needs_model=True,
        signed=True,
        passes_per_patch=1,
    ),
    Method(
        logit_ledger,
        "Logit ledger",
        "What all heads carried from each patch straight into the logit.",
        "Σₗₕ A[l, h][q, j] · (v[j] Wₒ) · u",
        "Elhage et al. 2021",
        "½ to 1 forward",
        needs_model=True,
        signed=True,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _ROWS}


# ---- helpers ---------------------------------------------------------------------------------------


def _gradient(trace: Trace, target: int | None) -> Tensor:
    """(L, H, T, T) ∂y/∂A, or one sentence on how to get it."""
    if trace.attn_grad is None:
        raise ValueError("This method explains a class: trace(model, image, target=...) it first.")
    if target is not None and target != trace.target:
        raise ValueError(
            f"This trace holds the gradients of class {trace.target}, not of class {target}: "
            f"trace(model, image, target={target}) it again."
        )
    return trace.attn_grad


def _rows(trace: Trace, query: Query, model: ViT | None) -> list[int]:
    """The rows of attention to read; their mean is the map."""
    if query is None and model is not None:
        return pooled_rows(model, _num_tokens(trace))
    if query is None:
        return [0] if trace.num_prefix_tokens else list(range(_num_tokens(trace)))
    rows = [index(row) for row in torch.as_tensor(query).reshape(-1).tolist()]
    tokens = _num_tokens(trace)
    if not rows or not all(-tokens <= row < tokens for row in rows):
        raise ValueError(f"There is no token {query}: this image has {tokens}, 0 to {tokens - 1}.")
    return [row % tokens for row in rows]


def _one_hot(trace: Trace, rows: list[int]) -> Tensor:
    """(T,): 1, shared among the rows."""
    row = torch.zeros(_num_tokens(trace))
    return row.index_add_(0, torch.tensor(rows), torch.full((len(rows),), 1 / len(rows)))


def _fuse(attn: Tensor, fuse: str) -> Tensor:
    if fuse not in FUSE:
        raise ValueError(f"Heads can be fused by {', '.join(FUSE)}, not by {fuse!r}.")
    return FUSE[fuse](attn)


def _transitions(trace: Trace, fuse: str, discard: float, layer: int) -> Tensor:
    """(L, T, T): Ā of every layer up to `layer`, rows to sum 1."""
    if not 0 <= discard < 1:
        raise ValueError(f"discard is a share of the patches, from 0 to less than 1, not {discard}.")
    fused = _fuse(trace.all_attn()[: _layer(trace, layer) + 1], fuse)
    dropped = int(discard * _num_patches(trace))
    if dropped:  # per row, so that flat rows are not emptied for sharp ones
        patches = fused[..., trace.num_prefix_tokens :]
        smallest = patches.topk(dropped, largest=False).indices
        kept = torch.ones_like(patches).scatter_(-1, smallest, 0)
        fused = torch.cat([fused[..., : trace.num_prefix_tokens], patches * kept], dim=-1)
    sums = fused.sum(dim=-1, keepdim=True)  # keepdim: rows, not columns
    if sums.min() > 0:
        return fused / sums
    return torch.where(sums > 0, fused / sums, torch.eye(fused.shape[-1]).to(fused))  # lost all: stays put


def _map(trace: Trace, row: Tensor) -> Tensor:
    """(T,) -> (h, w): without the prefix tokens."""
    return row[trace.num_prefix_tokens :].float().cpu().unflatten(0, trace.grid_size)


def _layer(trace: Trace, layer: int) -> int:
    """The index from the front."""
    depth = len(trace.tokens) - 1
    if not -depth <= layer < depth:
        raise ValueError(f"There is no layer {layer}: this model has {depth}, 0 to {depth - 1}.")
    return layer % depth


def _head(trace: Trace, head: int) -> int:
    heads = trace.attn.shape[1]
    if not -heads <= head < heads:
        raise ValueError(f"There is no head {head}: each layer has {heads}, 0 to {heads - 1}.")
    return head % heads


def _num_patches(trace: Trace) -> int:
    return trace.grid_size[0] * trace.grid_size[1]


def _num_tokens(trace: Trace) -> int:
    return trace.num_prefix_tokens + _num_patches(trace)


def _image(trace: Trace, model: ViT) -> Tensor:
    """(1, 3, height, width), a copy where and as the model wants it."""
    return trace.image.to(next(model.parameters()), copy=True)[None]


def _batch(trace: Trace, model: ViT) -> int:
    """How many images to take gradients for at once: in each block autograd keeps of every token about
    eight vectors as wide as the stream and two as wide as the MLP."""
    config = model.config
    of_one = 4 * config.depth * _num_tokens(trace) * (8 * config.embed_dim + 2 * config.mlp_dim)
    return max(1, min(BATCH, GRAPH_BYTES // of_one))


def _stream(trace: Trace, model: ViT, layer: int) -> Tensor:
    """(1, T, D): what `layer` read, as a leaf to take gradients for."""
    return trace.tokens[layer].to(next(model.parameters()), copy=True)[None].requires_grad_()


def _per_patch(pixels: Tensor, trace: Trace) -> Tensor:
    """(1, 3, height, width) -> (h, w): the sum over each patch."""
    h, w = trace.grid_size
    patches = F.adaptive_avg_pool2d(pixels.float().sum(dim=1), (h, w))[0]
    return (patches * (trace.image[0].numel() / (h * w))).cpu()


def _counted(model: ViT, total: int, progress: Progress | None) -> Callable[[Tensor], Tensor]:
    """The model's forward pass, telling how many images it has seen."""
    done = 0

    def forward(images: Tensor) -> Tensor:
        nonlocal done
        done = min(total, done + len(images))
        if progress:
            progress(done, total)
        return model(images)

    return forward
