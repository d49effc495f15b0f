"""explorer/faithfulness.py: curves are what the model says when patches go, and a true map wins."""

import csv
import io

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from torch import Tensor

from explorer import faithfulness as f
from explorer.methods import METHODS
from vit import MaskPatches, Trace, ViT, trace

h, w = 3, 5
P = h * w
FAMILIES = {
    "cls": {},
    "registers": dict(num_registers=2),
    "mean pool": dict(pool="mean", class_token=False),
    "fc_norm": dict(pool="mean", norm_after_pool=True),
    "distilled": dict(distillation=True),
}
families = pytest.mark.parametrize("family", FAMILIES)


def model_and_trace(family: str = "cls", target: int | None = 2) -> tuple[ViT, Trace]:
    torch.manual_seed(3)
    model = randomised(ViT(tiny_config(**FAMILIES[family])))
    return model, trace(model, torch.randn(3, 12, 20), target=target)


@torch.no_grad()
def probability(model: ViT, image: Tensor, hidden: list[int], mode: str, prefix: int) -> float:
    """p(class 2) with some patches hidden, one image at a time."""
    if mode == "grey":
        image = image.clone()
        for patch in hidden:
            i, j = divmod(patch, w)
            image[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 0
        return float(model(image[None])[0].softmax(dim=0)[2])
    edit = MaskPatches(tuple(hidden), prefix)
    return float(trace(model, image, edits=[edit], keep=()).logits.softmax(dim=0)[2])


@families
@pytest.mark.parametrize("mode", f.MODES)
def test_curves_equal_one_picture_at_a_time(family: str, mode: str) -> None:
    model, t = model_and_trace(family)
    orders = torch.stack([torch.randperm(P), torch.randperm(P)])
    curves = f.perturbation_curves(model, t, orders, mode, points=6)
    for order, curve in zip(orders.tolist(), curves):
        torch.testing.assert_close(curve.fractions, torch.tensor([0, 3, 6, 9, 12, 15]) / P)
        for at, count in enumerate((0, 3, 6, 9, 12, 15)):
            everything_hidden = count == P and mode == "drop" and model.config.pool == "mean"
            how = "grey" if everything_hidden else mode  # the mean of no patch does not exist
            gone = probability(model, t.image, order[:count], how, t.num_prefix_tokens)
            assert float(curve.deletion[at]) == pytest.approx(gone, abs=1e-5)
            if count not in (0, P):
                left = probability(model, t.image, order[P - at * 3 :], mode, t.num_prefix_tokens)
                assert float(curve.deletion[at]) != pytest.approx(left, abs=1e-5)
        for at, count in enumerate((3, 6, 9, 12, 15), start=1):
            shown = probability(model, t.image, order[count:], mode, t.num_prefix_tokens)
            assert float(curve.insertion[at]) == pytest.approx(shown, abs=1e-5)
        assert curve.insertion[0] == curve.deletion[-1] and curve.insertion[-1] == curve.deletion[0]


def test_areas_are_trapezoids() -> None:
    fractions = torch.tensor([0.0, 0.25, 1.0])
    curve = f.Curves(fractions, torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.8, 1.0]))
    assert curve.deletion_area == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert curve.insertion_area == pytest.approx(0.25 * 0.4 + 0.75 * 0.9)
    runner = f.Runner("x", torch.zeros(1, 1), {"grey": curve, "drop": curve})
    assert runner.score == pytest.approx(curve.insertion_area - curve.deletion_area)


def test_more_points_than_patches_means_one_patch_at_a_time() -> None:
    model, t = model_and_trace()
    (curve,) = f.perturbation_curves(model, t, torch.randperm(P)[None], "grey", points=99)
    assert len(curve.fractions) == P + 1


def test_an_order_begins_at_the_top_and_breaks_ties_by_lot() -> None:
    map = torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
    order = f.order_of(map).tolist()
    assert order[:2] == [1, 3] and sorted(order) == list(range(6))
    ties = f.order_of(torch.zeros(10, 10))
    assert torch.equal(ties, f.order_of(torch.zeros(10, 10)))
    upper_half = (ties[:50] < 50).float().mean()
    assert 0.3 < upper_half < 0.7  # a stable sort would say 1


