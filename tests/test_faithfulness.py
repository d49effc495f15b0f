"""explorer/faithfulness.py: curves are what the model says when patches go, and a true map wins."""

import csv
import io
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from families import FAMILIES
from torch import Tensor

from explorer import controls, measures
from explorer import faithfulness as f
from explorer.methods import METHODS
from vit import Card, MaskPatches, Trace, ViT, ViTConfig, trace

h, w = 3, 5
P = h * w
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
    curves = measures.perturbation_curves(model, t, orders, mode, points=6)
    for order, curve in zip(orders.tolist(), curves):
        torch.testing.assert_close(curve.fractions, torch.tensor([0, 3, 6, 9, 12, 15]) / P)
        for at, count in enumerate((0, 3, 6, 9, 12, 15)):
            everything_hidden = count == P and mode == "drop" and model.config.pool != "cls"
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
    curve = measures.Curves(fractions, torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.8, 1.0]))
    assert curve.deletion_area == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert curve.insertion_area == pytest.approx(0.25 * 0.4 + 0.75 * 0.9)
    runner = f.Runner("x", torch.zeros(1, 1), {"grey": curve, "drop": curve})
    assert runner.score == pytest.approx(curve.insertion_area - curve.deletion_area)


def test_more_points_than_patches_means_one_patch_at_a_time() -> None:
    model, t = model_and_trace()
    (curve,) = measures.perturbation_curves(model, t, torch.randperm(P)[None], "grey", points=99)
    assert len(curve.fractions) == P + 1


def test_an_order_begins_at_the_top_and_breaks_ties_by_lot() -> None:
    map = torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
    order = controls.order_of(map).tolist()
    assert order[:2] == [1, 3] and sorted(order) == list(range(6))
    ties = controls.order_of(torch.zeros(10, 10))
    assert torch.equal(ties, controls.order_of(torch.zeros(10, 10)))
    upper_half = (ties[:50] < 50).float().mean()
    assert 0.3 < upper_half < 0.7  # a stable sort would say 1


def test_controls_know_nothing_of_the_picture() -> None:
    centre = controls.centre_prior((5, 7))
    assert centre.argmax() == 2 * 7 + 3 and centre.max() == 1 and centre.min() == 0
    assert torch.equal(centre, centre.flip(0)) and torch.equal(centre, centre.flip(1))
    assert controls.centre_prior((1, 3)).shape == (1, 3)
    assert torch.equal(controls.random_map((3, 5), 1), controls.random_map((3, 5), 1))
    assert not torch.equal(controls.random_map((3, 5), 1), controls.random_map((3, 5), 2))


def test_pointing_and_mass_need_only_the_mask() -> None:
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[4:8, 8:14] = True  # patch (1, 2) and half of (1, 3)
    covered = controls.coverage(mask, (h, w))
    assert covered[1].tolist() == [0, 0, 1, 0.5, 0] and covered.sum() == 1.5
    map = torch.zeros(h, w)
    map[1, 3], map[0, 0], map[2, 2] = 3, 1, -5
    assert controls.pointing(map, covered) == 1 and controls.pointing(map.flip(1), covered) == 0
    assert controls.mass_on_object(map, covered) == pytest.approx(
        3 * 0.5 / 4
    )  # negative entries do not count
    assert controls.mass_on_object(torch.ones(h, w), covered) == pytest.approx(1.5 / 15)
    assert controls.mass_on_object(-torch.ones(h, w), covered) == pytest.approx(1.5 / 15)


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
    runners = f.race(model, trace(model, image, target=1), plan=f.Plan(points=P + 1, road=True), mask=mask)
    by_name = {runner.name: runner for runner in runners}
    for name in ("occlusion", "knockout", "integrated_gradients", "logit_ledger", "cp_lrp", "ridge"):
        assert by_name[name].map.argmax() == patch
        more = by_name[name].more
        least = 0.9 if name != "ridge" else 0.5  # a regression is never quite zero elsewhere
        assert more["pointing"] == 1 and least < more["mass on object"] < 1 + 1e-6
        assert more["sensitivity grey"] > 0.9 and more["sensitivity drop"] > 0.6 and more["ROAD"] > 0
        assert by_name[name].score > by_name[f.CENTRE].score + 0.1
        assert by_name[name].score > by_name[f.RANDOM].score + 0.1
    # LayerNorm undoes the scaling of a token, so x · ∂y/∂x is zero where nothing else reads it (Euler)
    assert by_name["input_gradient"].map.abs().max() < 1e-5
    assert by_name[f.RANDOM].more["mass on object"] == pytest.approx(1 / P, abs=0.1)
    assert runners == sorted(runners, key=lambda runner: -runner.score)


