"""Figures of heads, layers and tokens, and the self-check: from a trace (or a model) to arrays.

L layers, H heads, T tokens, P patches, D width, K classes, (h, w) patch grid.
Nothing here draws, and each docstring says how to read the figure, because most of them mislead
when read without what they are to be compared with.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.ledger import ledger, pooled_rows
from explorer.maps import rollout_all
from vit.grid import Grid
from vit.model import ViT
from vit.positions import resample_pos_embed
from vit.trace import Replace, Trace, trace

# ---- heads -----------------------------------------------------------------------------------------


def patch_distances(trace: Trace) -> Tensor:
    """(P, P): pixels between the centres of patches; of a clip those within the frame, whatever the time."""
    sides = zip(trace.image.shape[-2:], trace.grid.space)
    standing_still = [0.0] * (len(trace.grid.shape) - 2)
    return trace.grid.distances([*standing_still, *(pixels / patches for pixels, patches in sides)])


def attention_distance(trace: Trace) -> Tensor:
    """(L, H): how far away, in pixels, patches look on average (Dosovitskiy et al. 2021, fig. 7, where it
    is a mean over pictures, too: this is one).

    Prefix keys are dropped and the rest sums to 1 again: weight on [CLS] would pass for looking near.
    Read it against `uniform_distance`: on a small picture even a head that looks nowhere in
    particular has a distance that seems large.
    """
    patches = trace.attn[..., trace.num_prefix_tokens :, trace.num_prefix_tokens :]  # (L, H, P, P)
    distance = (patches * patch_distances(trace)).sum(dim=-1) / patches.sum(dim=-1).clamp(min=1e-12)
    return distance.mean(dim=-1)


def lag_share(trace: Trace) -> Tensor:
    """(L, H, t): of the attention that the patches of a clip give to patches, the share at every distance in
    time, from 0 in the query's own frame to t - 1, whether before or after it.

    Read it against `uniform_lags`: a clip has more pairs of frames that are near than that are far.
    """
    t, prefix = trace.grid.frames, trace.num_prefix_tokens
    patches = trace.attn[..., prefix:, prefix:]  # (L, H, P, P)
    patches = patches / patches.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    frames = patches.unflatten(-1, (t, -1)).sum(dim=-1).unflatten(-2, (t, -1)).mean(dim=-2)  # (L, H, t, t)
    both = [frames.diagonal(lag, -2, -1).sum(-1) + frames.diagonal(-lag, -2, -1).sum(-1) for lag in range(t)]
    return torch.stack([both[0] / 2, *both[1:]], dim=-1) / t


def uniform_lags(grid: Grid) -> Tensor:
    """(t,): `lag_share` of a head that looks everywhere alike."""
    lags = torch.arange(grid.frames)
    return torch.where(lags == 0, 1, 2) * (grid.frames - lags) / grid.frames**2


def time_distance(trace: Trace) -> Tensor:
    """(L, H): how many times away, before or after, the patches of a clip look on average."""
    return (lag_share(trace) * torch.arange(trace.grid.frames)).sum(dim=-1)


def same_time_share(trace: Trace) -> Tensor:
    """(L, H): of the attention of a clip's patches to patches, the share within their own time."""
    return lag_share(trace)[..., 0]


def uniform_distance(trace: Trace) -> float:
    """The attention distance, in pixels, of a head that looks everywhere alike."""
    return float(patch_distances(trace).mean())


def entropy(trace: Trace) -> Tensor:
    """(L, H, T): −Σ A ln A of every row, 0 (one token) to ln T (all alike). e^entropy is how many
    tokens are looked at, in effect. Keep [CLS] rows and patch rows apart when averaging."""
    attn = trace.attn  # 0 ln 0 is 0; torch.special.entr says so, too, in five times the time
    return -attn.clamp(min=torch.finfo(attn.dtype).tiny).log_().mul_(attn).sum(dim=-1)


def prefix_share(trace: Trace) -> Tensor:
    """(L, H, prefix): the share of attention that patches give to [CLS] and each other prefix token.

    The grid cannot show it. A large share in late layers is the rule, and no sign of meaning."""
    return trace.attn[..., trace.num_prefix_tokens :, : trace.num_prefix_tokens].mean(dim=-2)


def self_share(trace: Trace) -> Tensor:
    """(L, H): the share of attention that patches give to themselves; 1/T where a head does not care."""
    return trace.attn.diagonal(dim1=-2, dim2=-1)[..., trace.num_prefix_tokens :].mean(dim=-1)