def test_controls_know_nothing_of_the_picture() -> None:
    centre = f.centre_prior((5, 7))
    assert centre.argmax() == 2 * 7 + 3 and centre.max() == 1 and centre.min() == 0
    assert torch.equal(centre, centre.flip(0)) and torch.equal(centre, centre.flip(1))
    assert f.centre_prior((1, 3)).shape == (1, 3)
    assert torch.equal(f.random_map((3, 5), 1), f.random_map((3, 5), 1))
    assert not torch.equal(f.random_map((3, 5), 1), f.random_map((3, 5), 2))


def test_pointing_and_mass_need_only_the_mask() -> None:
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[4:8, 8:14] = True  # patch (1, 2) and half of (1, 3)
    covered = f.coverage(mask, (h, w))
    assert covered[1].tolist() == [0, 0, 1, 0.5, 0] and covered.sum() == 1.5
    map = torch.zeros(h, w)
    map[1, 3], map[0, 0], map[2, 2] = 3, 1, -5
    assert f.pointing(map, covered) == 1 and f.pointing(map.flip(1), covered) == 0
    assert f.mass_on_object(map, covered) == pytest.approx(3 * 0.5 / 4)  # negative entries do not count
    assert f.mass_on_object(torch.ones(h, w), covered) == pytest.approx(1.5 / 15)
    assert f.mass_on_object(-torch.ones(h, w), covered) == pytest.approx(1.5 / 15)


def spotlight(patch: int) -> tuple[ViT, Tensor]:
    """A model whose blocks do nothing and whose class is brightness, and a picture with one lit patch."""
    model = ViT(tiny_config(depth=1, pool="mean", class_token=False, num_classes=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 1.0
        model.pos_embed[..., 1] = 48.0  # without it, LayerNorm would undo any dimming
        model.norm.weight.fill_(1.0)
        model.head.weight[1, 0], model.head.weight[0, 0] = 5.0, -5.0
    image = torch.zeros(3, 12, 20)
    i, j = divmod(patch, w)
    image[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 1.0
    return model.requires_grad_(False), image


def test_the_true_map_wins_where_the_truth_is_known() -> None:
    patch = 2  # not in the middle
    model, image = spotlight(patch)
    mask = image[0] > 0
    runners = f.race(model, trace(model, image, target=1), mask=mask, points=P + 1)
    by_name = {runner.name: runner for runner in runners}
    for name in ("occlusion", "knockout", "integrated_gradients", "logit_ledger"):
        assert by_name[name].map.argmax() == patch
        assert (by_name[name].pointing, by_name[name].mass) == (1, pytest.approx(1, abs=1e-4))
        assert by_name[name].score > by_name[f.CENTRE].score + 0.1
        assert by_name[name].score > by_name[f.RANDOM].score + 0.1
    # LayerNorm undoes the scaling of a token, so x · ∂y/∂x is zero where nothing else reads it (Euler)
    assert by_name["input_gradient"].map.abs().max() < 1e-5
    assert by_name[f.RANDOM].pointing == by_name[f.RANDOM].mass == pytest.approx(1 / P)
    assert runners == sorted(runners, key=lambda runner: -runner.score)


def test_a_race_has_every_usable_method_and_the_controls() -> None:
    model, t = model_and_trace()
    heard: list[tuple[int, int]] = []
    runners = f.race(model, t, points=3, progress=lambda done, total: heard.append((done, total)))
    assert {runner.name for runner in runners} == {*METHODS, f.CENTRE, f.RANDOM}
    assert heard == [(n, len(METHODS) + 2) for n in range(1, len(METHODS) + 3)]
    assert all(runner.pointing is None for runner in runners)
    few = f.race(model, t, ["rollout"], modes=["drop"], randoms=0, points=3)
    assert {runner.name for runner in few} == {"rollout", f.CENTRE}
    assert set(few[0].figures()) == {"score", "deletion drop", "insertion drop"}
    rollout = next(runner for runner in few if runner.name == "rollout")
    torch.testing.assert_close(rollout.map, METHODS["rollout"](t))


def test_methods_that_cannot_work_are_left_out() -> None:
    assert f.usable_methods(tiny_config(), 16) == list(METHODS)
    assert set(METHODS) - set(f.usable_methods(tiny_config(post_norm=True), 16)) == {"logit_ledger"}
    assert set(METHODS) - set(f.usable_methods(tiny_config(), 290)) == {"flow"}
    without_head = f.usable_methods(tiny_config(num_classes=0), 16)
    assert without_head == [name for name, method in METHODS.items() if not method.class_specific]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(modes=["blur"]), r"by grey or drop, not by \['blur'\]"),
        (dict(points=2), "at least 3 points"),
        ({}, "watches one class"),
    ],
)
def test_wrong_races_are_one_sentence(options: dict, sentence: str) -> None:
    model, t = model_and_trace(target=2 if options else None)
    with pytest.raises(ValueError, match=sentence):
        f.race(model, t, ["rollout"], **options)