def test_a_race_has_every_usable_method_and_the_controls() -> None:
    model, t = model_and_trace()
    heard: list[tuple[int, int]] = []
    plan = f.Plan(points=3, road=True)
    runners = f.race(model, t, plan=plan, progress=lambda done, total: heard.append((done, total)))
    usable = f.usable_methods(model.config, t.tokens.shape[1])
    assert {runner.name for runner in runners} == {*usable, *f.CONTROLS}
    assert heard == [(n, len(usable) + 5) for n in range(1, len(usable) + 6)]
    assert all("pointing" not in runner.more for runner in runners)
    few = f.race(model, t, ["rollout"], f.Plan(("drop",), 3, randoms=0, subsets=0))
    assert {runner.name for runner in few} == {"rollout", *f.CONTROLS} - {f.RANDOM}
    assert set(few[0].figures()) == {"score", "deletion drop", "insertion drop"}
    rollout = next(runner for runner in few if runner.name == "rollout")
    torch.testing.assert_close(rollout.map, METHODS["rollout"](t))


@pytest.mark.parametrize("family", ["cls", "mean pool, no prefix", "SigLIP"])
def test_a_picture_of_one_patch_is_raced_without_what_leaves_patches_out(family: str) -> None:
    model, _ = model_and_trace(family)
    t = trace(model, torch.randn(3, 4, 4), target=2)
    runners = f.race(model, t, plan=f.Plan(road=True))
    names = {runner.name for runner in runners}
    assert {"rollout", "occlusion"} <= names and not names & {"ridge", "knockout"}
    assert all(runner.score == pytest.approx(runners[0].score) for runner in runners), "there is one order"


def test_in_half_precision_the_passes_that_score_are_bf16s_and_the_maps_float32s() -> None:
    model, t = model_and_trace()
    exact, half = (f.race(model, t, ["rollout"], f.Plan(points=4, half=half)) for half in (False, True))
    by_name = {runner.name: runner for runner in half}
    for runner in exact:
        torch.testing.assert_close(by_name[runner.name].map, runner.map)
        for mode, curves in runner.curves.items():
            in_half = by_name[runner.name].curves[mode]
            assert not torch.equal(in_half.deletion, curves.deletion)
            torch.testing.assert_close(in_half.deletion, curves.deletion, atol=0.02, rtol=0)
    assert next(model.parameters()).dtype == torch.float32


def left_out(config: ViTConfig, tokens: int = 16) -> set[str]:
    return {*METHODS} - {*f.usable_methods(config, tokens)}


def test_methods_that_cannot_work_are_left_out() -> None:
    assert left_out(tiny_config()) == {"pooling_attention"}
    assert left_out(tiny_config(pool="attention")) == {"logit_ledger"}
    assert left_out(tiny_config(post_norm=True)) == {"pooling_attention", "logit_ledger"}
    assert left_out(tiny_config(), tokens=290) == {"pooling_attention", "flow"}
    of_a_class = {name for name, method in METHODS.items() if method.class_specific}
    assert left_out(tiny_config(num_classes=0)) == {"pooling_attention"} | of_a_class


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(modes=["blur"]), r"by grey or drop, not by \['blur'\]"),
        (dict(points=2), "at least 3 points"),
        (dict(subsets=7), "at least 8 sets of patches, not 7"),
        ({}, "watches one class"),
    ],
)
def test_wrong_races_are_one_sentence(options: dict, sentence: str) -> None:
    model, t = model_and_trace(target=2 if options else None)
    with pytest.raises(ValueError, match=sentence):
        f.race(model, t, ["rollout"], f.Plan(**options))