def sink_share(trace: Trace) -> Tensor:
    """(L, H): what the one most looked-at token gets of all attention; near 1 for a sink."""
    return trace.attn.mean(dim=-2).amax(dim=-1)


def effective_tokens(trace: Trace) -> Tensor:
    """(L, H, T): e^entropy of every row, how many tokens it looks at: 1 where it points, T if all alike."""
    return entropy(trace).exp()


def head_columns(trace: Trace) -> dict[str, Tensor]:
    """{name: (L, H)}: all of the above, the rows of [CLS] and of patches kept apart; what is said of time, of
    clips alone.

    Raises ValueError for a trace of some layers, whose numbers it does not tell.
    """
    trace.all_attn()
    prefix = trace.num_prefix_tokens
    effective = effective_tokens(trace)
    columns = {
        "distance_px": attention_distance(trace),
        "effective_tokens_patches": effective[..., prefix:].mean(dim=-1),
        "prefix_share": prefix_share(trace).sum(dim=-1),
        "self_share": self_share(trace),
        "sink_share": sink_share(trace),
    }
    if prefix and trace.prefix_names[0].startswith("[CLS"):  # and no register
        columns["effective_tokens_cls"] = effective[..., 0]
    if trace.grid.frames > 1:
        columns |= {"times_away": time_distance(trace), "same_time_share": same_time_share(trace)}
    return columns


def head_table(trace: Trace) -> list[dict[str, int | float]]:
    """`head_columns` with one row per head."""
    columns = head_columns(trace)
    L, H = trace.attn.shape[:2]
    return [
        {"layer": layer, "head": head} | {name: float(x[layer, head]) for name, x in columns.items()}
        for layer in range(L)
        for head in range(H)
    ]


def head_similarity(trace: Trace) -> Tensor:
    """(L·H, L·H): correlation between heads' attention matrices, layer by layer; 1 means the same head.

    Correlation and not cosine: all rows sum to 1, so that any two heads would look alike.
    """
    flat = trace.attn.flatten(2).flatten(0, 1)  # (L·H, T·T)
    flat = F.normalize(flat - flat.mean(dim=-1, keepdim=True), dim=-1)
    return flat @ flat.mT


def frame_matches(tokens: Tensor) -> Tensor:
    """(F, F, P): of every frame, for every frame: which of its patches is most like each patch, by the cosine
    of their tokens (F, P, D). What a patch shows is followed so (as labels are in Caron et al. 2021, DINO,
    section 4.2.2), not proven: look-alikes and the background are mixed up."""
    unit = F.normalize(tokens.float(), dim=-1)
    return torch.stack([(unit[f] @ unit.mT).argmax(dim=-1) for f in range(len(unit))])


# ---- tokens through depth --------------------------------------------------------------------------


@torch.no_grad()
def logit_lens(model: ViT, trace: Trace) -> Tensor:
    """(L+1, K): the answer if the model stopped after each layer: final norm, pooling and head, early.

    nostalgebraist 2020. Early layers speak another basis: read ranks, not small differences.
    """
    return model.read_out(trace.tokens.to(next(model.parameters()))).float().cpu()


@torch.no_grad()
def patch_lens(model: ViT, trace: Trace) -> Tensor:
    """(P, K): what the head reads from each patch alone after the last layer, as if it were its token.

    Where the head reads [CLS], it was never taught to read patches: a hint, not an answer.
    """
    patches = trace.tokens[-1, trace.num_prefix_tokens :].to(next(model.parameters()))  # (P, D)
    copies = trace.num_prefix_tokens + 1  # whichever token the pooling takes, it is this one
    return model.read_out(patches[:, None].expand(-1, copies, -1)).float().cpu()


def token_norms(trace: Trace) -> Tensor:
    """(L+1, T): length of every token, in the residual stream and before the final norm.

    Darcet et al. 2024: big models that trained long make some background tokens ten times as long.
    """
    return trace.tokens.norm(dim=-1)


