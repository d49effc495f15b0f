"""Every method on a clip. The reference is a model of pictures that does the same by other means.

A patch of a clip is two frames of 3 channels: a patch of a picture with 6. All times below each other are one
tall picture, whose patches come in the same order. What the methods say of pictures is held to derivations in
float64 elsewhere (test_maps.py, test_totals.py, test_ledger.py); a clip has to say the same on its (t, h, w).
"""

import dataclasses

import pytest
import torch
from conftest import randomised, tiny_config
from torch import Tensor

from explorer import controls, measures
from explorer.faithfulness import Plan, race
from explorer.ledger import ledger
from explorer.methods import METHODS
from explorer.probes import SAMPLES, regress
from vit import MaskPatches, Trace, ViT, trace
from vit.grid import Grid

T, H, W, F = 2, 3, 4, 4  # a grid of (t, h, w), and the frames
KINDS = {
    "cls": {},
    "mean pool, registers": dict(pool="mean", num_registers=2, norm_after_pool=True),
    "no prefix, sincos": dict(pool="mean", class_token=False, pos_embed="sincos"),
}
kinds = pytest.mark.parametrize("kind", KINDS)
POOLED = {"attention pool": dict(pool="attention", class_token=False)}


def tall(clip: Tensor) -> Tensor:
    """(F, 3, height, width) -> (6, t·height, width), channels as the weights below have them."""
    return clip.unflatten(0, (T, 2)).permute(2, 1, 0, 3, 4).flatten(2, 3).flatten(0, 1)


def twins(kind: str, target: int | None = 2) -> tuple[ViT, Trace, ViT, Trace]:
    """(model of clips, its trace of one, model of pictures, its trace of the same as a tall picture)."""
    config = tiny_config(image_size=(4 * H, 4 * W), num_frames=F, tubelet=2, **(KINDS | POOLED)[kind])
    ours = randomised(ViT(config))
    still = dataclasses.replace(
        config, num_frames=1, tubelet=1, in_chans=6, image_size=(4 * T * H, 4 * W), pos_embed="learned"
    )
    theirs, weights = ViT(still), ours.state_dict()
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].flatten(1, 2)  # (D, 3·2, p, p)
    theirs.load_state_dict(weights)
    theirs.eval().requires_grad_(False)
    clip = torch.randn(F, 3, 4 * H, 4 * W)
    return ours, trace(ours, clip, target=target), theirs, trace(theirs, tall(clip), target=target)


def same(found: Tensor, wanted: Tensor, atol: float = 1e-5) -> None:
    assert found.shape == (T, H, W)
    torch.testing.assert_close(found, wanted.view(T, H, W), rtol=1e-4, atol=atol)


@kinds
def test_a_clip_is_traced_as_its_tall_picture(kind: str) -> None:
    _, found, _, wanted = twins(kind)
    for name in ("tokens", "attn", "logits", "attn_grad"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)


@kinds
@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("smoothgrad", "pooling_attention")]
)
def test_a_method_says_of_a_clip_what_it_says_of_its_tall_picture(kind: str, name: str) -> None:
    ours, clip, theirs, picture = twins(kind)
    same(METHODS[name](clip, model=ours), METHODS[name](picture, model=theirs))


def test_the_attention_that_pools_a_clip_is_that_of_its_tall_picture() -> None:
    ours, clip, theirs, picture = twins("attention pool")
    same(METHODS["pooling_attention"](clip, model=ours), METHODS["pooling_attention"](picture, model=theirs))