def test_a_table_averages_races_of_the_models_own_answers() -> None:
    model, _ = model_and_trace()
    images = [torch.randn(3, 12, 20) for _ in range(4)]
    mask = torch.zeros(12, 20, dtype=torch.bool)
    mask[:4, :4] = True
    heard: list[int] = []
    methods, plan = ["rollout", "occlusion"], f.Plan(points=4)
    samples = (f.Sample(image, mask) for image in images)
    table = f.table(model, samples, methods, plan, progress=heard.append)
    assert heard == [1, 2, 3, 4] and table.images == 4
    assert [row.name for row in table.rows] == [
        row.name for row in sorted(table.rows, key=lambda row: -row.figures["score"].mean)
    ]
    by_name = {row.name: row for row in table.rows}
    scores: dict[str, list[float]] = {name: [] for name in by_name}
    for number, image in enumerate(images):
        t = trace(model, image, target=int(model(image[None]).argmax()))
        for runner in f.race(model, t, methods, f.Plan(points=4, seed=3 * number), mask=mask):
            scores[runner.name].append(runner.score)
    controls_of = {name: float(np.mean(scores[name])) for name in f.CONTROLS}
    bar = max(controls_of, key=controls_of.__getitem__)
    assert table.bars["score"] == bar
    first = max(methods, key=lambda name: float(np.mean(scores[name])))
    for name, row in by_name.items():
        assert row.each["score"].tolist() == pytest.approx(scores[name])
        assert row.figures["score"].mean == pytest.approx(np.mean(scores[name]))
        for other, estimate in (
            (f.CENTRE, row.beyond_centre), (bar, row.leads["score"]), (first, row.behind_first),
        ):  # fmt: skip
            lead = np.mean(np.subtract(scores[name], scores[other]))
            assert estimate.mean == pytest.approx(lead, abs=1e-9)
    assert {by_name[name].verdict for name in f.CONTROLS} == {"a control"}


def test_the_class_that_is_watched_may_be_the_true_one() -> None:
    model, _ = model_and_trace()
    image = torch.randn(3, 12, 20)
    answer = f.answer(model, image)
    plan = f.Plan(("grey",), 3, subsets=0)
    seen = [
        f.table(model, [f.Sample(image, target=target)], ["knockout"], plan).rows[0].each["score"]
        for target in (None, answer, (answer + 1) % 7)
    ]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_a_table_can_be_read_by_people_and_by_machines() -> None:
    model, _ = model_and_trace()
    table = f.table(model, [f.Sample(torch.randn(3, 12, 20))] * 2, ["rollout", "knockout"], f.Plan(points=3))
    lines = table.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 2 + 4 and "Attention rollout" in table.markdown()
    assert len({line.count("|") for line in rows}) == 1
    assert "Attention knock-out † |" in table.markdown() and "Attention knock-out, drop" in table.markdown()
    assert f"The best control: {table.bars['score']} by score" in table.markdown()
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(table.records()[0]))
    writer.writeheader()
    writer.writerows(table.records())
    assert {"method", "verdict", "score", "score low", "score high", "beyond centre"} <= set(
        table.records()[0]
    )
    with pytest.raises(ValueError, match="there was none"):
        f.table(model, [])


def test_a_stopped_table_is_taken_up_where_it_was(tmp_path) -> None:
    model, _ = model_and_trace()
    samples = [f.Sample(torch.randn(3, 12, 20)) for _ in range(3)]
    plan, keep = f.Plan(points=3, subsets=8), tmp_path / "deep" / "kept.jsonl"
    whole = f.table(model, samples, ["rollout"], plan)
    f.table(model, samples[:2], ["rollout"], plan, keep=keep)
    with keep.open("a") as file:
        file.write('["0f", {"rollout": {"sco')  # the machine went down here
    calls = []
    f.table(model, samples, ["rollout"], plan, keep=keep, progress=calls.append)
    again = f.table(model, samples, ["rollout"], plan, keep=keep)
    assert again.rows[0].each.keys() == whole.rows[0].each.keys()
    for one, other in zip(again.rows, whole.rows):
        assert all(torch.equal(one.each[key], other.each[key]) for key in one.each)
    assert len(keep.read_text().splitlines()) == 1 + 3
    with pytest.raises(ValueError, match="figures of other weights, methods or settings: name another file"):
        f.table(model, samples, ["rollout"], f.Plan(points=4), keep=keep)
    assert f.table(model, samples[:2], ["rollout"], plan, keep=keep).images == 2
    with pytest.raises(ValueError, match="figures of other pictures or of other classes: name another file"):
        f.table(model, samples[::-1], ["rollout"], plan, keep=keep)