def test_a_table_averages_races_of_the_models_own_answers() -> None:
    model, _ = model_and_trace()
    images = [torch.randn(3, 12, 20) for _ in range(4)]
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[:4, :4] = True
    heard: list[int] = []
    methods = ["rollout", "occlusion"]
    table = f.table(model, ((image, mask) for image in images), methods, points=4, progress=heard.append)
    assert heard == [1, 2, 3, 4] and table.images == 4
    assert [row.name for row in table.rows] == [
        row.name for row in sorted(table.rows, key=lambda row: -row.figures["score"].mean)
    ]
    by_name = {row.name: row for row in table.rows}
    scores: dict[str, list[float]] = {name: [] for name in by_name}
    for number, image in enumerate(images):
        t = trace(model, image, target=int(model(image[None]).argmax()))
        for runner in f.race(model, t, methods, mask=mask, points=4, seed=3 * number):
            scores[runner.name].append(runner.score)
    for name, row in by_name.items():
        assert row.each["score"].tolist() == pytest.approx(scores[name])
        assert row.figures["score"].mean == pytest.approx(np.mean(scores[name]))
        lead = np.mean(np.subtract(scores[name], scores[f.CENTRE]))
        assert row.beyond_centre.mean == pytest.approx(lead, abs=1e-9)
    assert by_name[f.CENTRE].verdict == "the bar" and by_name["occlusion"].verdict == "beats the centre"


def test_a_table_can_be_read_by_people_and_by_machines() -> None:
    model, _ = model_and_trace()
    table = f.table(model, [(torch.randn(3, 12, 20), None)] * 2, ["rollout"], points=3)
    lines = table.markdown().splitlines()
    assert len(lines) == 2 + 3 and "Attention rollout" in table.markdown()
    assert len({line.count("|") for line in lines}) == 1
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(table.records()[0]))
    writer.writeheader()
    writer.writerows(table.records())
    assert {"method", "verdict", "score", "score low", "score high", "beyond centre"} <= set(
        table.records()[0]
    )
    with pytest.raises(ValueError, match="there was none"):
        f.table(model, [])


def test_the_verdict_follows_the_interval() -> None:
    def verdict(low: float, high: float, name: str = "rollout") -> str:
        return f.Row(name, {}, f.Estimate((low + high) / 2, low, high)).verdict

    assert verdict(0.01, 0.1) == "beats the centre"
    assert verdict(-0.1, -0.01) == "worse than the centre"
    assert verdict(-0.01, 0.1) == "no better than the centre"


@pytest.mark.parametrize("n", [3, 5, 15, 60])
def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say(n: int) -> None:
    values = torch.randn(600, n, dtype=torch.float64) + 0.5
    held = [(e := f.bootstrap(v, 500)).low <= 0.5 <= e.high for v in values]
    assert 0.92 < np.mean(held) < 0.98


def test_one_picture_proves_nothing() -> None:
    estimate = f.bootstrap(torch.tensor([0.3]))
    assert estimate.mean == pytest.approx(0.3) and estimate.low == -np.inf and estimate.high == np.inf
    assert f.Row("rollout", {}, estimate).verdict == "too few pictures"


def test_bootstrap_intervals_are_as_wide_as_the_normals_of_many_values() -> None:
    values = torch.randn(1, 60, dtype=torch.float64) + 0.5
    estimate = f.bootstrap(values[0])
    assert estimate == f.bootstrap(values[0]) and estimate.low < estimate.mean < estimate.high
    assert estimate.high - estimate.low == pytest.approx(
        2 * 1.96 * float(values[0].std()) / 60**0.5, rel=0.15
    )


def test_some_images_may_have_a_mask_and_others_none() -> None:
    model = randomised(ViT(tiny_config()))
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[:4, :4] = True
    images = [(torch.randn(3, 12, 20), mask), (torch.randn(3, 12, 20), None)]
    found = f.table(model, images, ["attention"], points=3, resamples=10)
    assert found.images == 2 and "pointing" not in found.rows[0].figures
    with pytest.raises(ValueError, match="hidden by"):
        f.race(model, trace(model, images[0][0], target=0), ["attention"], modes=())
