"""The numbers of the lesson's steps from pixels through one layer: each takes all of them from the trace.

T tokens, P patches, L layers, H heads, D the width of a token, d that of one head, p the side of a patch.
"""

import torch.nn.functional as F

from explorer.lesson.follow import FILTERS, Follow, Numbers, rounded, strongest
from vit.positions import rotate

KEYS = 320  # tokens whose keys are sent; of more, those with the highest scores
TOP = 5  # tokens that are named


def cut(f: Follow) -> Numbers:
    """The picture, or each time of a clip, as a grid."""
    h, w = f.trace.grid.space
    return {"rows": h, "columns": w, "side": f.config.patch_size, "count": f.trace.grid.count}


def flatten(f: Follow) -> Numbers:
    """The patch as colours, and as the list that the model reads."""
    return {"colours": f.colours, "values": rounded(f.pixels.flatten()), "count": f.pixels.numel()}


def embed(f: Follow) -> Numbers:
    """The patch against the patterns that answer it most strongly: weights · values + bias."""
    proj, found = f.model.patch_embed.proj, f.projected[f.choice.patch]  # (D,)
    chosen = strongest(found.abs(), FILTERS)
    weight = proj.weight.detach().float().cpu()  # (D, 3, p, p), of a clip (D, 3, n, p, p)
    bias = [0.0 if proj.bias is None else rounded(proj.bias[j]) for j in chosen]
    return {
        "values": rounded(f.pixels.flatten()),
        "output": rounded(found),
        "filters": [
            {"index": j, "weights": rounded(weight[j].flatten()), "bias": b, "result": rounded(found[j])}
            for j, b in zip(chosen, bias)
        ],
    }


def position(f: Follow) -> Numbers:
    """Embedding + position = what the first layer reads."""
    found: Numbers = {
        "embed": rounded(f.embedded[f.choice.patch]),
        "sum": rounded(f.trace.tokens[0, f.token]),
    }
    if f.positions is not None:
        found["position"] = rounded(f.positions[f.choice.patch])
        alike = F.cosine_similarity(f.positions[f.choice.patch], f.positions, dim=-1)
        found["alike"] = rounded(alike)
    if (distance := f.distances(f.choice.layer, f.choice.head)) is not None:
        found["distance"] = rounded(distance[f.prefix :])
    return found | turned(f) | {"normed": bool(f.config.pre_norm)}


def turned(f: Follow) -> Numbers:
    """Our query in front of its turn and behind it, and how alike two places turn: the mean cosine of the
    difference of their angles. Nothing where positions are not rotary."""
    turn = f.turn(f.choice.layer, f.choice.head)
    if turn is None:
        return {}
    cos, sin = turn
    query = f.here["q"][f.choice.head, f.token]
    back = (cos[f.token, None], -sin[f.token, None])  # the same angles, the other way
    found = {
        "query": rounded(rotate(query[None], back, f.config.rope_neighbours)[0]),
        "turned": rounded(query),
    }
    if f.positions is None:
        alike = (cos[f.prefix :] * cos[f.token] + sin[f.prefix :] * sin[f.token]).mean(dim=-1)
        found["alike"] = rounded(alike)
    return found


def prefix(f: Follow) -> Numbers:
    """The tokens in front, as they begin."""
    start = f.trace.tokens[0, : f.prefix]
    names = list(f.trace.prefix_names)
    return {"names": names, "start": rounded(start), "tokens": f.trace.tokens.shape[1], "read": f.reads}


def ask(f: Follow) -> Numbers:
    """Query, key and value of our token in this head. normed: is it normalised before it is read?"""
    x, head, token = f.here, f.choice.head, f.token
    before, normed = f.trace.tokens[f.choice.layer, token], not f.config.post_norm
    parts = {name: rounded(x[name][head, token]) for name in ("q", "k", "v")}
    reads = x["norm1"][token] if normed else before
    return {"before": rounded(before), "reads": rounded(reads), "normed": normed} | parts


def scores(f: Follow) -> Numbers:
    """q · k / √d for every token, with the keys themselves; and what is added for distance."""
    x, head, token = f.here, f.choice.head, f.token
    found = x["scores"][head, token]  # (T,)
    sent = sorted({*strongest(found, KEYS), token})
    distance = f.distances(f.choice.layer, head)
    return ({} if distance is None else {"distance": rounded(distance)}) | {
        "q": rounded(x["q"][head, token]),
        "tokens": sent,
        "keys": rounded(x["k"][head, sent]),
        "scores": rounded(found),
        "root": rounded(f.config.head_dim**0.5),
        "best": strongest(found, 1)[0],
    }


def softmax(f: Follow) -> Numbers:
    """Scores to shares."""
    found, shares = f.here["scores"][f.choice.head, f.token], f.here["attn"][f.choice.head, f.token]
    best = strongest(shares, TOP)
    return {"scores": rounded(found), "shares": rounded(shares), "best": best, "sum": rounded(shares.sum())}


def mix(f: Follow) -> Numbers:
    """The values of the tokens that count most, and the sum over all."""
    x, head = f.here, f.choice.head
    shares = x["attn"][head, f.token]
    best = strongest(shares, TOP)
    return {
        "best": best,
        "shares": rounded(shares[best]),
        "rest": rounded(shares.sum() - shares[best].sum()),
        "values": rounded(x["v"][head, best]),
        "z": rounded(x["z"][head, f.token]),
    }


def heads(f: Follow) -> Numbers:
    """The same in every head; what they add to our token. normed: is the sum normalised?"""
    x, token = f.here, f.token
    return {
        "shares": rounded(x["attn"][:, token]),
        "z": rounded(x["z"][:, token]),
        "added": rounded(x["attn_out"][token]),
        "before": rounded(f.trace.tokens[f.choice.layer, token]),
        "after": rounded(x["resid_mid"][token]),
        "normed": f.config.post_norm,
    }


def mlp(f: Follow) -> Numbers:
    """The hidden numbers, and what they make of our token. normed: is the sum normalised?"""
    x, token = f.here, f.token
    hidden = x["mlp_post"][token]
    return {
        "hidden": rounded(hidden),
        "active": int((hidden > 0).sum()),
        "count": hidden.numel(),
        "before": rounded(x["resid_mid"][token]),
        "after": rounded(f.trace.tokens[f.choice.layer + 1, token]),
        "normed": f.config.post_norm,
    }


def layers(f: Follow) -> Numbers:
    """How alike every patch is to ours at every depth, and how long our token has become."""
    patches = f.trace.tokens[:, f.prefix :]  # (L+1, P, D)
    ours = f.trace.tokens[:, f.token, None]
    return {
        "alike": rounded(F.cosine_similarity(ours, patches, dim=-1)),
        "length": rounded(f.trace.tokens[:, f.token].norm(dim=-1)),
    }