def test_what_is_kept_is_of_these_weights_to_the_last_number_and_of_these_classes(tmp_path) -> None:
    model, _ = model_and_trace()
    changed = deepcopy(model)
    changed.blocks[1].mlp.fc2.weight[-1, -1] += 0.01
    assert f.weights_digest(changed) != f.weights_digest(model) == f.weights_digest(deepcopy(model))
    image = torch.randn(3, 12, 20)
    other = image.clone()
    other[-1, -1, -1] += 0.01
    assert f.tensor_digest(other) != f.tensor_digest(image) == f.tensor_digest(image.clone())
    plan, keep = f.Plan(("grey",), 3, subsets=0), tmp_path / "kept.jsonl"
    f.table(model, [f.Sample(image, target=1)], ["rollout"], plan, keep=keep)
    with pytest.raises(ValueError, match="figures of other weights"):
        f.table(changed, [f.Sample(image, target=1)], ["rollout"], plan, keep=keep)
    for sample in (f.Sample(image, target=2), f.Sample(image), f.Sample(other, target=1)):
        with pytest.raises(ValueError, match="figures of other pictures or of other classes"):
            f.table(model, [sample], ["rollout"], plan, keep=keep)
    assert f.table(model, [f.Sample(image, target=1)], ["rollout"], plan, keep=keep).images == 1


def test_a_measure_that_hides_as_a_method_does_is_no_evidence_for_it() -> None:
    names = ("score", "sensitivity grey", "sensitivity drop")

    def runner(name: str, *figures: float) -> f.Runner:
        score, *others = figures
        line = torch.tensor([0.0, 1.0])
        curves = {"grey": measures.Curves(line, torch.zeros(2), torch.full((2,), score))}
        return f.Runner(name, torch.zeros(1, 1), curves, dict(zip(names[1:], others)))

    assert METHODS["knockout"].judged_by == "drop" and METHODS["occlusion"].judged_by == "grey"
    controls_ = [runner(f.CENTRE, 0.2, 0.1, 0.1), runner(f.RANDOM, 0.1, 0.2, 0.2)]
    ahead = [runner(name, 0.3, 0.3, 0.3) for name in ("knockout", "occlusion", "rollout")]
    mixed = [runner("relevance", 0.2, 0.15, 0.25)]  # ahead of one control, level with another
    assert f.beliefs([*controls_, *ahead, *mixed]) == {
        "knockout": ["score", "sensitivity grey"],
        "occlusion": ["score", "sensitivity drop"],
        "rollout": [*names],
        "relevance": ["sensitivity drop"],
    }


def test_ties_of_another_map_or_seed_are_drawn_by_another_lot() -> None:
    """Two flat maps of one race must not go in one order: both would be as lucky."""
    model, t = model_and_trace()
    plans = [f.Plan(("grey",), 3, randoms=0, subsets=0, seed=seed) for seed in (0, 0, 1)]
    found = [f.race(model, t, ["rollout", "attention"], p, map_of=lambda _: torch.zeros(h, w)) for p in plans]
    (a, b), again, (c, d) = ([r.order.tolist() for r in race if r.name in METHODS] for race in found)
    assert sorted(again) == sorted([a, b])
    assert len({tuple(order) for order in (a, b, c, d)}) == 4


def test_the_verdict_needs_more_than_one_measure() -> None:
    up, down, level = f.Estimate(0.1, 0.05, 0.2), f.Estimate(-0.1, -0.2, -0.05), f.Estimate(0, -0.1, 0.1)

    def verdict(name: str = "rollout", **leads: f.Estimate) -> str:
        named = {"score": level, "grey": level, "drop": level} | leads
        found = {key if key == "score" else f"sensitivity {key}": lead for key, lead in named.items()}
        return f.Row(name, {}, found, level, level, {}).verdict

    assert verdict(score=up, grey=up) == "beats every control"
    assert verdict(score=up) == "beats the controls by score alone"
    assert verdict(drop=up) == "beats the controls by sensitivity drop alone"
    assert verdict() == "no better than a control"
    assert verdict(drop=down) == "worse than a control"
    assert verdict(score=up, drop=down) == "the measures disagree"
    assert verdict(f.CENTRE, score=up, grey=up) == "a control"
    # judged by the operation that it is made of: that column counts for nothing
    assert verdict("knockout", score=up, drop=up) == "beats the controls by score alone"
    assert verdict("occlusion", score=up, drop=up) == "beats every control"


