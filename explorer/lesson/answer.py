"""The numbers of the lesson's last steps: what the answer is read from, the answer, and whether it is why.

P patches, L layers, D the width of a token, K classes.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from explorer.faithfulness import order_of, perturbation_curves, random_map
from explorer.lesson.follow import Follow, Numbers, rounded, strongest
from explorer.payload import class_name, written
from vit.grid import Grid
from vit.positions import Places
from vit.trace import MaskPatches, Recorder, trace

SHOWN, LIKELIEST = 5, 3  # classes; where others come in that win
STEPS = 7  # points of a curve


def looked_at(f: Follow) -> Tensor:
    """(P,): what the read tokens take from every patch in the last layer, or what the pooling attention
    takes, the mean over heads; of a mean over patches, how much each of them changed there."""
    if f.trace.pool_attn is not None:
        return f.trace.pool_attn[:, f.prefix :].float().mean(dim=0)
    if f.reads:
        return f.end["attn"][:, f.reads, f.prefix :].mean(dim=(0, 1))
    before, after = f.trace.tokens[-2, f.prefix :], f.trace.tokens[-1, f.prefix :]
    return (after - before).norm(dim=-1)


def read(f: Follow) -> Numbers:
    """What the answer is read from, in the last layer. The mean of several tokens has shares and a mix, which
    are the means of theirs, but no query and scores of its own; the heads that pool are not the layers'
    heads, so that of them the mean is told."""
    found = {"map": rounded(looked_at(f)), "name": f.read_name}
    head = f.choice.head
    if f.trace.pool_attn is not None:
        shares = f.trace.pool_attn.float().mean(dim=0)  # (T,)
        return found | {"kind": "pool", "shares": rounded(shares), "best": strongest(shares, SHOWN)}
    if not f.reads:
        return found | {"kind": "mean", "share": rounded(1 / f.trace.grid.count)}
    shares = f.end["attn"][head, f.reads].mean(dim=0)  # (T,)
    found |= {
        "kind": "token",
        "shares": rounded(shares),
        "best": strongest(shares, SHOWN),
        "z": rounded(f.end["z"][head, f.reads].mean(dim=0)),
        "alone": rounded(shares[f.reads].sum()),
    }
    if len(f.reads) == 1:
        found |= {name: rounded(f.end[name][head, f.reads[0]]) for name in ("q", "scores")}
    return found


def answer(f: Follow) -> Numbers:
    """The likeliest classes, and what was multiplied to get the first."""
    logits = f.trace.logits
    if not f.config.num_classes:
        with torch.no_grad():
            stream = f.trace.tokens[-1][None].to(next(f.model.parameters()))
            features = f.model.read_out(stream)[0].float().cpu()
        return {"classes": [], "features": rounded(features)}
    values = f.card.values(logits)
    best = strongest(logits, SHOWN)
    classes = [
        {"name": class_name(f.card, k), "logit": rounded(logits[k]), "value": rounded(values[k]),
         "written": written(f.card, float(values[k]))}
        for k in best
    ]  # fmt: skip
    return {"classes": classes, "count": len(logits), "kind": f.card.scores} | product(f, best[0])


def product(f: Follow, k: int) -> Numbers:
    """The vector that a plain head reads, its weights for class k and their bias; nothing where two heads
    answer together."""
    if f.config.distillation or not isinstance(f.model.head, torch.nn.Linear):
        return {}
    with torch.no_grad():
        stream, seen = f.trace.tokens[-1][None].to(next(f.model.parameters())), Recorder({"pooled"})
        f.model.read_out(stream, seen)  # from (1, T, D)
        vector = seen.stack("pooled")[0, 0].float().cpu()  # (D,)
    weight, bias = f.model.head.weight[k].float().cpu(), f.model.head.bias
    if abs(float(vector @ weight) + float(0 if bias is None else bias[k]) - float(f.trace.logits[k])) > 1e-2:
        return {}  # too coarse to add up before one's eyes
    return {
        "vector": rounded(vector),
        "weights": rounded(weight),
        "bias": 0.0 if bias is None else rounded(bias[k]),
    }


def without(f: Follow) -> list[Numbers]:
    """The answer when the patches that were looked at most are hidden from everybody."""
    order, found = strongest(looked_at(f), f.trace.grid.count), []
    for share in (0.0, 0.05, 0.1, 0.2, 0.4):
        hidden = order[: round(share * len(order))]
        logits = f.trace.logits
        if hidden:
            logits = trace(f.model, f.trace.image, edits=(MaskPatches(tuple(hidden), f.prefix),)).logits
        found.append({"hidden": hidden} | said(f, logits, strongest(f.trace.logits, SHOWN)))
    return found


def said(f: Follow, logits: Tensor, watched: list[int]) -> Numbers:
    """What a pass says of the classes that are watched."""
    values = f.card.values(logits)
    return {
        "values": rounded(values[watched]),
        "written": [written(f.card, float(values[k])) for k in watched],
        "says": class_name(f.card, int(logits.argmax())),
    }


def why(f: Follow) -> Numbers:
    """Squares taken away in two orders, painted grey: those that were looked at most first, and by chance."""
    target = int(f.trace.logits.argmax())
    traced = replace(f.trace, target=target)
    orders = [order_of(f.trace.grid.unflatten(looked_at(f))), torch.tensor(by_chance(f.trace.grid))]
    looked, random = perturbation_curves(f.model, traced, torch.stack(orders), "grey", STEPS, f.card)
    return {
        "class": class_name(f.card, target),
        "kind": f.card.scores,
        "fractions": rounded(looked.fractions),
        "looked": rounded(looked.deletion),
        "random": rounded(random.deletion),
        "orders": [order.tolist() for order in orders],
        "areas": [rounded(torch.trapezoid(c.deletion, c.fractions)) for c in (looked, random)],
    }


def by_chance(grid: Grid) -> list[int]:
    """The patches in an order that no picture has a part in, the same for all."""
    found: list[int] = order_of(random_map(grid.shape, 0)).tolist()
    return found


def shuffled(count: int) -> list[int]:
    """Places in an order that is drawn by lot, and is another than they have, where there is one."""
    lots = torch.Generator().manual_seed(0)
    while True:
        order: list[int] = torch.randperm(count, generator=lots).tolist()
        if order != [*range(count)] or count < 2:
            return order


def orders_of(frames: int, tubelet: int) -> list[Numbers]:
    """The frames of a clip in other orders, the shuffled ones the same for all clips. Where several times
    have several frames they are shuffled once more with those of each time together: what moves within it
    still does."""
    times = frames // tubelet
    found = {"as filmed": [*range(frames)], "backwards": [*reversed(range(frames))]}
    found["frames shuffled"] = shuffled(frames)
    if tubelet > 1 and times > 1:
        by_time = torch.arange(frames).view(times, tubelet)
        found["times shuffled"] = by_time[shuffled(times)].flatten().tolist()
    return [{"name": name, "frames": order} for name, order in found.items()]


def held_still(frames: int, tubelet: int) -> list[Numbers]:
    """A clip that stands still: one frame after the other is shown all the time. Where a time has several,
    then those of one time over and over, which is what `vit.trace.FreezeTime` does: a patch is made of them
    alone."""
    found = [{"name": f"frame {at}", "frames": [at] * frames} for at in range(frames)]
    for time in range(frames // tubelet if tubelet > 1 else 0):
        again = [*range(time * tubelet, (time + 1) * tubelet)] * (frames // tubelet)
        found.append({"name": f"time {time}", "frames": again})
    return found


def with_frames(f: Follow, frames: list[int]) -> Tensor:
    """(K,): what the model says when it is shown these frames of the clip."""
    return trace(f.model, f.trace.image[frames], keep=()).logits


def order(f: Follow) -> Numbers:
    """The answer to the same frames in other orders."""
    return answers_to(f, orders_of(len(f.trace.image), f.config.tubelet))


def frozen(f: Follow) -> Numbers:
    """The answer when a clip stands still."""
    return answers_to(f, held_still(len(f.trace.image), f.config.tubelet))


def answers_to(f: Follow, asked: list[Numbers]) -> Numbers:
    """What is said of the clip as it was filmed, and of its frames as they are asked for: of the likeliest
    classes, and of all that win."""
    found = [with_frames(f, each["frames"]) for each in asked]
    watched = strongest(f.trace.logits, LIKELIEST)
    watched = list(dict.fromkeys([*watched, *(int(logits.argmax()) for logits in found)]))
    return {
        "classes": [class_name(f.card, k) for k in watched],
        "filmed": said(f, f.trace.logits, watched),
        "asked": [each | said(f, logits, watched) for each, logits in zip(asked, found)],
    }


def bag(f: Follow) -> Numbers:
    """The answer if no patch is told where it is; nothing where positions cannot be
    taken off again, or where there are none."""
    in_layers, added = f.config.rope != "none" or f.config.rel_pos, f.positions is not None
    if not (in_layers or added) or f.config.pre_norm or not f.config.num_classes:
        return {}
    tokens = f.trace.tokens[0].clone()
    tokens[f.prefix :] = f.embedded
    with torch.no_grad():
        stream = tokens[None].to(next(f.model.parameters()))
        # nowhere: nothing turns, and every distance is the same
        places = Places(f.trace.grid, torch.full((len(tokens),), -1))
        logits = f.model.read_out(f.model.run(stream, places=places))[0].float().cpu()
    both = {}
    for name, found in (("with", f.trace.logits), ("without", logits)):
        k = int(found.argmax())
        both[name] = {
            "name": class_name(f.card, k),
            "written": written(f.card, float(f.card.values(found)[k])),
        }
    return both


def shared(f: Follow) -> dict[str, Any]:
    """What takes passes of its own, and is the same whatever is followed."""
    if not f.config.num_classes:
        return {}
    found: dict[str, Any] = {"bag": bag(f), "without": without(f), "why": why(f)}
    if f.config.is_clip:
        found |= {"order": order(f), "frozen": frozen(f)}
    return found
