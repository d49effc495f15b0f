"""The lesson: every number on every step is the trace's, for every kind of model; its words are few."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from families import FAMILIES
from PIL import Image

import vit
from explorer.lesson import answer, attention, page, through_time
from explorer.lesson.follow import Choice, Follow, liveliest
from explorer.lesson.steps import MOST_WORDS, STEPS, lesson_of, lines_of, outline_of, steps_for, told
from explorer.payload import class_name
from vit import Card, ViT, trace
from vit.pictures import as_picture
from vit.trace import FreezeTime, MaskPatches, Recorder

CARD = Card("tiny", tuple("abcdefg"))
CHOICE = Choice(patch=7, layer=1, head=2)
CLIPS = {
    "clip": dict(num_frames=6, tubelet=2),
    "clip, mean pool": dict(num_frames=4, class_token=False, pool="mean", pos_embed="sincos"),
    "clip, no head": dict(num_frames=4, tubelet=2, num_classes=0),
}
KINDS = FAMILIES | {"no head": dict(num_classes=0)} | CLIPS


@pytest.fixture(params=KINDS, ids=str, scope="module")
def follow(request: pytest.FixtureRequest) -> Follow:
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(**KINDS[request.param])))
    card = CARD if model.config.num_classes else Card("headless")
    choice = replace(CHOICE, patch=15 + 7) if model.config.is_clip else CHOICE  # at time 1
    return Follow(trace(model, torch.randn(model.config.input_shape())), model, card, choice)


@pytest.fixture(scope="module")
def seen(follow: Follow) -> dict:
    """What a whole forward pass shows, (name, layer) -> tensor without the axis of images."""
    recorder = Recorder()
    with torch.no_grad():
        follow.model(follow.trace.image[None], recorder)
    return {(name, layer): x[0] for name, layers in recorder.seen.items() for layer, x in layers.items()}


def close(found, expected) -> None:
    found, expected = torch.as_tensor(found).float(), torch.as_tensor(expected).float()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


# a step, and its numbers ----------------------------------------------------------------------------------


def test_cut_and_flatten_show_the_pixels_that_the_model_saw(follow: Follow) -> None:
    config, image = follow.config, follow.trace.image
    assert attention.cut(follow) == {"rows": 3, "columns": 5, "side": 4, "count": follow.trace.grid.count}
    frames = image[config.tubelet : 2 * config.tubelet] if config.is_clip else image[None]  # those of time 1
    square = frames[..., 4:8, 8:12]  # patch 7 of 3 x 5 is (1, 2)
    data = attention.flatten(follow)
    close(data["values"], square.transpose(0, 1).flatten())
    whole = [as_picture(frame, follow.card)[4:8, 8:12].tolist() for frame in frames]
    assert data["colours"] == whole and data["count"] == 48 * config.tubelet


def test_embed_shows_products_that_add_up(follow: Follow, seen: dict) -> None:
    data = attention.embed(follow)
    output = torch.tensor(data["output"])
    with torch.no_grad():
        close(follow.model.patch_embed.norm(output), seen["embed", None][follow.choice.patch])
    for pattern in data["filters"]:
        sum_ = np.dot(pattern["weights"], data["values"]) + pattern["bias"]
        assert sum_ == pytest.approx(float(output[pattern["index"]]), abs=1e-4)
        assert pattern["result"] == pytest.approx(sum_, abs=1e-4)


def test_position_adds_up_to_what_the_first_layer_reads(follow: Follow, seen: dict) -> None:
    data = attention.position(follow)
    close(data["sum"], seen["pos", None][follow.token])
    assert ("position" in data) == (follow.config.pos_embed != "none")
    if not data["normed"]:
        close(np.add(data["embed"], data.get("position", 0)), seen["pos", None][follow.token])
    if "position" in data or follow.config.rope != "none":
        assert data["alike"][follow.choice.patch] == pytest.approx(1)


def test_with_rotary_positions_a_query_is_shown_before_and_after_its_turn(follow: Follow, seen: dict) -> None:
    data, config = attention.position(follow), follow.config
    said = {step.name: step for step in steps_for(follow.model)}["position"]
    assert (
        ("turned" in data)
        == (config.rope != "none")
        == ("turns" in said.sentence)
        == ("rotate" in lines_of(said))
    )
    if config.rope == "none":
        return
    made = follow.model.blocks[1].attn
    with torch.no_grad():
        q = made.q_norm(made.qkv(seen["norm1", 1]).view(-1, 3, config.num_heads, config.head_dim)[:, 0, 2])
    close(data["query"], q[follow.token])
    close(data["turned"], seen["q", 1][2, follow.token])
    centred = follow.choice.patch == follow.trace.grid.count // 2  # the middle is not turned (DINOv3)
    assert data["query"] != data["turned"] or centred


def test_without_places_the_order_of_squares_is_nothing(follow: Follow) -> None:
    found = answer.bag(follow)
    if not follow.config.num_classes or follow.config.pre_norm:
        assert found == {}
        return
    p, image = follow.config.patch_size, follow.trace.image
    mixed = image.unfold(-2, p, p).unfold(-2, p, p).flip(-4, -3)  # (..., h, w, p, p), the last first
    mixed = mixed.transpose(-3, -2).reshape(image.shape)
    if follow.config.is_clip:
        mixed = mixed.unflatten(0, (-1, follow.config.tubelet)).flip(0).flatten(0, 1)
    shuffled = Follow(trace(follow.model, mixed), follow.model, follow.card, follow.choice)
    assert answer.bag(shuffled)["without"] == found["without"]


def test_the_tokens_in_front_begin_as_they_do(follow: Follow, seen: dict) -> None:
    data = attention.prefix(follow)
    assert data["names"] == list(follow.config.prefix_names)
    assert data["tokens"] == follow.trace.grid.count + len(data["names"])
    if data["names"]:
        close(data["start"], seen["pos", None][: follow.prefix])
    answering = [i for i, name in enumerate(data["names"]) if "[CLS" in name or name == "[DIST]"]
    assert data["read"] == (answering if follow.config.pool == "cls" else [])


def test_queries_keys_and_values_are_the_heads(follow: Follow, seen: dict) -> None:
    data = attention.ask(follow)
    for name in "qkv":
        close(data[name], seen[name, 1][2, follow.token])
    before = seen["resid_post", 0][follow.token]
    close(data["before"], before)
    close(data["reads"], before if follow.config.post_norm else seen["norm1", 1][follow.token])
    assert data["normed"] != follow.config.post_norm


def test_scores_are_sums_of_products(follow: Follow, seen: dict) -> None:
    data = attention.scores(follow)
    close(data["scores"], seen["scores", 1][2, follow.token])
    made = np.array([np.dot(data["q"], key) / data["root"] for key in data["keys"]])
    assert ("distance" in data) == follow.config.rel_pos
    made = made + np.array(data.get("distance", np.zeros(len(data["scores"]))))[data["tokens"]]
    close(made, seen["scores", 1][2, follow.token, data["tokens"]])
    assert data["best"] == int(np.argmax(data["scores"])) and follow.token in data["tokens"]


def test_shares_are_the_softmax_of_scores(follow: Follow, seen: dict) -> None:
    data = attention.softmax(follow)
    close(data["shares"], seen["attn", 1][2, follow.token])
    close(torch.tensor(data["scores"]).exp() / torch.tensor(data["scores"]).exp().sum(), data["shares"])
    assert data["sum"] == pytest.approx(1) and data["best"][0] == int(np.argmax(data["shares"]))


def test_the_mix_is_shares_times_values(follow: Follow, seen: dict) -> None:
    data = attention.mix(follow)
    close(data["z"], seen["z", 1][2, follow.token])
    close(data["values"], seen["v", 1][2, data["best"]])
    close(data["shares"], seen["attn", 1][2, follow.token, data["best"]])
    assert sum(data["shares"]) + data["rest"] == pytest.approx(1, abs=1e-5)


def test_heads_change_the_token_by_what_they_write(follow: Follow, seen: dict) -> None:
    data = attention.heads(follow)
    close(data["shares"], seen["attn", 1][:, follow.token])
    close(data["z"], seen["z", 1][:, follow.token])
    close(data["added"], seen["attn_out", 1][follow.token])
    close(data["after"], seen["resid_mid", 1][follow.token])
    if not data["normed"]:
        close(np.add(data["before"], data["added"]), data["after"])
    assert data["normed"] == follow.config.post_norm == attention.mlp(follow)["normed"]


def test_the_mlp_counts_what_responds(follow: Follow, seen: dict) -> None:
    data, hidden = attention.mlp(follow), seen["mlp_post", 1][follow.token]
    close(data["hidden"], hidden)
    assert (data["active"], data["count"]) == (int((hidden > 0).sum()), len(hidden))
    close(data["before"], seen["resid_mid", 1][follow.token])
    close(data["after"], seen["resid_post", 1][follow.token])


def test_layers_tell_how_alike_and_how_long(follow: Follow, seen: dict) -> None:
    data = attention.layers(follow)
    stream = [seen["pos", None], *(seen["resid_post", layer] for layer in range(3))]
    for depth, tokens in enumerate(stream):
        ours = tokens[follow.token]
        assert data["length"][depth] == pytest.approx(float(ours.norm()), rel=1e-4)
        patches = tokens[follow.prefix :]
        close(data["alike"][depth], patches @ ours / patches.norm(dim=1) / ours.norm())


def test_what_is_read_is_followed_in_the_last_layer(follow: Follow, seen: dict) -> None:
    data = answer.read(follow)
    if follow.config.pool == "mean":
        change = seen["resid_post", 2][follow.prefix :] - seen["resid_post", 1][follow.prefix :]
        close(data["map"], change.norm(dim=1))
        assert data["kind"] == "mean" and data["share"] == pytest.approx(
            1 / follow.trace.grid.count, rel=1e-5
        )
        return
    if follow.config.pool == "attention":
        pooled = seen["pool_attn", None][:, 0].mean(dim=0)  # (H', 1, T) -> (T,)
        close(data["shares"], pooled)
        close(data["map"], pooled[follow.prefix :])
        assert data["kind"] == "pool" and data["best"][0] == int(pooled.argmax()) and "q" not in data
        return
    attn, n = seen["attn", 2], follow.config.num_class_tokens + follow.config.distillation
    close(data["shares"], attn[2, :n].mean(dim=0))
    close(data["z"], seen["z", 2][2, :n].mean(dim=0))
    close(data["map"], attn[:, :n, follow.prefix :].mean(dim=(0, 1)))
    assert data["alone"] == pytest.approx(float(attn[2, :n, :n].mean(dim=0).sum()), rel=1e-4)
    several = "the pair of [CLS] and [DIST]" if follow.config.distillation else "the mean of [CLS1] to [CLS2]"
    assert data["name"] == ("[CLS]" if n == 1 else several)
    if n == 1:
        close(data["q"], seen["q", 2][2, 0])
        close(data["scores"], seen["scores", 2][2, 0])
    else:
        assert "q" not in data and "scores" not in data, "a mean of shares has no scores of its own"


def test_the_answer_is_the_models_and_adds_up(follow: Follow) -> None:
    data, logits = answer.answer(follow), follow.trace.logits
    if not follow.config.num_classes:
        with torch.no_grad():
            close(data["features"], follow.model.read_out(follow.trace.tokens[-1:])[0])
        return
    best = int(logits.argmax())
    assert data["classes"][0]["name"] == class_name(CARD, best)
    values = CARD.values(logits).sort(descending=True).values[:5]
    close([known["value"] for known in data["classes"]], values)
    close([known["logit"] for known in data["classes"]], logits.sort(descending=True).values[:5])
    if follow.config.distillation:  # two heads answer together
        assert "vector" not in data
        return
    assert np.dot(data["vector"], data["weights"]) + data["bias"] == pytest.approx(
        float(logits[best]), abs=1e-3
    )


def test_what_if_and_why_are_passes_of_the_model(follow: Follow) -> None:
    if not follow.config.num_classes:
        assert answer.shared(follow) == {}
        return
    found = answer.shared(follow)
    for what_if in found["without"][1:]:
        edits = (MaskPatches(tuple(what_if["hidden"]), follow.prefix),) if what_if["hidden"] else ()
        logits = trace(follow.model, follow.trace.image, edits=edits).logits
        watched = follow.trace.logits.argsort(descending=True)[:5]
        close(what_if["values"], CARD.values(logits)[watched])
        assert what_if["says"] == class_name(CARD, int(logits.argmax()))
    why, best = found["why"], int(follow.trace.logits.argmax())
    whole, gone = follow.trace.image[None], torch.zeros_like(follow.trace.image)[None]
    with torch.no_grad():
        for image, at in ((whole, 0), (gone, -1)):
            value = float(CARD.values(follow.model(image)[0])[best])
            assert why["looked"][at] == pytest.approx(value, abs=1e-5) == why["random"][at]
        half = why["fractions"].index(pytest.approx(why["fractions"][3]))
        shown = torch.ones(follow.trace.grid.count)
        shown[why["orders"][0][: round(why["fractions"][half] * len(shown))]] = 0
        gate = follow.trace.grid.unflatten(shown).repeat_interleave(4, -2).repeat_interleave(4, -1)
        if follow.config.is_clip:
            gate = gate.repeat_interleave(follow.config.tubelet, 0)[:, None]
        value = float(CARD.values(follow.model(whole * gate)[0])[best])
        assert why["looked"][half] == pytest.approx(value, abs=1e-4)


# steps of a clip -------------------------------------------------------------------------------------------


of_clips = pytest.mark.parametrize("follow", CLIPS, indirect=True, scope="module")


@of_clips
def test_a_patterns_result_is_of_what_stays_and_what_changes(follow: Follow, seen: dict) -> None:
    data = through_time.tubelet(follow)
    made = np.add(data["stays"], data["changes"]) + follow.model.patch_embed.proj.bias.numpy()
    close(made, seen["embed", None][follow.choice.patch])
    for pattern in data["filters"]:
        changes = np.dot(pattern["weights"], data["change"])
        assert changes == pytest.approx(data["changes"][pattern["index"]], abs=1e-4)
        assert pattern["result"] == pytest.approx(made[pattern["index"]], abs=1e-4)
    n = follow.config.tubelet
    assert (max(map(abs, data["change"])) > 0.1) == (n > 1)
    still = follow.trace.image.clone()
    still[n : 2 * n] = still[n]  # the frames of time 1 are alike
    stood = through_time.tubelet(replace(follow, trace=trace(follow.model, still)))
    close(stood["changes"], np.zeros(32))


@of_clips
def test_shares_of_times_add_up_to_the_row(follow: Follow, seen: dict) -> None:
    data, row = through_time.times(follow), seen["attn", 1][2, follow.token]
    close(data["shares"], row)
    close(data["times"], row[follow.prefix :].view(-1, 15).sum(dim=1))
    assert sum(data["times"]) + data["front"] == pytest.approx(1, abs=1e-5) and data["ours"] == 1


@of_clips
def test_heads_reach_as_far_in_time_as_they_do(follow: Follow, seen: dict) -> None:
    data, prefix, attn = through_time.spans(follow), follow.prefix, seen["attn", 1].double()
    t, grid = follow.trace.grid.frames, follow.trace.grid
    for head in range(4):
        shares, even = np.zeros(t), np.zeros(t)
        for query in range(grid.count):
            row = attn[head, prefix + query, prefix:].numpy()
            for key in range(grid.count):
                lag = abs(grid.place(query)[0] - grid.place(key)[0])
                shares[lag] += row[key] / row.sum() / grid.count
                even[lag] += 1 / grid.count**2
        np.testing.assert_allclose(data["lags"][head], shares, atol=1e-5)
        assert data["apart"][head] == pytest.approx(shares @ np.arange(t), abs=1e-4)
    np.testing.assert_allclose(data["uniform"], even, atol=1e-5)
    assert data["even"] == pytest.approx(even @ np.arange(t), abs=1e-5)


@pytest.mark.parametrize(("frames", "tubelet"), [(2, 1), (3, 1), (4, 2), (8, 2), (2, 2), (6, 2)])
def test_no_order_is_called_another_that_is_the_filmed_one(frames: int, tubelet: int) -> None:
    filmed, *others = answer.orders_of(frames, tubelet)
    assert filmed["frames"] == [*range(frames)] and len(others) == 2 + (frames // tubelet > 1 < tubelet)
    for each in others:
        assert each["frames"] != filmed["frames"] and sorted(each["frames"]) == filmed["frames"], each["name"]


@of_clips
def test_frames_in_other_orders_are_passes_of_the_model(follow: Follow) -> None:
    shared = answer.shared(follow)
    if not follow.config.num_classes:
        assert shared == {}
        return
    F, n = len(follow.trace.image), follow.config.tubelet
    orders = {each["name"]: each for each in shared["order"]["asked"]}
    assert orders["backwards"]["frames"] == [*range(F)][::-1]
    assert sorted(orders["frames shuffled"]["frames"]) == [*range(F)]
    assert ("times shuffled" in orders) == (n > 1)
    held = shared["frozen"]["asked"]
    assert [each["frames"] for each in held[:F]] == [[at] * F for at in range(F)]
    assert len(held) == F + (F // n if n > 1 else 0)
    for data in (shared["order"], shared["frozen"]):
        names = [CARD.class_names.index(name) for name in data["classes"]]
        close(data["filmed"]["values"], CARD.values(follow.trace.logits)[names])
        for each in data["asked"]:
            with torch.no_grad():
                logits = follow.model(follow.trace.image[each["frames"]][None])[0]
            close(each["values"], CARD.values(logits)[names])
            assert each["says"] == class_name(CARD, int(logits.argmax())) and each["says"] in data["classes"]


@of_clips
def test_one_time_over_and_over_is_time_that_is_frozen(follow: Follow) -> None:
    if follow.config.tubelet == 1 or not follow.config.num_classes:
        return
    times = follow.trace.grid.frames
    for time, each in enumerate(answer.frozen(follow)["asked"][-times:]):
        logits = trace(follow.model, follow.trace.image, edits=[FreezeTime(time, times)]).logits
        close(answer.with_frames(follow, each["frames"]), logits)


def test_the_lesson_of_a_clip_begins_where_it_moves() -> None:
    model = ViT(tiny_config(num_frames=6, tubelet=2)).eval()
    image = torch.zeros(6, 3, 12, 20)
    image[3, :, 8:12, 4:8] = 1  # at time 1 of 3, row 2, column 1
    assert liveliest(trace(model, image), model.config) == model.config.grid.number((1, 2, 1))
    still = ViT(tiny_config()).eval()
    assert liveliest(trace(still, image[0]), still.config) == 7


# the whole --------------------------------------------------------------------------------------------------


def test_every_step_has_few_words_code_and_all_its_numbers(follow: Follow) -> None:
    lesson, config = lesson_of(follow.trace, follow.model, follow.card, follow.choice), follow.config
    through = 2 + (config.tubelet > 1) + 2 * (config.num_classes > 0) if config.is_clip else 0
    assert len(lesson["steps"]) == (15 if config.num_classes else 14) + through
    words = " ".join(step["sentence"] + step["formula"] for step in lesson["steps"])
    assert not config.is_clip or "picture" not in words
    for step in lesson["steps"]:
        assert len(step["sentence"].split()) <= MOST_WORDS, step["sentence"]
        assert not re.search(r"[{}]|nan|None", step["sentence"] + step["formula"])
        assert step["code"] and step["title"] and step["note"]
        question = step["question"]
        if question and question["kind"] == "choice":
            assert 0 <= question["right"] < len(question["options"])
    said = json.loads(json.dumps(lesson, allow_nan=False))
    assert said["choice"] == {"patch": follow.choice.patch, "layer": 1, "head": 2}
    by_name = {step["name"]: step["data"] for step in said["steps"]}
    assert by_name["scores"] == attention.scores(follow)


def said_of(**changes) -> dict[str, dict]:
    """What the steps say of a model, by their names."""
    model = ViT(tiny_config(**changes))
    card = CARD if model.config.num_classes else Card("headless")
    return {step["name"]: step for step in outline_of(model, card, model.config.image_size)["steps"]}


NO_CLS = dict(class_token=False)


@pytest.mark.parametrize(
    ("changes", "step", "field", "said"),
    [
        ({}, "prefix", "sentence", "[CLS] stands in front of the squares. In the end [CLS] must answer;"),
        (dict(pool="mean"), "prefix", "sentence", "[CLS] stands in front of the squares. It only helps."),
        (dict(pool="mean", num_registers=1), "prefix", "sentence", "They only help."),
        (dict(pool="attention"), "prefix", "sentence", "one learned query reads it and all squares."),
        (dict(pool="attention"), "read", "sentence", "One learned query looks at all tokens of"),
        (dict(pool="attention") | NO_CLS, "read", "sentence", "One learned query looks at all squares of"),
        (dict(pool="attention", pool_prefix=False), "read", "sentence", "looks at all squares of"),
        (dict(pool="attention"), "read", "code", "read = scores[..., self.past :].softmax"),
        ({}, "prefix", "note", "it is the same, whatever is shown"),
        (dict(num_registers=1), "prefix", "note", "they are the same, whatever is shown"),
        (dict(pool="mean") | NO_CLS, "prefix", "note", "no square knows of another"),
        (dict(pool="mean"), "answer", "note", "Hide what changed most"),
        (dict(pool="mean"), "why", "formula", "{looked} changed most first"),
        (dict(distillation=True), "answer", "sentence", "Each of two heads keeps one list"),
        (dict(distillation=True), "answer", "code", "logits = (logits + self.head_dist"),
        (dict(post_norm=True), "heads", "formula", "normalised (before + change) = after"),
        (dict(post_norm=True), "mlp", "formula", "added again, then normalised"),
        (dict(num_heads=1), "heads", "sentence", "This model has one head in each layer."),
        (dict(num_heads=1), "ask", "formula", "in the only head"),
        (dict(depth=1), "layers", "sentence", "This model has a single layer;"),
        (dict(num_classes=0), "prefix", "sentence", "The model ends with [CLS]; it has seen nothing yet."),
        (dict(num_classes=0), "read", "sentence", "Now follow [CLS], whose numbers the model ends with:"),
    ],
)
def test_what_is_said_is_true_of_the_kind(changes: dict, step: str, field: str, said: str) -> None:
    assert said in said_of(**changes)[step][field]


@pytest.mark.parametrize("pool", ["cls", "mean", "attention"])
@pytest.mark.parametrize(
    "kind", [{}, NO_CLS, dict(num_registers=1), dict(depth=1, num_heads=1), dict(num_frames=4)], ids=str
)
def test_without_classes_nothing_answers(pool: str, kind: dict) -> None:
    if pool == "cls" and kind == NO_CLS:
        return
    for step in said_of(num_classes=0, pool=pool, **kind).values():
        texts = [step[field] for field in ("chapter", "title", "sentence", "formula", "note")]
        told = " ".join(texts).replace("This model gives no answer", "").replace("Who needs answers", "")
        assert "answer" not in told
        assert 3 < len(step["sentence"].split()) <= MOST_WORDS and not re.search(r"\b1 (heads|layers)", told)


def test_of_an_average_nothing_is_said_to_be_looked_at_in_the_end() -> None:
    torch.manual_seed(0)
    model, card = randomised(ViT(tiny_config(pool="mean"))), replace(CARD, scores="none")
    lesson = lesson_of(trace(model, torch.randn(3, 12, 20)), model, card, CHOICE)
    steps = {step["name"]: step for step in lesson["steps"]}
    for name in ("read", "answer", "why"):
        told = " ".join(str(steps[name][field]) for field in ("sentence", "formula", "note", "question"))
        assert not re.search("look|Attention|token", told), told
    assert "that changed most" in steps["why"]["question"]["ask"]
    assert steps["why"]["data"]["kind"] == "none" == steps["answer"]["data"]["kind"]


def test_what_a_browser_asks_for_is_brought_within_the_model() -> None:
    model = randomised(ViT(tiny_config()))
    traced = trace(model, torch.randn(3, 12, 20))
    found = Choice(patch=10**9, layer=-4, head=99).within(traced, model.config)
    assert found == Choice(14, 0, 3)


def test_the_squares_that_are_right_are_those_of_the_map(follow: Follow) -> None:
    once = {"bag": {}, "without": [], "why": {"areas": [0, 1]}}
    once |= {"order": {"asked": [{"says": ""}] * 2}, "frozen": {"asked": []}} if follow.config.is_clip else {}
    lesson = lesson_of(follow.trace, follow.model, follow.card, follow.choice, once)
    (step,) = (step for step in lesson["steps"] if step["name"] == "softmax")
    shares = np.array(step["data"]["shares"][follow.prefix :])
    right = step["question"]["right"]
    assert len(right) == max(3, len(shares) // 10) and shares[right].min() >= np.delete(shares, right).max()


def test_the_code_is_the_models() -> None:
    for changes in KINDS.values():
        for step in steps_for(ViT(tiny_config(**changes))):
            source = (Path(vit.__file__).parents[1] / told(step)["file"]).read_text(encoding="utf-8")
            lines = {line.strip() for line in lines_of(step).splitlines()}
            assert lines and lines <= {line.strip() for line in source.splitlines()}
    named = [step.name for step in steps_for(ViT(tiny_config(**CLIPS["clip"])))]
    assert named == [step.name for step in STEPS], "a clip's tubelets of a model with a head have every step"


@pytest.mark.parametrize(
    "kind", ["two class tokens", "DINOv3", "mixed rope", "SigLIP", "Perception Encoder", *CLIPS]
)
def test_a_page_of_one_file_has_a_lesson_of_every_kind(kind: str) -> None:
    torch.manual_seed(0)
    model = randomised(ViT(tiny_config(**KINDS[kind])))
    card = CARD if model.config.num_classes else Card("headless")
    held = page.section(trace(model, torch.randn(model.config.input_shape())), model, card, CHOICE)
    assert "ViTLesson.mount" in held
    picture = base64.b64decode(re.search(r'"data:image/png;base64,([^"]+)"', held)[1])
    assert Image.open(io.BytesIO(picture)).size == (20 * model.config.num_frames, 12), "all frames"


def test_a_page_of_one_file_holds_the_lesson_of_the_model_as_it_is() -> None:
    model = randomised(ViT(tiny_config()))
    traced = trace(model, torch.randn(3, 12, 20))
    held = page.section(traced, model, CARD, CHOICE)
    assert "ViTLesson.mount" in held and held.count('"choice": {"patch": 7, "layer": 1, "head": ') == 4
    assert "http://" not in held.replace("http://www.w3.org", "") and "https://" not in held
    changed = trace(model, traced.image, edits=(MaskPatches((0, 7), 1),))
    assert page.section(changed, model, CARD, CHOICE) == "", "its numbers would be those of another pass"