def test_what_a_race_costs_is_what_the_model_is_given() -> None:
    model, t = model_and_trace()
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    maps = {"rollout": METHODS["rollout"](t), "attention": METHODS["attention"](t)}
    for plan in (f.Plan(points=5), f.Plan(("grey",), 4, road=True, subsets=0), f.Plan(("drop",), randoms=1)):
        seen.clear()
        f.race(model, t, list(maps), plan, map_of=maps.__getitem__)
        given = sum(count * tokens for count, tokens in seen) / (P + 1)
        assert f.race_cost(plan, 2, P) == pytest.approx(given, rel=0.25)


# ---- controls, ties, sensitivity-n, ROAD -----------------------------------------------------------


def test_controls_see_pixels_and_no_model() -> None:
    image = torch.zeros(3, 12, 20)
    image[:, 4:8, 12:16] = torch.tensor([1.0, -1.0]).repeat(2)[:, None] * torch.ones(4)  # stripes, mean zero
    image[0, :4, :4] = 1.0  # a red corner
    found = controls.controls_for(image, (h, w))
    assert found.keys() == {*f.CONTROLS} - {f.RANDOM}
    assert found[controls.CONTRAST].argmax() in (7, 8) and found[controls.CONTRAST].max() <= 1
    assert found[controls.BORDER].argmax() == 0 and found[controls.BORDER][1, 3] == 0
    flat = controls.ranks(torch.tensor([[1.0, 3.0], [3.0, 0.0]]))
    assert flat.flatten().tolist() == pytest.approx([1 / 3, 5 / 6, 5 / 6, 0])


def test_ties_are_drawn_anew_for_every_map_and_picture() -> None:
    flat = torch.zeros(10, 10)
    firsts = torch.stack([controls.order_of(flat, seed)[:25] for seed in range(200)])
    assert len({tuple(order) for order in firsts.tolist()}) == 200
    share = torch.bincount(firsts.flatten(), minlength=100) / 200
    assert (share - 0.25).abs().max() < 0.15  # no place is favoured


@families
@pytest.mark.parametrize("mode", f.MODES)
def test_sensitivity_is_a_correlation_over_sets_of_patches(family: str, mode: str) -> None:
    model, t = model_and_trace(family)
    maps = torch.randn(3, P)
    maps[2] = 0.3
    found = measures.sensitivity(model, t, maps, mode, subsets=12, seed=4)
    orders = torch.rand(12, P, generator=torch.Generator().manual_seed(4)).argsort(dim=1)
    lost = []
    for order in orders:
        hidden = sorted(order[:3].tolist())
        if mode == "grey":
            image = t.image.clone()
            for patch in hidden:
                i, j = divmod(patch, w)
                image[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 0
            lost.append(float(t.logits[2] - model(image[None])[0, 2]))
        else:
            edit = MaskPatches(tuple(hidden), t.num_prefix_tokens)
            lost.append(float(t.logits[2] - trace(model, t.image, edits=[edit], keep=()).logits[2]))
    for map, value in zip(maps[:2].double().numpy(), found.tolist()):
        told = [map[order[:3].numpy()].sum() for order in orders]
        assert value == pytest.approx(np.corrcoef(told, lost)[0, 1], abs=1e-3)
    assert found[2] == 0  # a flat map says nothing


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "none"])
def test_curves_and_road_watch_what_the_card_says_that_logits_mean(scores: str) -> None:
    model, t = model_and_trace()
    card = Card("x", scores=scores)
    logits = t.logits[None]
    read = {"softmax": logits.softmax(dim=1), "sigmoid": logits.sigmoid(), "none": logits}[scores][0, 2]
    (curve,) = measures.perturbation_curves(model, t, torch.randperm(P)[None], "grey", 3, card)
    torch.testing.assert_close(curve.deletion[0], read)
    torch.testing.assert_close(measures.reader_of(t, card)(logits)[0], read)
    (found,) = measures.road(model, t, torch.arange(P)[None], card)
    watched = f.race(model, t, [], f.Plan(("grey",), 3, subsets=0), card=card)
    firsts = [float(runner.curves["grey"].deletion[0]) for runner in watched]
    assert firsts == pytest.approx([float(read)] * len(f.CONTROLS))
    differences = []
    for n in (3, 8, 12):
        gone = (torch.arange(P)[-n:], torch.arange(P)[:n])
        left = [measures.filled_in(t.image, measures.patches_to_pixels(some, t)) for some in gone]
        least, most = card.values(model(torch.stack(left)))[:, 2].tolist()
        differences.append(least - most)
    assert float(found) == pytest.approx(np.mean(differences), abs=1e-5)