def outliers(norms: Tensor, num_prefix_tokens: int, k: float = 8.0) -> Tensor:
    """(L+1, P) bool: patches of (L+1, T) norms that stand far above the other patches at that depth.

    Far is at least twice the median, and log(norm / median) > k · MAD, the median distance of the logs from
    theirs: k = 8 is 5.4 standard deviations. Lengths are compared by their ratio, because their spread is
    lopsided: of 20,000 pictures of 196 patches without any outlier the rule flags none with
    normal lengths and 1 with log-normal ones, of whatever spread; 9 % where the logs have the heavy tails of
    Student's t with 5 degrees of freedom. Small models may have none.
    """
    patches = norms[:, num_prefix_tokens:].clamp(min=1e-12).log()
    above = patches - patches.median(dim=-1, keepdim=True).values
    mad = above.abs().median(dim=-1, keepdim=True).values
    return above > (k * mad).clamp(min=math.log(2))


def token_similarity(trace: Trace, depth: int, rows: Tensor) -> Tensor:
    """(Q, T): cosine of some tokens with all at one depth; a row is the map of what resembles a patch."""
    return cosines(trace.tokens[depth], rows)


def cosines(tokens: Tensor, rows: Tensor) -> Tensor:
    """(Q, T): cosine of some of the tokens (T, D) with all."""
    unit = F.normalize(tokens, dim=-1)
    return unit[rows] @ unit.mT


@dataclass(frozen=True, eq=False)
class PCA:
    """Patch tokens in C directions of largest variance."""

    scores: Tensor  # (L+1, h, w, C)
    explained: Tensor  # (L+1, C), or (1, C) for a joint basis: shares of the variance


def patch_pca(trace: Trace, components: int = 3, joint: bool = True) -> PCA:
    """Principal components of the patch tokens: as red, green and blue, a picture of what goes with what.

    joint: one basis for all depths, so that a colour keeps its meaning while the depth changes; else
    one for each depth, which shows more of it. Every depth is brought to unit mean square first:
    late layers are an order of magnitude longer and would be all that a joint basis sees.
    Signs are arbitrary in PCA; here the largest loading is positive, so that they never flip. Where one
    or two patches have fewer directions than asked for, the others are zero.
    """
    scores, explained = principal(trace.tokens[:, trace.num_prefix_tokens :], components, joint)
    return PCA(scores.float().unflatten(1, trace.grid_size), explained.float())


def principal(patches: Tensor, components: int, joint: bool) -> tuple[Tensor, Tensor]:
    """(scores (L+1, P, C), explained (L+1 or 1, C)) of patches (L+1, P, D), in float64: `patch_pca`."""
    patches = patches.double()
    x = patches - patches.mean(dim=1, keepdim=True)
    x = x / x.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
    x = x.flatten(0, 1)[None] if joint else x  # (1, (L+1)·P, D) or (L+1, P, D)
    if x.shape[1] < x.shape[2]:  # the same directions from the smaller of the two square matrices
        variance, basis = torch.linalg.eigh(x @ x.mT)  # rising
        basis = F.normalize(x.mT @ basis[..., -components:], dim=-2)
    else:
        variance, basis = torch.linalg.eigh(x.mT @ x)
    lacking = max(0, components - variance.shape[-1])
    basis = _signed(basis[..., -components:].flip(-1).mT)  # (1 or L+1, C, D)
    variance = variance.flip(-1)  # falling
    # what rounding leaves in a direction without variance is not one: there are no more than x has
    real = variance[..., :components] > 1e-12 * variance[..., :1]
    basis = F.pad((basis * real[..., None]).mT, (0, lacking))  # (1 or L+1, D, C)
    scores = (x @ basis).reshape(*patches.shape[:2], components)  # (L+1, P, C)
    explained = variance[..., :components] * real / variance.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return scores, F.pad(explained, (0, lacking))


# ---- the model's own parameters --------------------------------------------------------------------


@torch.no_grad()
def position_similarity(model: ViT, grid_size: tuple[int, ...] | None = None) -> Tensor:
    """(h, w, h, w): cosine between the position embeddings of patches (Dosovitskiy et al. 2021, fig. 7).

    Without a table, positions are rotary: then what is left of a query's product with a key like it when the
    two are turned by their places, the mean of the cosines of all angles between them, layers and heads. Or
    they are relative: then what is added to scores, the mean of layers and heads, in units of its largest.

    grid_size: the grid of an image of another size, whose positions are interpolated. Fixed sin-cos
    positions look the part without having been learned.
    """
    grid_size = grid_size or model.config.grid_size
    if model.rel_pos is not None and model.pos_embed is None:
        prefix, places = model.config.num_prefix_tokens, model.places(Grid(grid_size))
        added = [model.bias(layer, places) for layer in range(model.config.depth)]
        bias = (
            torch.stack([x for x in added if x is not None]).mean(dim=(0, 1))[prefix:, prefix:].float().cpu()
        )
        return (bias / bias.abs().max().clamp(min=1e-12)).reshape(*grid_size, *grid_size)
    if model.pos_embed is None:
        return rotary_similarity(model, Grid(grid_size))
    c = model.config
    table = resample_pos_embed(model.pos_embed, c.pos_grid, grid_size, crop=c.pos_square > 0)[0].float().cpu()
    patches = F.normalize(table[-Grid(grid_size).count :], dim=-1)  # (P, D)
    return (patches @ patches.mT).reshape(*grid_size, *grid_size)


