"""The numbers of the lesson's steps through time, of a clip alone: what changes within a patch, how its
attention is shared among times, and how far in time each head looks.

T tokens, H heads, D the width of a token, (t, h, w) patches, p the side of a patch, n the frames that it
reaches through.
"""

from dataclasses import replace

import torch

from explorer import stats
from explorer.lesson.follow import FILTERS, Follow, Numbers, rounded, strongest


def tubelet(f: Follow) -> Numbers:
    """Every pattern's result in two parts, which add up with its bias: of what the frames of our patch share,
    their mean, and of what changes between them. The patterns that answer most to change come with their
    weights."""
    proj = f.model.patch_embed.proj
    weight = proj.weight.detach().float().cpu()  # (D, 3, n, p, p)
    mean = f.pixels.mean(dim=1, keepdim=True).expand_as(f.pixels)  # (3, n, p, p)
    change = f.pixels - mean
    stays, changes = ((weight * part).flatten(1).sum(dim=1) for part in (mean, change))  # (D,)
    chosen = strongest(changes.abs(), FILTERS)
    bias = torch.zeros(len(weight)) if proj.bias is None else proj.bias.detach().float().cpu()
    return {
        "colours": f.colours,
        "change": rounded(change.flatten()),
        "stays": rounded(stays),
        "changes": rounded(changes),
        "filters": [
            {"index": j, "weights": rounded(weight[j].flatten()), "bias": rounded(bias[j]),
             "result": rounded(f.projected[f.choice.patch, j])}
            for j in chosen
        ],
    }  # fmt: skip


def times(f: Follow) -> Numbers:
    """How our patch shares its attention among the times, and what goes to the tokens in front."""
    shares = f.here["attn"][f.choice.head, f.token]  # (T,)
    of_time = f.trace.grid.unflatten(shares[f.prefix :]).sum(dim=(-2, -1))  # (t,)
    ours, *_ = f.trace.grid.place(f.choice.patch)
    return {
        "shares": rounded(shares),
        "times": rounded(of_time),
        "ours": ours,
        "front": rounded(shares[: f.prefix].sum()),
    }


def spans(f: Follow) -> Numbers:
    """How far apart in time the patches of this layer look, in every head and in one that looks everywhere
    alike: the share of every distance, and the mean distance."""
    lags = stats.lag_share(replace(f.trace, attn=f.here["attn"][None]))[0]  # (H, t)
    uniform, steps = stats.uniform_lags(f.trace.grid), torch.arange(f.trace.grid.frames).float()
    return {
        "lags": rounded(lags),
        "apart": rounded(lags @ steps),
        "uniform": rounded(uniform),
        "even": rounded(uniform @ steps),
    }
