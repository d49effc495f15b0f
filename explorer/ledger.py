"""The logit ledger: what every layer, head and patch gave to one class, adding up exactly.

L layers, H heads, T tokens, D width, d width of one head, R rows that the head reads, (h, w) patches.

The residual stream is a sum: the embedding, plus what each head carried over from each token, plus
each MLP.  With the scale of the final LayerNorm frozen at its measured value the read-out is linear,
so the logit is the same sum, term by term (direct logit attribution: Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits").  Direct effects only: what a head did to the
logit by way of later heads and MLPs is credited to those.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vit.grid import Grid
from vit.model import Block, ViT
from vit.objective import Contrast, Objective
from vit.trace import Trace


@dataclass(frozen=True, eq=False)
class Ledger:
    """Signed contributions to `logit`, in units of the logit."""

    heads: Tensor  # (L, H, T)  head h of layer l, by the token that it was carried from
    mlp: Tensor  # (L,)
    embed: Tensor  # (T,)  of the tokens that the head reads; zero elsewhere
    bias: float  # of the output projections, the final norm and the head
    objective: Objective  # the class, and what it is contrasted with
    logit: float  # what the model said: of the class, or of the difference
    grid: Grid
    num_prefix_tokens: int

    @property
    def target(self) -> int:
        return self.objective.target

    @property
    def total(self) -> float:
        """The sum of all entries: equal to `logit` up to rounding."""
        parts = (self.heads, self.mlp, self.embed)
        return sum(float(part.double().sum()) for part in parts) + self.bias

    @property
    def gap(self) -> float:
        """What is missing in the sum; a self-check, near zero."""
        return self.total - self.logit

    def head_grid(self) -> Tensor:
        """(L, H): each head, all tokens together."""
        return self.heads.sum(dim=-1)

    def map(self, depth: int | None = None) -> Tensor:
        """(h, w): what came from each patch, through all heads of the first `depth` layers, by default all;
        where the mean over patches is read, with what each patch's embedding gave directly."""
        patches = (self.heads[:depth].sum(dim=(0, 1)) + self.embed)[self.num_prefix_tokens :]
        return self.grid.unflatten(patches)

    def table(self) -> list[dict[str, str | int | float | None]]:
        """One row per entry, in the order of the model; the column `logit` adds up to the logit."""
        rows: list[tuple[str, int | None, int | None, float]]
        rows = [("embedding", None, None, float(self.embed.sum()))]
        for layer, grid in enumerate(self.head_grid().tolist()):
            rows += [("head", layer, head, value) for head, value in enumerate(grid)]
            rows += [("mlp", layer, None, float(self.mlp[layer]))]
        rows += [("biases", None, None, self.bias)]
        return [dict(zip(("part", "layer", "head", "logit"), row, strict=True)) for row in rows]


@torch.no_grad()
def ledger(trace: Trace, model: ViT, target: int | None = None, contrast: Contrast = None) -> Ledger:
    """The ledger of one class of one trace without edits; `target` defaults to the trace's, else to
    the answer.

    Against `contrast`, another class or "others", it is that of y = Σ_k c_k logit_k, c the slope of
    vit.objective's y: the difference to that class, or the log-odds to first order.

    With u the direction that the head reads (the class's weights times the final norm's gain,
    centred, over the frozen σ) and g the layer scale, for each row r that is pooled:
        heads[l, h, j] = Σ_r A[l, h, r, j] · (v[l, h, j] W_o[l, h]) · (g ⊙ u_r)
        mlp[l]         = Σ_r mlp_l(norm2(x_mid[r])) · u_r
    Cost: one value projection per layer, and the MLPs of the pooled rows ([CLS]: one of T).
    """
    config = model.config
    if config.pool == "attention":
        raise ValueError(
            "A ledger needs a read-out that is linear once its norm is held: this model pools by attention."
        )
    if config.post_norm:
        raise ValueError(
            "A ledger needs a residual stream that only adds: this model normalises it after every "
            "addition (post_norm)."
        )
    objective = objective_of(trace, model, target, contrast)
    of_classes = objective.weights(trace.logits)  # (K,)
    weight = next(model.parameters())
    tokens, attn = trace.tokens.to(weight), trace.all_attn().to(weight)
    heads, mlp, embed, bias = (part.float().cpu() for part in entries(model, tokens, attn, of_classes))
    return Ledger(
        heads=heads,
        mlp=mlp,
        embed=embed,
        bias=float(bias),
        objective=objective,
        logit=float(of_classes.double() @ trace.logits.double()),
        grid=trace.grid,
        num_prefix_tokens=trace.num_prefix_tokens,
    )