def rotary_similarity(model: ViT, grid: Grid) -> Tensor:
    """(h, w, h, w): mean cosine of the angles by which rotary positions turn patches apart; 1 without any."""
    places = model.places(grid)
    found = []
    for layer in range(model.config.depth if model.rope_freqs is not None else 1):
        turn = model.turn(layer, places)
        if turn is None:
            return torch.ones(*grid.shape, *grid.shape)
        cos, sin = (x[:, model.config.num_prefix_tokens :].float().cpu() for x in turn)  # (H, P, d/2)
        found.append((cos @ cos.mT + sin @ sin.mT).mean(dim=0) / cos.shape[-1])
    return torch.stack(found).mean(dim=0).reshape(*grid.shape, *grid.shape)


@torch.no_grad()
def patch_filters(model: ViT, count: int = 28) -> Tensor:
    """(n, p, p, 3) in [0, 1]: principal components of the patch projection (Dosovitskiy et al. 2021, fig. 7).

    Of a model of clips (n, frames of a tubelet, p, p, 3). Each is stretched to its own range; there are no
    more than 3·p² of them in each frame. Signs as in `patch_pca`.
    """
    filters = model.patch_embed.proj.weight.double().cpu()  # (D, 3, p, p) or (D, 3, tubelet, p, p)
    x = filters.flatten(1) - filters.flatten(1).mean(dim=0)
    basis = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(-1).mT  # (3·p², 3·p²), largest variance first
    basis = _signed(basis[: min(count, len(x))])  # (n, 3·p²)
    low, high = basis.amin(dim=-1, keepdim=True), basis.amax(dim=-1, keepdim=True)
    basis = (basis - low) / (high - low).clamp(min=1e-12)
    return basis.unflatten(1, filters.shape[1:]).movedim(1, -1).float()


def _signed(basis: Tensor) -> Tensor:
    """Directions (..., C, D), each turned so that its largest entry is positive."""
    return basis * basis.gather(-1, basis.abs().argmax(dim=-1, keepdim=True)).sign()


# ---- over many images ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OverImages:
    """What N images of one size say about heads and layers."""

    columns: dict[str, Tensor]  # (N, L, H) each, of `head_columns`
    features: Tensor  # (L+1, N, D), as `depth_features` has them
    uniform_px: float  # `uniform_distance` at this size
    num_tokens: int  # T


def over_images(
    model: ViT, images: Iterable[Tensor], progress: Callable[[int], None] | None = None
) -> OverImages:
    """The figures of heads, and the features of layers, for each image (3, height, width).

    progress(images done). Raises ValueError where there is none.
    """
    columns: list[dict[str, Tensor]] = []
    features: list[Tensor] = []
    for image in images:
        seen = trace(model, image)
        rows = pooled_rows(model, seen.tokens.shape[1])
        columns.append(head_columns(seen))
        features.append(seen.tokens[:, rows].mean(dim=1))  # (L+1, D)
        if progress:
            progress(len(columns))
    if not columns:
        raise ValueError("Figures over images need images: there was none.")
    stacked = {name: torch.stack([one[name] for one in columns]) for name in columns[0]}
    return OverImages(stacked, torch.stack(features, dim=1), uniform_distance(seen), seen.tokens.shape[1])


@torch.no_grad()
def depth_features(model: ViT, images: Tensor) -> Tensor:
    """(L+1, B, D): the mean of the tokens that the head reads, at every depth."""
    tokens = model.embed(images.to(next(model.parameters())))
    places = model.places(model.config.grid_of(images.shape))
    rows = pooled_rows(model, tokens.shape[1])
    features = [tokens[:, rows].mean(dim=1)]
    for layer in range(model.config.depth):
        tokens = model.run(tokens, layer, layer + 1, places)
        features.append(tokens[:, rows].mean(dim=1))
    return torch.stack(features).float().cpu()


