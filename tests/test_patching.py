"""explorer/patching.py: what is carried over causes what it says, against a forward pass by hand in float64,
and against the ledger where direct effects are all that there is."""

import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from conftest import randomised, tiny_config
from families import FAMILIES
from torch import Tensor

from explorer import patching
from explorer.ledger import ledger
from vit import Card, ViT, trace
from vit.objective import Objective

TRIED = ("cls", "registers", "DINOv3", "mixed rope", "EVA-02", "SigLIP", "Perception Encoder", "post-norm")
IMAGES = torch.randn(2, 3, 8, 20, generator=torch.Generator().manual_seed(3))  # not the model's own size


def model_of(family: str) -> ViT:
    torch.manual_seed(1)
    return randomised(ViT(tiny_config(**FAMILIES[family])))


# ---- by hand ----------------------------------------------------------------------------------------


@cache
def turns(model: ViT, layer: int, grid: tuple[int, int]) -> Tensor:
    """(H, T, d/2): by which complex number each pair of a query or key is multiplied, e^(i angle)."""
    c = model.config
    found = torch.ones(
        c.num_heads, c.num_prefix_tokens + math.prod(grid), c.head_dim // 2, dtype=torch.complex128
    )
    for head, patch, pair in itertools.product(
        range(c.num_heads), range(math.prod(grid)), range(c.head_dim // 2)
    ):
        at = [side + c.rope_offset for side in divmod(patch, grid[1])]
        if c.rope_span is not None:
            low, high = c.rope_span
            at = [low + side / n * (high - low) for side, n in zip(at, grid)]
        if model.rope_freqs is not None:
            down, across = model.rope_freqs[:, layer, head, pair].tolist()
        else:
            slow = c.rope_theta ** -((pair % (c.head_dim // 4)) / (c.head_dim // 4))
            down, across = (slow, 0.0) if pair < c.head_dim // 4 else (0.0, slow)
        if c.rope_columns_first:
            down, across = across, down
        angle = at[0] * down + at[1] * across
        found[head, c.num_prefix_tokens + patch, pair] = complex(math.cos(angle), math.sin(angle))
    return found


def turned(model: ViT, layer: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Queries or keys (H, T, d), turned by their places."""
    if model.config.rope == "none":
        return x
    one, other = x.unflatten(-1, (-1, 2)).unbind(-1) if model.config.rope_neighbours else x.chunk(2, -1)
    number = torch.complex(one, other) * turns(model, layer, grid)
    if model.config.rope_neighbours:
        return torch.view_as_real(number).flatten(-2)
    return torch.cat([number.real, number.imag], dim=-1)


def run(model: ViT, image: Tensor, change=lambda name, layer, x: x) -> tuple[Tensor, dict]:
    """(logits, activations) of one image in float64, block by block; `change` may replace what it sees."""
    c, kept = model.config, {}
    grid = (image.shape[-2] // c.patch_size, image.shape[-1] // c.patch_size)

    def show(name: str, layer: int, x: Tensor) -> Tensor:
        kept[name, layer] = x = change(name, layer, x)
        return x

    x = model.embed(image[None].double())[0]
    for layer, block in enumerate(model.blocks):
        x = show("stream", layer, x)
        y = x if c.post_norm else block.norm1(x)
        q, k, v = (
            part.unflatten(-1, (c.num_heads, -1)).transpose(0, 1) for part in block.attn.qkv(y).chunk(3, -1)
        )
        q, k = (turned(model, layer, part, grid) for part in (q, k))
        z = show("heads", layer, torch.softmax(q @ k.mT / math.sqrt(c.head_dim), dim=-1) @ v)  # (H, T, d)
        added = block.ls1(block.attn.proj(torch.cat(list(z), dim=-1)))
        x = block.norm1(x + added) if c.post_norm else x + added
        thought = show("mlp", layer, block.ls2(block.mlp(x if c.post_norm else block.norm2(x))))
        x = block.norm2(x + thought) if c.post_norm else x + thought
    return model.read_out(x[None])[0], kept


def effects_by_hand(model: ViT, what: str, token: int | None) -> Tensor:
    """(L, H or T, and all at once) in float64."""
    model = model.double()
    (ours, given), (theirs, _) = (run(model, image) for image in IMAGES)
    a, b = int(ours.argmax()), int(theirs.argmax())
    y = (lambda x: x[a]) if a == b else (lambda x: x[a] - x[b])
    columns = model.config.num_heads if what == "heads" else given["stream", 0].shape[0]
    found = torch.zeros(model.config.depth, columns + 1, dtype=torch.float64)
    for layer in range(model.config.depth):
        for column in range(columns + 1):
            chosen = [column] if column < columns else list(range(columns))

            def change(
                name: str, at: int, x: Tensor, layer: int = layer, chosen: list[int] = chosen
            ) -> Tensor:
                if (name, at) != (what, layer):
                    return x
                x = x.clone()
                for i in chosen:
                    rows = (
                        (i, slice(None)) if what == "heads" and token is None else (i, token) if token else i
                    )
                    x[rows] = given[name, at][rows]
                return x

            found[layer, column] = y(run(model, IMAGES[1], change)[0])
    model.float()
    return (found - y(theirs)) / (y(ours) - y(theirs))


@pytest.mark.parametrize("family", TRIED)
@pytest.mark.parametrize(("what", "token"), [("heads", None), ("heads", 4), ("stream", None), ("mlp", None)])
def test_what_is_carried_over_is_what_a_forward_pass_by_hand_says(family: str, what: str, token) -> None:
    model = model_of(family)
    expected = effects_by_hand(model, what, token)
    source, receiver = (trace(model, image) for image in IMAGES)
    found = patching.patching(source, receiver, model, what, token=token, batch_bytes=2**17)
    torch.testing.assert_close(found.effects.double(), expected[:, :-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.together.double(), expected[:, -1], rtol=1e-3, atol=1e-4)
    assert expected[:, :-1].std() > 1e-3, "there is something to see"


def test_the_whole_stream_of_a_run_is_that_run() -> None:
    """Whatever the layer: the receiver then answers as the source."""
    model = model_of("registers")
    source, receiver = (trace(model, image) for image in IMAGES)
    y = Objective(2, 5)
    found = patching.patching(source, receiver, model, "stream", objective=y)
    torch.testing.assert_close(found.together, torch.ones(3), rtol=0, atol=1e-4)
    back = patching.patching(receiver, source, model, "stream", objective=y)
    assert (found.source, found.receiver) == (back.receiver, back.source)


def test_what_is_watched_tells_the_two_answers_apart() -> None:
    model = model_of("cls")
    source, receiver = (trace(model, image) for image in IMAGES)
    said, other = int(source.logits.argmax()), int(receiver.logits.argmax())
    assert patching.difference(source, receiver) == Objective(said, None if said == other else other)
    assert patching.difference(source, receiver, other) == Objective(other)
    third = next(k for k in range(7) if k != other)
    assert patching.difference(source, receiver, third) == Objective(third, other)


# ---- against the ledger ------------------------------------------------------------------------------


def linear_toy() -> ViT:
    """Heads look everywhere alike, MLPs add nothing, the norm's scale is all but constant, and no head reads
    what another one wrote: what heads do is direct, and all of it is in the ledger."""
    model = randomised(ViT(tiny_config(norm_eps=1e6)))
    half = model.config.embed_dim // 2
    for norm in (model.norm, *(n for block in model.blocks for n in (block.norm1, block.norm2))):
        norm.weight.mul_(1e3)
    for block in model.blocks:
        block.attn.qkv.weight[: 2 * 2 * half] = 0
        block.attn.qkv.bias[: 2 * 2 * half] = 0
        block.attn.qkv.weight[:, half:] = 0  # heads read the first half of the stream,
        block.attn.proj.weight[:half] = 0  # and write to the second,
        block.attn.proj.weight[half:] -= block.attn.proj.weight[half:].mean(
            dim=0
        )  # where they leave the mean
        block.attn.proj.bias[:] = 0
        block.mlp.fc2.weight[:] = 0
        block.mlp.fc2.bias[:] = 0
    return model


def test_on_a_linear_toy_it_is_the_difference_of_two_ledgers() -> None:
    model = linear_toy()
    source, receiver = (trace(model, image) for image in IMAGES)
    y = Objective(2, 5)
    found = patching.patching(source, receiver, model, "heads", objective=y)
    ours, theirs = (ledger(each, model, 2, 5).head_grid() for each in (source, receiver))
    gained = found.effects * (found.source - found.receiver)
    assert (ours - theirs).abs().min() > 1e-3 * abs(found.source - found.receiver), "every head did something"
    torch.testing.assert_close(
        gained, ours - theirs, rtol=1e-3, atol=1e-3 * float((ours - theirs).abs().max())
    )
    model.blocks[1].attn.qkv.weight[64:] = 0.2  # now heads read each other, and the ledger no longer knows
    source, receiver = (trace(model, image) for image in IMAGES)
    found = patching.patching(source, receiver, model, "heads", objective=y)
    ours, theirs = (ledger(each, model, 2, 5).head_grid() for each in (source, receiver))
    gained = found.effects * (found.source - found.receiver)
    assert not torch.allclose(gained[0], (ours - theirs)[0], rtol=1e-2)


# ---- what it costs, and what cannot be ----------------------------------------------------------------


@pytest.mark.parametrize("bytes_at_once", [1, 2**16, 2**28])
def test_memory_does_not_change_the_numbers(bytes_at_once: int) -> None:
    model = model_of("registers")
    source, receiver = (trace(model, image) for image in IMAGES)
    seen: list[tuple[int, int]] = []
    told = lambda *step: seen.append(step)  # noqa: E731
    found = patching.patching(source, receiver, model, "mlp", progress=told, batch_bytes=bytes_at_once)
    usual = patching.patching(source, receiver, model, "mlp")
    torch.testing.assert_close(found.effects, usual.effects, rtol=1e-4, atol=1e-5)
    steps = [done for done, _ in seen]
    assert steps == sorted(set(steps)) and seen[-1] == (3 * 14, 3 * 14)
    assert len(seen) == (42 if bytes_at_once == 1 else len(seen)) and (len(seen) == 3) == (
        bytes_at_once == 2**28
    )


def test_whoever_hears_of_progress_may_end_it() -> None:
    model = model_of("cls")
    source, receiver = (trace(model, image) for image in IMAGES)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patching.patching(source, receiver, model, progress=stop)


def test_what_differs_by_next_to_nothing_beside_the_logits_spread_is_no_difference() -> None:
    """Its effects would be rounding, over rounding. The unit is the spread, whatever the logits' size."""
    model = model_of("cls")
    one = trace(model, IMAGES[0])
    for size in (1e-3, 1.0, 1e3):
        flat = size * torch.tensor([1.0, -1.0, 0.5, 0.0, 0.3, -0.4, 0.2])
        spread = float(torch.cat([flat, flat]).std())
        for share, differs in ((0.9e-3, False), (1.1e-3, True)):
            moved = flat.clone()
            moved[2] += share * spread
            source, receiver = replace(one, logits=moved), replace(one, logits=flat)
            objective = patching.Objective(2, None)
            if differs:
                patching.patching(source, receiver, model, "stream", objective=objective)
            else:
                with pytest.raises(ValueError, match="nothing to carry over"):
                    patching.patching(source, receiver, model, "stream", objective=objective)


def test_what_cannot_be_carried_over_says_why() -> None:
    model = model_of("cls")
    source, receiver = (trace(model, image) for image in IMAGES)
    with pytest.raises(ValueError, match="nothing to carry over: choose another picture"):
        patching.patching(source, source, model)
    with pytest.raises(ValueError, match="show both pictures to the model at one size"):
        patching.patching(source, trace(model, torch.randn(3, 12, 20)), model)
    clips = randomised(ViT(tiny_config(num_frames=6, tubelet=2)))
    source_clip, receiver_clip = (trace(clips, clip) for clip in torch.randn(2, 6, 3, 8, 20))
    with pytest.raises(ValueError, match="this one looks at clips"):
        patching.patching(source_clip, receiver_clip, clips)
    with pytest.raises(ValueError, match="There is no 'attn' to carry over: choose heads, stream, mlp"):
        patching.patching(source, receiver, model, "attn")
    for what, token in (("heads", 22), ("mlp", 1)):
        with pytest.raises(ValueError, match="One token is chosen for heads, from 0 to 10"):
            patching.patching(source, receiver, model, what, token=token)
    headless = randomised(ViT(tiny_config(num_classes=0)))
    source, receiver = (trace(headless, image) for image in IMAGES)
    with pytest.raises(ValueError, match="this model has no classification head"):
        patching.patching(source, receiver, headless)


def test_rows_name_their_tokens_and_the_words_their_classes() -> None:
    model = model_of("cls")
    source, receiver = (trace(model, image) for image in IMAGES)
    found = patching.patching(source, receiver, model, "stream", objective=Objective(1, 3))
    rows = found.table()
    assert len(rows) == 3 * 12 and rows[0]["token"] == "[CLS]" and rows[1]["token"] == "patch (0, 0)"
    assert rows[11] == {"layer": 0, "token": "all", "effect": float(found.together[0])}
    assert found.maps().shape == (3, 2, 5) and float(found.maps()[1, 1, 4]) == float(found.effects[1, 10])
    card = Card("tiny", class_names=tuple("abcdefg"))
    assert found.asked(card) == "logit of b minus that of d"
    alone = patching.patching(source, receiver, model, objective=Objective(1))
    assert alone.asked(card) == "logit of b" and alone.table()[0]["head"] == "H0"