def entries(
    model: ViT, tokens: Tensor, attn: Tensor, of_classes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(heads (L, H, T), mlp (L,), embed (T,), bias ()) of the ledger of Σ_k of_classes[k] · logit[k].

    tokens (L+1, T, D) and attn (L, H, T, T) as in a trace. Tensors in, tensors out: it can be exported.
    """
    rows = pooled_rows(model, tokens.shape[1])
    directions, bias = read_out_directions(model, tokens[-1], rows, of_classes)  # (R, D), ()

    heads, mlp = [], []
    for layer in range(model.config.depth):
        block = block_at(model, layer)
        stream = tokens[layer]
        carried = values(block, stream)  # (H, T, d)
        output = output_matrices(block)  # (H, d, D)
        looked = attn[layer][:, rows]  # (H, R, T)
        read = torch.einsum("hdD,rD->hrd", output, directions)
        heads.append((looked * (read @ carried.mT)).sum(dim=1))  # (H, T)
        constant = stream.new_zeros(stream.shape[-1])  # (D,)
        if model.config.proj_bias:
            constant = block.ls1(block.attn.proj.bias)
        added = torch.einsum("hrd,hdD->rD", looked @ carried, output) + constant
        thought = block.ls2(block.mlp(block.norm2(stream[rows] + added)))  # (R, D)
        mlp.append((thought * directions).sum())
        bias = bias + (directions @ constant).sum()
    read_at = torch.tensor(rows, device=tokens.device)
    embed = tokens.new_zeros(tokens.shape[1]).index_add(
        0, read_at, (tokens[0, rows] * directions).sum(dim=-1)
    )
    return torch.stack(heads), torch.stack(mlp), embed, bias


def class_to_explain(trace: Trace, model: ViT, target: int | None) -> int:
    """The one asked for, else the trace's, else the answer. Raises ValueError if there is no such one."""
    classes = model.config.num_classes
    if not classes:
        raise ValueError("A class is to be explained, and this model has no classification head.")
    if target is None:
        target = int(trace.logits.argmax()) if trace.target is None else trace.target
    if not 0 <= target < classes:
        raise ValueError(f"There is no class {target}: this model has {classes}, 0 to {classes - 1}.")
    return target


def objective_of(trace: Trace, model: ViT, target: int | None, contrast: Contrast = None) -> Objective:
    """What is to be explained: as asked, else as the trace was. Raises ValueError for no such class."""
    chosen = class_to_explain(trace, model, target)
    if contrast is None and target in (None, trace.target):
        contrast = trace.contrast
    objective = Objective(chosen, contrast)
    objective.check(model.config.num_classes)
    return objective


def pooled_rows(model: ViT, num_tokens: int) -> list[int]:
    """The tokens that the head reads: [CLS] (and DeiT's distillation token), all patches, or all tokens."""
    config = model.config
    if config.pool == "mean" or not config.pool_prefix:
        return list(range(config.num_prefix_tokens, num_tokens))
    if config.pool == "attention":
        return list(range(num_tokens))
    return list(range(config.num_class_tokens + config.distillation))


def read_out_directions(
    model: ViT, tokens: Tensor, rows: list[int], of_classes: Tensor
) -> tuple[Tensor, Tensor]:
    """(R, D) directions and a constant (), so that y = Σ_r directions[r] · tokens[rows[r]] + constant, where
    y = Σ_k of_classes[k] · logit[k].

    tokens: (T, D), the residual stream after the last block.
    LayerNorm(x) = γ ⊙ (x − mean x) / σ + β, and w · (γ ⊙ (x − mean x)) = centred(w ⊙ γ) · x.
    RMSNorm takes no mean away and adds no β, and its σ is the root mean square.
    """
    norm = model.fc_norm if model.config.norm_after_pool else model.norm
    heads = [head for head in (model.head, model.head_dist) if isinstance(head, torch.nn.Linear)]
    of_classes = of_classes.to(tokens)
    weights = torch.stack([of_classes @ head.weight for head in heads])  # (1, D), or (2, D) for DeiT
    biases = torch.stack([of_classes @ head.bias for head in heads])
    if not isinstance(norm, torch.nn.LayerNorm | torch.nn.RMSNorm):  # none: the read-out is linear as it is
        return weights.expand(len(rows), -1) / len(rows), biases.mean()
    read = weights * norm.weight
    normed = tokens[rows]  # (R, D)
    if model.config.norm_after_pool:
        normed = normed.mean(dim=0, keepdim=True)
    if isinstance(norm, torch.nn.LayerNorm):
        read = read - read.mean(dim=-1, keepdim=True)
        biases = biases + weights @ norm.bias
        normed = normed - normed.mean(dim=-1, keepdim=True)
    sigma = (normed.square().mean(dim=-1, keepdim=True) + (norm.eps or 0)).sqrt()  # (R or 1, 1)
    directions = (read / sigma).expand(len(rows), -1) / len(rows)  # mean of patches, or of two heads
    return directions, biases.mean()


def block_at(model: ViT, layer: int) -> Block:
    block = model.blocks[layer]
    assert isinstance(block, Block)
    return block


def values(block: Block, stream: Tensor) -> Tensor:
    """v (H, T, d): what each token offers to those who look at it; stream (T, D) is in front of the block."""
    x = stream if block.post_norm else block.norm1(stream)
    qkv = block.attn.qkv
    bias = None if qkv.bias is None else qkv.bias.chunk(3)[2]
    v = F.linear(x, qkv.weight.chunk(3)[2], bias)  # (T, D)
    return v.unflatten(-1, (block.attn.num_heads, -1)).transpose(0, 1)


def output_matrices(block: Block) -> Tensor:
    """(H, d, D): each head's slice of the output projection, with the layer scale."""
    weight = block.attn.proj.weight.mT  # (H·d, D)
    return block.ls1(weight).unflatten(0, (block.attn.num_heads, -1))