def test_smoothgrad_of_a_clip_is_a_mean_over_noisy_clips() -> None:
    ours, t, _, _ = twins("cls")
    found = METHODS["smoothgrad"](t, model=ours, seed=3)
    generator = torch.Generator().manual_seed(3)
    sigma = 0.15 * (t.image.max() - t.image.min())
    total = torch.zeros(F, 3, 4 * H, 4 * W, dtype=torch.float64)
    model = ours.double()
    for noise in torch.randn(SAMPLES, *t.image.shape, generator=generator) * sigma:
        x = (t.image + noise).double()[None].requires_grad_()
        total += torch.autograd.grad(model(x)[0, 2], x)[0][0] / SAMPLES
    wanted = torch.zeros(T, H, W)
    for f in range(F):
        for row in range(H):
            for column in range(W):
                part = total.abs()[f, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                wanted[f // 2, row, column] += float(part.sum())
    same(found, wanted, atol=1e-4)


@kinds
def test_ledger_totals_and_heads_of_a_clip(kind: str) -> None:
    ours, clip, theirs, picture = twins(kind)
    found, wanted = ledger(clip, ours), ledger(picture, theirs)
    same(found.map(), wanted.map())
    torch.testing.assert_close(found.head_grid(), wanted.head_grid(), rtol=1e-4, atol=1e-5)
    assert abs(found.gap) < 1e-4
    same(regress(clip, model=ours, passes=16).error, regress(picture, model=theirs, passes=16).error)


@kinds
@pytest.mark.parametrize("mode", measures.MODES)
def test_curves_of_a_clip(kind: str, mode: str) -> None:
    ours, clip, theirs, picture = twins(kind)
    orders = torch.stack([torch.randperm(T * H * W) for _ in range(2)])
    for found, wanted in zip(
        measures.perturbation_curves(ours, clip, orders, mode, 5),
        measures.perturbation_curves(theirs, picture, orders, mode, 5),
    ):
        torch.testing.assert_close(found.deletion, wanted.deletion, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.insertion, wanted.insertion, rtol=1e-4, atol=1e-5)


def test_a_race_on_a_clip_with_a_mask_for_every_frame() -> None:
    ours, clip, _, _ = twins("cls")
    mask = torch.zeros(F, 4 * H, 4 * W, dtype=torch.bool)
    mask[:2, :4, :8] = True  # two patches of the first time
    runners = race(ours, clip, ["attention", "rollout"], Plan(points=4, road=True), mask=mask)
    assert {"attention", "rollout", *controls.CONTROLS} <= {runner.name for runner in runners}
    for runner in runners:
        assert all(map(torch.isfinite, map(torch.tensor, runner.more.values())))


def test_controls_of_a_clip_are_told_of_every_frame() -> None:
    prior = controls.centre_prior((T, H, W))
    assert prior.shape == (T, H, W) and all(torch.equal(x, controls.centre_prior((H, W))) for x in prior)
    clip = torch.randn(F, 3, 4 * H, 4 * W)
    means = controls.patch_means(clip, (T, H, W))
    for t, row, column in ((0, 0, 0), (1, 2, 3)):
        part = clip[2 * t : 2 * t + 2, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        torch.testing.assert_close(means[:, t, row, column], part.mean((0, 2, 3)))
    covered = controls.coverage(
        torch.ones(F, 4 * H, 4 * W) * torch.tensor([1, 0, 1, 1]).view(F, 1, 1), (T, H, W)
    )
    assert covered[0].unique().tolist() == [0.5] and covered[1].unique().tolist() == [1]
    still = torch.zeros(F, 3, 4 * H, 4 * W)
    still[2, :, 4:8, 4:8] = 1  # in half of the frames of one patch
    unlike = controls.unlike_border(still, (T, H, W))
    assert unlike.flatten().nonzero().tolist() == [[H * W + W + 1]]


def test_a_clip_is_filled_in_frame_by_frame() -> None:
    clip, gone = torch.randn(2, 3, 6, 7), torch.rand(2, 6, 7) < 0.3
    gone[:, 0, 0] = False
    found = measures.filled_in(clip, gone, noise=0.0)
    for frame, wanted, hidden in zip(found, clip, gone):
        torch.testing.assert_close(frame, measures.filled_in(wanted, hidden, noise=0.0))
    gone[1] = False
    assert torch.equal(measures.filled_in(clip, gone)[1], clip[1])


@kinds
def test_hiding_a_place_in_all_frames_and_a_whole_frame(kind: str) -> None:
    """As the knock-out of all those patches from the tall picture's sequence."""
    ours, clip, theirs, picture = twins(kind)
    grid, prefix = clip.grid, clip.num_prefix_tokens
    assert grid == Grid((T, H, W))
    for hidden in (grid.through_time(5), grid.in_frame(1)):
        found = trace(ours, clip.image, edits=[MaskPatches(tuple(hidden), prefix)]).logits
        kept = torch.tensor([i for i in range(prefix + grid.count) if i - prefix not in hidden])
        tokens = theirs.embed(picture.image[None])[:, kept]
        wanted = theirs.read_out(theirs.run(tokens, places=theirs.places(picture.grid)[kept]))[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
