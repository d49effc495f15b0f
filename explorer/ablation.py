"""What is lost without a head: the total effect, beside the ledger's direct one.

L layers, H heads, T tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from explorer.ledger import class_to_explain
from vit.model import ViT
from vit.trace import Trace, ZeroHeads


@torch.no_grad()
def without_heads(
    trace: Trace, model: ViT, target: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """(L, H): what the logit of a class loses when one head's output is set to zero, in all that follows.

    lost[l, h] = y(x) − y(x with z[l, h] = 0), signed.  Michel, Levy & Neubig 2019, "Are Sixteen Heads Really
    Better than One?", section 3.2.  The ledger books a head's direct effect only; this is the total one, with
    what later heads and MLPs make of it, and does not add up to anything.  `target` as in `ledger`, for a
    trace without edits.  Cost: H passes from each layer on, H(L+1)/2 forward passes; progress(layers, L).
    """
    target = class_to_explain(trace, model, target)
    config, weight = model.config, next(model.parameters())
    places = model.places(trace.grid)
    lost = torch.empty(config.depth, config.num_heads)
    for layer in range(config.depth):
        stream = trace.tokens[layer].to(weight)[None]  # (1, T, D)
        for head in range(config.num_heads):
            tokens = model.run(stream, layer, layer + 1, places, ZeroHeads(((layer, head),)))
            logits = model.read_out(model.run(tokens, layer + 1, places=places))  # by the fast kernels
            lost[layer, head] = float(trace.logits[target] - logits[0, target])
        if progress:
            progress(layer + 1, config.depth)
    return lost