def cka(batches: Iterable[Tensor | Sequence[Tensor]]) -> Tensor:
    """(N, N): linear CKA between N layers, from batches of the same B images at each layer, (B, D) each:
    a tensor or array (N, B, D), or a list where the layers are of models of other widths.

    Σ HSIC(K, L) / √(Σ HSIC(K, K) · Σ HSIC(L, L)) with the unbiased HSIC of each batch (Song et al. 2012),
    summed over batches (Nguyen et al. 2021): the plain form calls anything similar when features
    outnumber images. Take several hundred images, in batches of 64 or more. Not a number where all
    images have the same features: [CLS] before the first layer.
    """
    total = None
    for features in batches:
        n = len(features[0])
        if n < 4:
            raise ValueError(f"Unbiased CKA needs at least 4 images in each batch; this one has {n}.")
        layers = [torch.as_tensor(x).double() for x in features]
        centred = [x - x.mean(dim=0) for x in layers]  # changes nothing but rounding
        gram = torch.stack([x @ x.mT for x in centred])  # (N, B, B)
        gram = gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
        sums = gram.sum(dim=-1)  # (N, B)
        totals = sums.sum(dim=-1)  # (N,)
        hsic = (
            gram.flatten(1) @ gram.flatten(1).mT
            + totals[:, None] * totals / ((n - 1) * (n - 2))
            - 2 / (n - 2) * sums @ sums.mT
        ) / (n * (n - 3))
        total = hsic if total is None else total + hsic
    if total is None:
        raise ValueError("CKA needs images: there was none.")
    own = total.diagonal()
    scale = torch.where(own > 1e-30, own, torch.nan).sqrt()
    return (total / (scale[:, None] * scale)).float()


def layer_cka(model: ViT, batches: Iterable[Tensor]) -> Tensor:
    """(L+1, L+1): `cka` of the depths of one model, from batches of images (B, 3, height, width)."""
    return cka(depth_features(model, images) for images in batches)


# ---- the self-check --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One thing that must be true of every trace, with the number that says so."""

    name: str
    value: float  # what was measured: a difference from what must be
    bound: float
    about: str

    @property
    def ok(self) -> bool:
        return self.value <= self.bound


@torch.no_grad()
def self_check(model: ViT, trace: Trace) -> list[Check]:
    """Is what the screen shows what the model did? For a trace without edits.

    Bounds are for float32.
    """
    weight = next(model.parameters())
    attn, tokens = trace.all_attn().to(weight), trace.tokens.to(weight)
    checks = []

    def check(name: str, value: Tensor | float, bound: float, about: str) -> None:
        checks.append(Check(name, float(value), bound, about))

    if model.config.num_classes:
        fused = model(trace.image.to(weight)[None])[0].float().cpu()
        off = (fused - trace.logits).abs().max() / trace.logits.abs().max().clamp(min=1)
        check("fused = spelled out", off, 1e-4, "the fast forward pass gives the logits shown here")
    check("rows sum to 1", (attn.sum(dim=-1) - 1).abs().max(), 1e-5, "attention of every query")
    check("attention · V", _blocks_gap(model, trace, tokens, attn), 1e-4,
          "attention times values, then the MLP, gives each block's output")  # fmt: skip
    if model.config.num_classes and not model.config.post_norm and model.config.pool != "attention":
        book = ledger(trace, model)
        off = abs(book.gap) / max(1.0, abs(book.logit))
        check("ledger adds up", off, 1e-4, "heads, MLPs, embedding and biases sum to the logit")
    rolled = rollout_all(trace).sum(dim=-1)
    check("rollout rows sum to 1", (rolled - 1).abs().max(), 1e-4, "at every depth")
    return checks


def _blocks_gap(model: ViT, trace: Trace, tokens: Tensor, attn: Tensor) -> float:
    """The largest difference between a block's output and what its attention and values rebuild, in
    units of the output's largest entry."""
    gaps, places = [], model.places(trace.grid)
    for layer in range(model.config.depth):
        kept = Replace("attn", layer, attn[layer])
        rebuilt = model.run(tokens[layer][None], layer, layer + 1, places, kept)[0]
        gaps.append((rebuilt - tokens[layer + 1]).abs().max() / tokens[layer + 1].abs().max())
    return float(max(gaps))