def test_the_noise_of_what_is_filled_in_is_another_in_every_frame() -> None:
    """The same in all of them would stand still, and be seen as a thing."""
    frame, gone = torch.rand(3, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    gone[2:6, 2:6] = True
    clip = measures.filled_in(frame.expand(4, -1, -1, -1), gone.expand(4, -1, -1), seed=3, noise=0.1)
    for at, one in enumerate(clip):
        torch.testing.assert_close(one, measures.filled_in(frame, gone, 3 + at, 0.1))
        assert all((one - other).abs()[:, gone].mean() > 0.03 for other in clip[:at])
        assert torch.equal(one[:, ~gone], frame[:, ~gone])


def test_filling_in_solves_the_equations_of_road() -> None:
    image = torch.randn(3, 6, 7)
    gone = torch.rand(6, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    filled = measures.filled_in(image, gone, noise=0).double()
    assert torch.equal(filled[:, ~gone].float(), image[:, ~gone])
    for row, column in gone.nonzero().tolist():
        total, weights = torch.zeros(3, dtype=torch.float64), 0.0
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                i, j = row + down, column + right
                if (down or right) and 0 <= i < 6 and 0 <= j < 7:
                    weight = 1 / 12 if down and right else 1 / 6
                    total += weight * filled[:, i, j]
                    weights += weight
        torch.testing.assert_close(filled[:, row, column], total / weights, rtol=1e-4, atol=1e-5)
    noisy = measures.filled_in(image, gone, seed=1)
    assert 0.002 < float((noisy - filled.float())[:, gone].std()) < 0.03
    assert torch.equal(noisy, measures.filled_in(image, gone, seed=1))


def test_road_is_what_is_left_without_the_least_minus_without_the_most() -> None:
    model, t = model_and_trace()
    order = torch.randperm(P)
    (found,) = measures.road(model, t, order[None], seed=2)
    (turned,) = measures.road(model, t, order.flip(0)[None], seed=2)
    differences = []
    for n in (3, 8, 12):  # of 15 patches: 0.2, 0.5 and 0.8
        left = []
        for gone in (order[-n:], order[:n]):
            pixels = measures.patches_to_pixels(gone, t)
            assert pixels.sum() == 16 * n
            image = measures.filled_in(t.image, pixels, seed=2)
            left.append(float(model(image[None])[0].softmax(dim=0)[2]))
        differences.append(left[0] - left[1])
    assert float(found) == pytest.approx(np.mean(differences), abs=1e-5)
    assert float(found) == pytest.approx(-float(turned), abs=1e-5)


@pytest.mark.parametrize("n", [3, 5, 15, 60])
def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say(n: int) -> None:
    values = torch.randn(600, n, dtype=torch.float64) + 0.5
    held = [(e := f.bootstrap(v, 500)).low <= 0.5 <= e.high for v in values]
    assert 0.92 < np.mean(held) < 0.98


def test_the_interval_of_four_values_is_what_a_table_of_students_t_makes_of_it() -> None:
    """Means of four draws from 0, 0, 0, 4: none is 4 in 32 % of them, three or more are in 5 %, all in 0.4 %,
    so the ends are 0 and 3; t of 3 degrees of freedom is 3.1824, the normal's quantile 1.9600."""
    wider = 3.182446 / 1.959964 * (4 / 3) ** 0.5
    found = f.bootstrap(torch.tensor([0.0, 4.0, 0.0, 0.0], dtype=torch.float64))
    assert found.mean == 1
    assert (found.low, found.high) == pytest.approx((1 - wider, 1 + 2 * wider), abs=1e-5)


def test_one_picture_proves_nothing() -> None:
    estimate = f.bootstrap(torch.tensor([0.3]))
    assert estimate.mean == pytest.approx(0.3) and estimate.low == -np.inf and estimate.high == np.inf
    assert f.Row("rollout", {}, {"score": estimate}, estimate, estimate, {}).verdict == "too few pictures"


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
    images = [f.Sample(torch.randn(3, 12, 20), mask), f.Sample(torch.randn(3, 12, 20))]
    found = f.table(model, images, ["attention"], f.Plan(points=3), resamples=10)
    assert found.images == 2 and "pointing" not in found.rows[0].figures
    with pytest.raises(ValueError, match="hidden by"):
        f.Plan(modes=())
