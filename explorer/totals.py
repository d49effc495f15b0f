"""Total effects: what each token gave to a logit by whatever way, in a network that is held to be linear.

T tokens, D width, (h, w) patch grid, y the logit, σ the scale of a LayerNorm.

A ViT bends in three places: LayerNorms divide by σ, attention is a softmax, MLPs have gates.  Where such
a factor is held at its measured value, the rest only adds and multiplies by constants, and y becomes a sum
over the tokens and the biases, each times its slope.  With σ alone held (the LayerNorm rule) attention and
gates still bend, and the sum misses what they do: the gap.  With all three held (CP-LRP) nothing is
missing, and the gap is rounding.  Ali et al. 2022, "XAI for Transformers: Better Explanations through
Conservative Propagation" (arXiv 2202.07304), sections 4 and 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from explorer.ledger import objective_of
from explorer.maps import layer_at
from explorer.probes import stream_at
from vit.grid import Grid
from vit.model import ViT
from vit.objective import Contrast
from vit.trace import Trace, gradients_on


@dataclass(frozen=True, eq=False)
class Totals:
    """Signed contributions to `logit`, in units of the logit."""

    tokens: Tensor  # (T,) of the residual stream in front of a layer
    bias: float  # of all biases from there on
    logit: float  # what the model said
    grid: Grid
    num_prefix_tokens: int

    @property
    def gap(self) -> float:
        """What the sum misses; rounding where everything that bends is held."""
        return float(self.tokens.double().sum()) + self.bias - self.logit

    def map(self) -> Tensor:
        """(h, w): the patches."""
        return self.tokens[self.num_prefix_tokens :].unflatten(0, self.grid.shape)


class Held(TorchFunctionMode):
    """Within it, and in this thread alone, σ is a constant to autograd; and every bias is a leaf of its own.

    attention, gates: whether softmax and the MLPs' gates are constants, too.
    """

    def __init__(self, *, attention: bool, gates: bool):
        super().__init__()
        self.biases: list[Tensor] = []
        self.rules: dict[Any, Callable[..., Tensor]] = {
            F.linear: self.linear, F.layer_norm: self.layer_norm, F.rms_norm: rms_norm
        }  # fmt: skip
        if attention:
            self.rules |= {F.scaled_dot_product_attention: held_attention}
            self.rules |= {softmax: constant(softmax) for softmax in (F.softmax, Tensor.softmax)}
        if gates:  # GELU(x) = x · gate; quick_gelu is written with sigmoid; SwiGLU is SiLU(a) · b
            self.rules |= {
                F.gelu: held_gelu,
                torch.sigmoid: constant(torch.sigmoid),
                F.silu: constant(F.silu),
            }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.rules.get(func, func)(*args, **(kwargs or {}))

    def leaf(self, bias: Tensor | None) -> Tensor | None:
        """The same bias, whose slope can be asked for: the model's own parameter is left alone."""
        if bias is None:
            return None
        self.biases.append(bias.detach().clone().requires_grad_())
        return self.biases[-1]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, self.leaf(bias))

    def layer_norm(
        self, x: Tensor, shape: Any, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        """γ ⊙ (x − mean x) / σ + β, and σ does not move with x."""
        sigma = (x.detach().var(dim=-1, correction=0, keepdim=True) + eps).sqrt()
        normed = weight * (x - x.mean(dim=-1, keepdim=True)) / sigma
        beta = self.leaf(bias)
        return normed if beta is None else normed + beta


def rms_norm(x: Tensor, shape: Any, weight: Tensor, eps: float) -> Tensor:
    """γ ⊙ x / σ, and σ, the root mean square, does not move with x."""
    return weight * x / (x.detach().square().mean(dim=-1, keepdim=True) + eps).sqrt()


def constant(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function, whose values autograd takes for constants."""
    return lambda *args, **options: function(*args, **options).detach()


def held_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + bias) v, in which attention does not move with what it looks at."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return (scores if bias is None else scores + bias).softmax(dim=-1).detach() @ v


def held_gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times its gate, which does not move with x."""
    out = F.gelu(x, approximate=approximate)
    return x * torch.where(x == 0, 0, out / x).detach()


def total_effects(
    trace: Trace,
    model: ViT,
    target: int | None = None,
    contrast: Contrast = None,
    *,
    layer: int = 0,
    attention: bool = True,
    gates: bool = True,
) -> Totals:
    """The total effects of the tokens that `layer` reads (0: of the embedding), for a trace without edits.

        tokens[j] = Σ_d x[j, d] · ∂y/∂x[j, d],   bias = Σ b · ∂y/∂b,   σ held; by choice A and the gates, too.
    target as in `explorer.ledger.ledger`; against `contrast` y is the difference to another class, or, to
    first order, the log-odds against all others.  Cost: one forward and one backward.
    """
    objective = objective_of(trace, model, target, contrast)
    held = Held(attention=attention, gates=gates)
    layer = layer_at(trace, layer)
    with gradients_on(model), held:
        stream = stream_at(trace, model, layer)  # (1, T, D)
        logits = model.read_out(model.run(stream, layer, places=model.places(trace.grid)))[0]
        y = (logits * objective.weights(logits.detach())).sum()
        slopes = torch.autograd.grad(y, [stream, *held.biases], materialize_grads=True, allow_unused=True)
    with torch.no_grad():
        tokens = (stream * slopes[0])[0].sum(dim=-1)  # (T,)
        bias = sum(float((b * slope).double().sum()) for b, slope in zip(held.biases, slopes[1:]))
    return Totals(tokens.float().cpu(), bias, float(y.detach()), trace.grid, trace.num_prefix_tokens)


def layernorm_rule(
    trace: Trace, *, layer: int = 0, target: int | None = None, contrast: Contrast = None, model: ViT
) -> Tensor:
    """Input × gradient with the scale of every LayerNorm held, so that it no longer undoes a token's length.

    map_j = Σ_d x_l[j, d] · ∂y/∂x_l[j, d] with every σ constant, signed.  Ali et al. 2022, section 4.2,
    their LN rule.  layer: the one whose input is explained, the embedding by default.
    Cost: one forward and one backward.  `total_effects` also tells what the sum misses.
    """
    return total_effects(trace, model, target, contrast, layer=layer, attention=False, gates=False).map()


def cp_lrp(
    trace: Trace, *, layer: int = 0, target: int | None = None, contrast: Contrast = None, model: ViT
) -> Tensor:
    """What each token gave to the logit by whatever way, with σ, attention and gates held: adds up exactly.

    map_j = Σ_d x_l[j, d] · ∂y/∂x_l[j, d] with σ, A and the gates constant, signed.  Ali et al. 2022,
    sections 4.1 and 4.2, their AH and LN rules; the gates by the rule of Bach et al. 2015 for what acts on
    each number alone.
    layer: the one whose input is explained, the embedding by default.  Cost: one forward and one backward.
    `total_effects` also tells the share of prefix tokens and biases, and the completeness gap.
    """
    return total_effects(trace, model, target, contrast, layer=layer).map()
