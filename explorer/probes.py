"""Attribution maps for which the model runs again: forwards, or forwards and backwards.

P patches, D width, (h, w) patch grid, y the logit of the class, ∂ its gradient.  Pure functions
`f(trace, model=..., **options) -> (h, w)` as in explorer/maps.py; the model runs without edits.
Gradients are taken by torch.autograd.grad for the one tensor that is asked about, so that many
threads may share one model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.controls import patch_means
from explorer.ledger import ledger, objective_of
from explorer.maps import Progress, layer_at, num_patches, num_tokens, to_map
from vit.model import ViT
from vit.objective import Contrast, Objective
from vit.trace import Recorder, Trace, gradients_on, missing_gradient

SAMPLES, STEPS = 24, 32  # noisy images of SmoothGrad; points on the way of integrated gradients
HALVES = 256  # of the patches, left out for a regression
BATCH = 32  # images per forward pass where a method needs many, and
GRAPH_BYTES = 2**30  # what autograd may keep of them, where each needs its gradient


# ---- images and what is told of them ---------------------------------------------------------------


def image_for(trace: Trace, model: ViT) -> Tensor:
    """(1, 3, height, width), a copy where and as the model wants it."""
    return trace.image.to(next(model.parameters()), copy=True)[None]


def batch_for(trace: Trace, model: ViT) -> int:
    """How many images to take gradients for at once: in each block autograd keeps of every token about
    eight vectors as wide as the stream and two as wide as the MLP."""
    config = model.config
    of_one = 4 * config.depth * num_tokens(trace) * (8 * config.embed_dim + 2 * config.mlp_dim)
    return max(1, min(BATCH, GRAPH_BYTES // of_one))


def stream_at(trace: Trace, model: ViT, layer: int) -> Tensor:
    """(1, T, D): what `layer` read, as a leaf to take gradients for."""
    return trace.tokens[layer].to(next(model.parameters()), copy=True)[None].requires_grad_()


def per_patch(pixels: Tensor, trace: Trace) -> Tensor:
    """(1, 3, height, width) -> (h, w): the sum over each patch; of a clip (1, F, 3, ...) -> (t, h, w)."""
    summed = pixels[0].float().sum(dim=-3, keepdim=True)  # (1, height, width) or (F, 1, height, width)
    return patch_means(summed, trace.grid_size)[0] * (summed.numel() / trace.grid.count)


def counted(
    model: ViT, objective: Objective, total: int, progress: Progress | None
) -> Callable[[Tensor], Tensor]:
    """(B, 3, height, width) -> y (B,), telling how many images the model has seen."""
    done = 0

    def forward(images: Tensor) -> Tensor:
        nonlocal done
        done = min(total, done + len(images))
        if progress:
            progress(done, total)
        return objective(model(images))

    return forward


# ---- gradients, and what is lost without a patch ----------------------------------------------------


def gradcam(
    trace: Trace, *, layer: int = -1, target: int | None = None, contrast: Contrast = None, model: ViT
) -> Tensor:
    """Channels added up over the grid, each by how much the class wants more of it.

    F = what the layer's attention reads (its norm1);  α_d = mean_j ∂y/∂F[j, d];  map_j = (Σ_d α_d F[j, d])₊.
    Selvaraju et al. 2017, "Grad-CAM", eqs. 1 and 2.  Cost: from that layer, one forward and backward.
    Under [CLS] pooling nothing after the last attention reads a patch: later layers give exactly zero.
    """
    objective = objective_of(trace, model, target, contrast)
    layer = layer_at(trace, layer)
    with gradients_on(model):
        stream = stream_at(trace, model, layer)
        seen = Recorder({"norm1"})
        places = model.places(trace.grid)
        tokens = model.run(stream, layer, layer + 1, places, seen)
        read = stream if model.config.post_norm else seen.seen["norm1"][layer]
        logits = model.read_out(model.run(tokens, layer + 1, places=places))
        (grad,) = torch.autograd.grad(objective(logits[0]), read, allow_unused=True)
    if grad is None:
        raise missing_gradient(model)
    read = read.detach()[0, trace.num_prefix_tokens :]  # (P, D)
    alpha = grad[0, trace.num_prefix_tokens :].mean(dim=0)
    return (read @ alpha).clamp(min=0).float().cpu().unflatten(0, trace.grid_size)


def input_gradient(
    trace: Trace, *, layer: int = 0, target: int | None = None, contrast: Contrast = None, model: ViT
) -> Tensor:
    """Input × gradient on the embedded patches: what each adds to the logit, to first order.

    map_j = Σ_d x_0[j, d] · ∂y/∂x_0[j, d], signed.  Shrikumar et al. 2016, "Not Just a Black Box"
    (arXiv 1605.01713).  layer: the one whose input is explained, the embedding by default.
    Cost: one forward and one backward.
    """
    objective = objective_of(trace, model, target, contrast)
    layer = layer_at(trace, layer)
    with gradients_on(model):
        stream = stream_at(trace, model, layer)
        logits = model.read_out(model.run(stream, layer, places=model.places(trace.grid)))
        (grad,) = torch.autograd.grad(objective(logits[0]), stream)
    return to_map(trace, (stream.detach() * grad)[0].sum(dim=-1).float().cpu())


def legrad(
    trace: Trace,
    *,
    layer: int = -1,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
) -> Tensor:
    """How fast the class rises, at every depth read out on its own, where more attention goes to a patch.

    y_l the logit that the head reads of the stream after layer l;
    map_j = mean_l mean_h mean_i (∂y_l/∂A[l, h][i, j])₊.  Bousselham et al. 2025, "LeGrad", section 3.
    Where attention pools, A[l] is that of the pool, which reads the stream after layer l.
    layer: up to and with which one.  Cost: one forward and one backward, layer by layer.
    """
    objective = objective_of(trace, model, target, contrast)
    depth, places = layer_at(trace, layer) + 1, model.places(trace.grid)
    total, of = torch.zeros(num_tokens(trace)), "pool_attn" if model.config.pool == "attention" else "attn"
    for at in range(depth):
        attn: list[Tensor] = []

        def leaf(name: str, layer: int | None, x: Tensor, attn: list[Tensor] = attn) -> Tensor:
            if name != of:
                return x
            attn.append(x.detach().requires_grad_())  # (1, H, T, T), of the pool (1, H', 1, T)
            return attn[0]

        with gradients_on(model):
            tokens = model.run(stream_at(trace, model, at).detach(), at, at + 1, places, leaf)
            (grad,) = torch.autograd.grad(objective(model.read_out(tokens, leaf)[0]), attn)
        total += grad[0].clamp(min=0).mean(dim=(0, 1)).float().cpu()  # over heads and rows
    return to_map(trace, total / depth)


def smoothgrad(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
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
    objective = objective_of(trace, model, target, contrast)
    if samples < 1:
        raise ValueError(f"SmoothGrad needs at least one sample, not {samples}.")
    image = image_for(trace, model)  # (1, 3, height, width)
    sigma = noise * (trace.image.max() - trace.image.min())
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(image)
    batch = batch_for(trace, model)
    for start in range(0, samples, batch):
        count = min(batch, samples - start)
        epsilon = torch.randn(count, *trace.image.shape, generator=generator) * sigma
        with gradients_on(model):
            noisy = (image + epsilon.to(image)).requires_grad_()
            (grad,) = torch.autograd.grad(objective(model(noisy)).sum(), noisy)
        total += grad.sum(dim=0)
        if progress:
            progress(start + count, samples)
    return per_patch((total / samples).abs(), trace)


@dataclass(frozen=True, eq=False)
class Integrated:
    """Integrated gradients and what they fail to account for."""

    map: Tensor  # (h, w), signed
    gap: float  # Σ map − (y(x) − y(baseline)): zero as steps grow


def integrate(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Integrated:
    """Integrated gradients with their completeness gap, by Captum; see `integrated_gradients`."""
    from captum.attr import IntegratedGradients

    objective = objective_of(trace, model, target, contrast)
    with gradients_on(model):
        image = image_for(trace, model)
        attributions, gap = IntegratedGradients(counted(model, objective, steps, progress)).attribute(
            image,
            baselines=torch.zeros_like(image),
            n_steps=steps,
            method="riemann_middle",
            internal_batch_size=batch_for(trace, model),
            return_convergence_delta=True,
        )
    return Integrated(per_patch(attributions.detach(), trace), float(gap))


def integrated_gradients(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Tensor:
    """Gradients gathered on the way from a grey image to this one: they add up to the logit's change.

    map = Σ over the patch's pixels of (x − x′) ⊙ mean_α ∂y/∂x(x′ + α (x − x′)), at the midpoints α; x′ is
    zero after normalisation: the card's mean, which often is plain grey.  Sundararajan et al. 2017, eq. 1.
    Signed.  Cost: `steps` forwards and backwards.  `integrate` also reports the completeness gap.
    """
    return integrate(trace, target=target, contrast=contrast, model=model, steps=steps, progress=progress).map


def occlusion(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    progress: Progress | None = None,
) -> Tensor:
    """What the logit loses when one patch, of the model's own grid, is painted grey.

    map_j = y(x) − y(x with patch j at zero after normalisation), signed, by Captum.
    Zeiler & Fergus 2014, section 4.2.  Cost: P forwards, batched.
    """
    from captum.attr import Occlusion

    objective = objective_of(trace, model, target, contrast)
    p = model.config.patch_size
    frames = (model.config.tubelet,) * model.config.is_clip
    window = (*frames, trace.image.shape[-3], p, p)
    image = image_for(trace, model)
    attributions = Occlusion(counted(model, objective, num_patches(trace), progress)).attribute(
        image, window, strides=window, perturbations_per_eval=BATCH
    )
    first = attributions[0].float().cpu().select(-3, 0)[..., ::p, ::p]  # (h, w), of a clip (F, h, w)
    return first[:: model.config.tubelet] if frames else first


@torch.no_grad()
def knockout(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    progress: Progress | None = None,
) -> Tensor:
    """What the logit loses when no token can attend to a patch, in any layer.

    map_j = y(x) − y(x without token j; a mean pool leaves it out too), signed: the `MaskPatches` edit,
    done by leaving the token out, which is the same and runs on the fused kernels.
    Geva et al. 2023, "Dissecting Recall of Factual Associations", section 4.  Cost: P forwards, batched.
    """
    objective = objective_of(trace, model, target, contrast)
    tokens = model.embed(image_for(trace, model))[0]  # (T, D)
    places = model.places(trace.grid)
    y = objective(model.read_out(model.run(tokens[None], places=places))[0])
    everything = torch.arange(len(tokens))
    patches = everything[trace.num_prefix_tokens :]
    losses = []
    for some in patches.split(BATCH):
        kept = torch.stack([everything[everything != patch] for patch in some])  # (n, T−1)
        logits = model.read_out(model.run(tokens[kept], places=places[kept]))
        losses.append(y - objective(logits))
        if progress:
            progress(sum(map(len, losses)), len(patches))
    return torch.cat(losses).float().cpu().unflatten(0, trace.grid_size)


@dataclass(frozen=True, eq=False)
class Regression:
    """What patches are worth, as fitted, and how surely."""

    map: Tensor  # (h, w), signed, in units of the logit
    error: Tensor  # (h, w): standard errors; what the ridge pulls towards zero is not in them
    ridge: float  # λ
    explained: float  # share of y's variance over the halves that the fit explains (R²)


@torch.no_grad()
def regress(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    passes: int = HALVES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Regression:
    """Ridge regression on random halves of the patches, with its standard errors; see `ridge`."""
    if passes < 8:
        raise ValueError(f"A regression needs at least 8 passes, not {passes}.")
    objective = objective_of(trace, model, target, contrast)
    tokens = model.embed(image_for(trace, model))[0]  # (T, D)
    places, prefix, P = model.places(trace.grid), trace.num_prefix_tokens, num_patches(trace)
    if P < 2:
        raise ValueError("One patch has no halves: this picture is a single patch.")
    draws = torch.rand(passes, P, generator=torch.Generator().manual_seed(seed))
    halves = draws.argsort(dim=1)[:, : P // 2]  # (n, P // 2), of each row other patches
    y = []
    for some in halves.split(BATCH):
        kept = torch.cat([torch.arange(prefix).expand(len(some), -1), some + prefix], dim=1)
        y.append(objective(model.read_out(model.run(tokens[kept], places=places[kept]))).double().cpu())
        if progress:
            progress(sum(map(len, y)), passes)
    X = torch.zeros(passes, P, dtype=torch.float64).scatter_(1, halves, 1)
    whole = float(objective(model.read_out(model.run(tokens[None], places=places))[0]))
    beta, error, strength, explained = ridge_fit(X, torch.cat(y), whole)
    beta, error = (trace.grid.unflatten(x.float()) for x in (beta, error))
    return Regression(beta, error, strength, explained)


def ridge_fit(X: Tensor, y: Tensor, whole: float) -> tuple[Tensor, Tensor, float, float]:
    """β (P,), its standard errors, λ and R² of y (n,) on presences X (n, P) of which every row has as many.

    β = Xᵀ(XXᵀ + λI)⁻¹(y − ȳ) on centred X, λ by generalised cross-validation (Golub, Heath & Wahba 1979).
    Rows of equal size leave one thing open, how much all patches weigh together: β is moved by a constant so
    that the fit meets y of the whole picture. Errors: σ² = RSS / (n − 1 − tr H), Cov β = σ² Xᵀ(XXᵀ + λI)⁻²X.
    """
    n, P = X.shape
    present, mean = float(X[0].sum()), y.mean()
    X, y = X - X.mean(dim=0), y - mean
    size, U = torch.linalg.eigh(X @ X.mT)  # (n,), (n, n)
    size, seen = size.clamp(min=0), U.mT @ y

    def score(strength: float) -> float:
        left = strength / (size + strength)  # 1 − the eigenvalues of H
        return float((left * seen).square().sum() / (left.sum() - 1).square())

    strengths = (
        (float(size.mean()) * torch.logspace(-3, 3, 49, dtype=torch.float64)).clamp(min=1e-12).tolist()
    )
    strength = min(strengths, key=score)
    shrunk = size + strength
    beta = X.mT @ (U @ (seen / shrunk))  # (P,)
    left = strength / shrunk
    rss = float((left * seen).square().sum())
    variance = rss / max(float(left.sum()) - 1, 1.0)
    spread = (X.mT @ U / shrunk).square().sum(dim=1)  # (P,): the diagonal of Xᵀ(XXᵀ + λI)⁻²X
    total = (whole - float(mean)) / (1 - present / P) / P - float(beta.mean())
    error = (variance * (spread + 1 / n / (P - present) ** 2)).sqrt()
    return beta + total, error, strength, 1 - rss / max(float(y.square().sum()), 1e-300)


def ridge(
    trace: Trace,
    *,
    target: int | None = None,
    contrast: Contrast = None,
    model: ViT,
    passes: int = HALVES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """What a patch adds to the logit on average, while a random half of the patches is left out.

    map = β of the ridge regression of y on which patches are there, signed; those left out are not in the
    sequence.  Ribeiro et al. 2016, "Why Should I Trust You?" (LIME), section 3, with all halves weighed
    alike; Hoerl & Kennard 1970.  Cost: `passes` forwards on half of the tokens.  `regress` also tells the
    standard errors.
    """
    return regress(
        trace,
        target=target,
        contrast=contrast,
        model=model,
        passes=passes,
        seed=seed,
        progress=progress,
    ).map


def logit_ledger(
    trace: Trace, *, layer: int = -1, target: int | None = None, contrast: Contrast = None, model: ViT
) -> Tensor:
    """What the heads of all layers carried from each patch straight into the logit.

    map_j = Σ_{l, h} A[l, h][q, j] · (v[l, h, j] W_o[l, h]) · u, signed, u the read-out with frozen σ;
    where patches are pooled, what patch j brought itself, x₀[j] · u, is part of it.
    layer: up to and with which one.
    Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; exact, see explorer/ledger.py.
    Cost: less than half a forward pass; about one where patches are pooled.
    """
    return ledger(trace, model, target, contrast).map(layer_at(trace, layer) + 1)
