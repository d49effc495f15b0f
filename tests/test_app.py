"""The app without a browser: handlers called as functions, then over HTTP as any client may."""

import base64
import gc
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from conftest import NO_QUEUE, kept, randomised, tiny_config
from gradio_client import Client, handle_file
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
from explorer import faithfulness, forms, maps, serve, stats, turns, ui
from explorer import look as looks
from explorer.ablation import without_heads
from explorer.examples import Example, make_examples, suited
from explorer.faithfulness import Estimate
from explorer.lesson.follow import Choice
from explorer.look import DOUBLE, PICTURE, SIZES, TRAINED, Look, TooLarge
from explorer.measures import Curves
from explorer.methods import METHODS
from explorer.payload import TOP_CLASSES, unpack
from explorer.record import BEST, Found, Record, load_record, record_of, save_record
from explorer.refusals import Left
from explorer.render import number
from explorer.roles import Roles
from explorer.session import Session
from explorer.views import compare, explore, heads, lesson, page, pairs, parts, take_home, training, why
from explorer.views.page import Edits, Failed, Shown
from vit import ViT, save
from vit.card import Card, CheckpointError
from vit.checkpoint import earlier_snapshots, save_snapshot

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = '<img src=x onerror="alert(1)">'
NAMES = (HOSTILE, "bee", "${Object.assign(window,{pwn:1})}", "dog", "{{value}}", "fox", "gnu")

# every kind of model that a view must stand
KINDS = {
    "cls": {},
    "registers": {"num_registers": 2},
    "mean": {"pool": "mean", "class_token": False},
    "headless": {"num_classes": 0},
    "post_norm": {"post_norm": True},
    "deit": {"distillation": True},
    "clips": dict(num_frames=8, tubelet=2),
}
PATIENCE = 120  # seconds: this machine may be busy


def make_checkpoint(folder: Path, **changes) -> str:
    config = tiny_config(**changes)
    model = randomised(ViT(config))
    card = Card(name=folder.name, class_names=NAMES if config.num_classes else (), accuracy=0.5)
    save(folder, model, card)
    for step in (1, 10, 100):
        save_snapshot(
            folder, randomised(model, 0.01), card, step, {"accuracy": step / 200, "epoch": step / 50}
        )
    (folder / "history.csv").write_text(
        "step,epoch,loss,accuracy\n1,0.02,2,0.1\n10,0.2,1.5,0.3\n100,2,1,0.5\n"
    )
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(folder / kind, **changes) for kind, changes in KINDS.items()}


@pytest.fixture(scope="module")
def session(checkpoints: dict[str, str]) -> Session:
    return Session(extra=tuple(checkpoints.values()))


def picture_bytes(seed: int, size: tuple[int, int] = (40, 24)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(picture_bytes(0))
    return path


@pytest.fixture(params=KINDS)
def look(request, session: Session, checkpoints: dict[str, str], picture: Path) -> Look:
    return session.look(picture, checkpoints[request.param])


# ---- every view stands every kind of model -----------------------------------------------------------


def served(look: Look, address: str) -> bytes:
    content = kept(look.session, address.rpartition("/")[2])
    assert content is not None
    return content


class Attributes(HTMLParser):
    """The names of all attributes, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__()
        self.seen: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {name for name, _ in attrs}


def has_no_code(html: str) -> None:
    """Names from outside are text: nothing of them became an element or an attribute."""
    assert HOSTILE not in html
    assert not [name for name in Attributes(html).seen if name.startswith("on")]


def target_of(look: Look) -> int | None:
    return look.valid_target(None)


def test_the_viewer_is_given_the_trace_of_this_picture(look: Look) -> None:
    value = json.loads(json.dumps(look.viewer_value()))
    arrays, meta = unpack(served(look, value["head"]))
    assert (meta["num_layers"], meta["num_heads"], tuple(meta["grid_size"])) == (
        3,
        4,
        look.model.config.grid_size,
    )
    assert len(value["layers"]) == 3
    for layer, address in enumerate(value["layers"]):
        arrays, _ = unpack(served(look, address))
        truth = look.trace().attn[layer]
        part = (np.arange(truth.shape[-1]) >= look.trace().num_prefix_tokens).astype(int)
        shown = arrays["attn_max"][..., part] * (arrays["attn"] / 255.0) ** 2
        assert shown.shape == tuple(truth.shape)
        np.testing.assert_allclose(shown, truth.numpy(), atol=0.006)


def test_every_map_that_is_offered_arrives_and_every_other_says_why(look: Look) -> None:
    for name, method in METHODS.items():
        value = look.maps_value(name, target_of(look), ())
        if look.refusal(method):
            assert "maps" not in value and value["refused"][name].endswith(".")
            continue
        if name == "flow":  # takes seconds on most models
            assert "maps" not in value and f"takes {look.num_patches} max-flows …" in value["progress"]
            look.map(method, None)
            value = look.maps_value(name, target_of(look), ())
        arrays, _ = unpack(served(look, value["maps"][0]))
        np.testing.assert_allclose(arrays[name], look.map(method, target_of(look)).numpy())
    refused = [m.name for m in METHODS.values() if look.refusal(m)]
    assert set(refused) >= {
        m.name for m in METHODS.values() if m.class_specific and not look.model.config.num_classes
    }


SIGNATURES = {  # how each format begins
    "png": rb"\x89PNG",
    "svg": rb"<\?xml",
    "npz": rb"PK\x03\x04",
    "gif": rb"GIF8",
    "mp4": rb"(?s:.{4})ftyp",
    "csv": rb"[a-z_]+(,[a-z_]+)+\r?\n",
    "html": rb"<!doctype html>",
}


def test_every_file_to_take_home_arrives_in_its_format(look: Look) -> None:
    html = take_home.links(look, target_of(look), {"query": 3, "layer": 1, "head": 2})
    has_no_code(html)
    links = re.findall(r'href="([^"]+)" download="([^"]+)"', html)
    called = f"{look.picture.stem}-{look.card.name}"
    assert f"{called}-L1-mean-of-heads-head.npz" in dict(links).values()
    assert len(links) >= 15 and (f"{called}-ledger.csv" in dict(links).values()) == (
        bool(look.model.config.num_classes) and not look.model.config.post_norm
    )
    for address, name in links:
        if address.startswith("site/"):  # made when it is asked for: tests/test_lent.py
            continue
        content = served(look, address)
        assert re.match(SIGNATURES[name.rpartition(".")[2]], content) and len(content) > 100, name


@pytest.mark.parametrize("fuse", ["one", "mean", "max"])
def test_files_show_what_was_pinned(look: Look, fuse: str) -> None:
    html = take_home.links(look, None, {"query": 3, "layer": 1, "head": 2, "fuse": fuse})
    found = re.findall(r'href="([^"]+)" download="([^"]+)"', html)
    links = {name.rpartition("-")[2]: address for address, name in found}
    assert "Attention of what is pinned" in html and "Files are made without interventions." in html
    assert f'"fuse": "{fuse}"' in served(look, links["page.html"]).decode()
    rows = look.trace(exact=True).attn[1, :, 3, look.model.config.num_prefix_tokens :]  # (H, P)
    with np.load(io.BytesIO(served(look, links["head.npz"]))) as arrays:
        expected = {"one": rows[2], "mean": rows.mean(dim=0), "max": rows.amax(dim=0)}[fuse]
        np.testing.assert_allclose(arrays["attention"].ravel(), expected.numpy(), atol=1e-6)


def test_the_file_of_relevance_is_the_map_on_the_screen(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    links = re.findall(r'href="([^"]+)" download="([^"]+)"', take_home.links(look, 5, {"query": 3}))
    address = {name.rpartition("-")[2]: address for address, name in links}["relevance.npz"]
    with np.load(io.BytesIO(served(look, address))) as arrays:
        shown = look.map(METHODS["relevance"], 5)
        np.testing.assert_allclose(arrays["relevance"], shown.numpy(), atol=1e-6)


@pytest.mark.parametrize("public", [False, True])
def test_strangers_are_not_given_files_beyond_a_size(checkpoints, picture, monkeypatch, public: bool) -> None:
    look = Session(public=public, extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    assert "trace.npz" in take_home.links(look, None, {})
    monkeypatch.setattr(take_home, "MOST_PUBLIC", look.cost.attn_bytes - 1)
    assert ("trace.npz" in take_home.links(look, None, {})) != public


def test_what_a_browser_pins_is_taken_only_as_far_as_the_model_has_it(demo: gr.Blocks, look: Look) -> None:
    nonsense = SimpleNamespace(query=10**6, layer=-1, head="x", fuse="min")
    assert take_home.view_of(look, handler(demo, "on_pick")(nonsense)) == {
        "layer": 2,
        "head": 0,
        "fuse": "mean",
    }
    pin = {"query": 3, "layer": 1, "head": 2, "fuse": "one"}
    assert take_home.view_of(look, handler(demo, "on_pick")(SimpleNamespace(**pin))) == pin


def test_files_are_promised_without_a_pass_and_explain_the_answer(
    demo, session, checkpoints, tmp_path
) -> None:
    (tmp_path / "fresh.png").write_bytes(picture_bytes(71))
    shown = Shown(str(tmp_path / "fresh.png"), checkpoints["cls"])
    html = handler(demo, "on_news")(True, shown, None, {}, visitor())
    look = session.look(shown.picture, shown.model)
    assert look.remembered(("trace", None, (), True)) is None
    assert handler(demo, "on_news")(False, shown, None, {}, visitor()) == gr.skip()
    links = {
        name.rpartition("-")[2]: at for at, name in re.findall(r'href="([^"]+)" download="([^"]+)"', html)
    }
    with np.load(io.BytesIO(served(look, links["relevance.npz"]))) as arrays:
        expected = look.map(METHODS["relevance"], target_of(look)).numpy()
        np.testing.assert_allclose(arrays["relevance"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("opening", "expected"),
    [
        (None, {"layer": 2, "head": 0, "fuse": "mean"}),
        ({"layer": 1}, {"layer": 1, "head": 0, "fuse": "mean"}),
        ({"layer": 1, "head": 3}, {"layer": 1, "head": 3, "fuse": "one"}),
    ],
)
def test_before_anything_is_pinned_files_show_what_the_viewer_opens_on(
    checkpoints, picture, opening, expected
) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    look.loaded.__dict__["roles"] = opening and Roles("", "", 1, {"sink": [[0.0] * 4] * 3}, opening)
    assert take_home.view_of(look, {}) == expected
    _, head = unpack(looks.make_head(look))
    assert head.get("opening") == opening, "what the viewer is told"
    assert take_home.view_of(look, {"layer": 0, "head": 2, "fuse": "max", "query": 1})["fuse"] == "max"


def test_a_page_to_take_home_says_what_was_measured(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    roles = Roles("", "", 1, {"sink": [[0.9] * 4, [0.1] * 4, [0.1] * 4]}, {"layer": 1})
    best = Found("cp_lrp", BEST, Estimate(0.4, 0.3, 0.5), Estimate(0.2, 0.1, 0.3))
    look.loaded.__dict__.update({"roles": roles, "record": Record("", "", 9, "", (best,), "", "")})
    page = take_home.to_bytes(look, "page", ".html", None, take_home.view_of(look, {})).decode()
    sent = [base64.b64decode(re.findall('"head": "([^"]+)"', page)[0]), looks.make_head(look)]
    for _, meta in map(unpack, sent):
        assert (meta["head_names"][0], meta["opening"]) == ([["sink"]] * 4, {"layer": 1})
        assert meta["believed"] == "cp_lrp"


def test_the_self_check_is_green(look: Look) -> None:
    strip = explore.check_strip(look)
    assert "vx-good" in strip and "vx-bad" not in strip and "bf16" not in strip


def test_a_look_in_bf16_says_what_it_costs_and_the_lesson_is_exact(checkpoints, picture, monkeypatch) -> None:
    monkeypatch.setattr("explorer.look.runs_in_bf16", lambda model: True)
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    strip = explore.check_strip(look)
    assert "<b>✓</b> bf16 ≈ float32" in strip
    shown, exact = look.trace().attn, look.trace(exact=True).attn
    off = max((a - b).abs().sum(dim=-1).mean().item() / 2 for a, b in zip(shown, exact))
    assert off > 0 and explore.bf16_check(look).value >= off
    for row in stats.head_table(look.trace(exact=True)):
        assert f"L{row['layer']}.H{row['head']}: {parts.label(row['distance_px'])}" in heads.head_panels(look)
    told = json.loads(lesson.lesson_bytes(look, Choice(0, 1, 0)))["steps"]
    said = {step["name"]: step["data"] for step in told}
    shares = exact[1, :, look.model.config.num_prefix_tokens]
    torch.testing.assert_close(torch.tensor(said["heads"]["shares"]), shares, rtol=1e-5, atol=1e-6)
    best = float(look.trace(exact=True).logits.max())
    assert said["answer"]["classes"][0]["logit"] == pytest.approx(best, rel=1e-5)


def test_the_why_page_stands_every_model(look: Look) -> None:
    target = target_of(look)
    grid = why.maps_grid(look, -1 if target is None else target)
    assert grid.count("<figure") == len(METHODS)
    if target is None:
        assert "no classification head" in grid
        return
    done: list[tuple[int, int]] = []
    runners = why.run_race(look, target, True, lambda *args: done.append(args))
    report = why.race_report(look, target, runners)
    assert done and done[-1][0] == done[-1][1]
    lanes = 3 + (faithfulness.best_control(runners).order is not None)  # the best three, and the bar
    assert "centre prior" in report and report.count("vx-lane") == lanes
    raced = why.maps_grid(look, target, runners)
    assert raced.count("<figure") == len(METHODS) + 1 and "the bar" in raced and "cost: P " not in raced
    ahead = faithfulness.beliefs(runners)
    believed = raced.partition("No reason to believe")[0]
    for name, by in ahead.items():
        assert (f'data-method="{name}"' in believed) == (len(by) > 1)
    book = why.ledger_report(look, target)
    assert ("It adds up</h3>" in book) != look.model.config.post_norm
    assert "What is lost without each head" in book and "LayerNorm" not in book  # others have RMSNorm
    config = look.model.config
    assert config.post_norm or ("scale frozen" in book) == (config.final_norm or config.norm_after_pool)
    assert ("the map above shows direct ones" in book) != config.post_norm
    assert ("each patch&#x27;s embedding gave directly" in book) == (config.pool == "mean")
    gap = re.findall(r"Gap: ([−\d.e+]+)\.<", book)[-1]
    assert "It adds up, too" in book and float(gap.replace("−", "-")) < 1e-3
    told = why.contrast_report(look, target, "others") + why.contrast_report(look, target, target)
    quick = [m for m in METHODS.values() if m.class_specific and look.is_quick(m) and not look.refusal(m)]
    assert told.count("<figure") == len(quick) > 5 and "and not any other class" in told
    assert why.others_of(look, target)[0][1] == "others"
    has_no_code(grid + report + book + told)


def test_why_begins_with_what_was_measured_of_these_weights(checkpoints, tmp_path) -> None:
    (tmp_path / "new.png").write_bytes(picture_bytes(44))
    folder = Path(shutil.copytree(checkpoints["cls"], tmp_path / "measured"))
    look = Session(extra=(str(folder),)).look(tmp_path / "new.png", str(folder))
    assert "Measured on" not in why.maps_grid(look, 2)
    samples = [faithfulness.Sample(torch.randn(3, 12, 20)) for _ in range(2)]
    plan = faithfulness.Plan(points=3, subsets=8)
    table = faithfulness.table(look.model, samples, ["rollout", "knockout", "legrad"], plan)
    save_record(record_of(table, look.model, "pets", "tiny"), folder)
    (tmp_path / "other.png").write_bytes(picture_bytes(45))
    look = Session(extra=(str(folder),)).look(tmp_path / "other.png", str(folder))
    grid = why.maps_grid(look, 2)
    raced = [row for row in table.rows if row.name in METHODS]
    assert "Measured on 2 test pictures of pets" in grid
    assert all(f"{number(row.leads['score'].mean, '+.2f')}: {row.verdict}" in grid for row in raced)
    assert re.findall(r'data-method="(\w+)"', grid)[:3] == [row.name for row in raced]
    assert load_record(folder, randomised(ViT(tiny_config(num_classes=9)))) is None  # of other weights


@pytest.mark.parametrize(
    "broken",
    [
        {"found": [5]},
        {"found": [{"name": 5, "verdict": "x", "score": {}, "lead": {}}]},
        {"found": [{"name": "rollout", "verdict": "x", "score": {"mean": "x"}, "lead": {}}]},
        {"found": {}, "images": "many"},
        {"images": float("inf")},
        {"table": None},
        {"more": "1"},
        "[]",
        "[" * 100_000,
    ],
    ids=lambda broken: str(broken)[:40],
)
def test_a_record_that_is_broken_says_nothing(broken, tmp_path) -> None:
    one = Estimate(0.5, 0.4, 0.6)
    sound = Record("digest", "pets", 2, "random", (Found("rollout", "x", one, one),), "|", "tiny")
    assert load_record(save_record(sound, tmp_path).parent) == sound
    told = broken if isinstance(broken, str) else json.dumps(asdict(sound) | broken)
    (tmp_path / "faithfulness.json").write_text(told)
    assert load_record(tmp_path) is None


def test_a_race_and_the_viewer_share_their_maps(checkpoints, tmp_path, monkeypatch) -> None:
    (tmp_path / "new.png").write_bytes(picture_bytes(43))
    look = Session(extra=(checkpoints["cls"],)).look(tmp_path / "new.png", checkpoints["cls"])
    monkeypatch.setattr(looks, "QUICK", 0)
    occlusion = METHODS["occlusion"]
    assert look.must_wait(occlusion, 2) and "Takes 15 forwards" in why.maps_grid(look, 2)
    raced = {runner.name: runner.map for runner in why.run_race(look, 2, True, lambda done, total: None)}
    assert not look.must_wait(occlusion, 2) and "Takes 15 forwards" not in why.maps_grid(look, 2)
    assert look.map(occlusion, 2) is raced["occlusion"]


def test_the_lanes_of_a_race_show_values_that_are_no_shares_at_their_own_scale() -> None:
    x, order = torch.linspace(0, 1, 3), torch.arange(15)

    def runner(*values: float) -> faithfulness.Runner:
        curves = {mode: Curves(x, torch.tensor(values), x) for mode in ("drop", "grey")}
        return faithfulness.Runner("rollout", torch.rand(3, 5), curves, order=order)

    def lanes(scores: str, *runners: faithfulness.Runner) -> tuple[list[str], str]:
        look: Any = SimpleNamespace(card=Card("x", scores=scores), picture_address="x.png")
        html = why.race_shown(look, runners)
        return re.findall('points="([^"]*)"', html), html

    drawn, html = lanes("none", runner(9.0, 5.0, 1.0), runner(3.0, 3.0, -1.0))
    assert drawn == ["0.0,2.0 50.0,17.2 100.0,32.4", "0.0,24.8 50.0,24.8 100.0,40.0"]
    assert "where they are left out" in html, "the first way to hide them"
    assert lanes("softmax", runner(0.5, 0.25, 0.0))[0] == ["0.0,21.0 50.0,30.5 100.0,40.0"]
    assert lanes("none", runner(2.0, 2.0, 2.0))[0] == ["0.0,40.0 50.0,40.0 100.0,40.0"]


def test_heads_are_switched_off_unasked_only_where_that_is_quick(checkpoints, picture, monkeypatch) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    monkeypatch.setattr(looks, "QUICK", 0)
    assert "Takes 8 forwards: tick" in why.ledger_report(look, 2)
    lost = why.run_ablation(look, 2)
    assert torch.equal(lost, without_heads(look.trace(exact=True), look.model, 2))
    book = why.ledger_report(look, 2)
    assert "Takes 8 forwards" not in book and f"L1.H2: {float(lost[1, 2]):+.3g} logit" in book
    assert "Takes 8 forwards" in why.ledger_report(look, 3)


def test_heads_are_switched_off_where_there_is_no_ledger_too(checkpoints, picture, monkeypatch) -> None:
    look = Session(extra=(checkpoints["post_norm"],)).look(picture, checkpoints["post_norm"])
    report = why.ledger_report(look, 2)
    assert "this model has post_norm" in report and "What each head gave" not in report
    lost = without_heads(look.trace(exact=True), look.model, 2)
    assert f"L1.H2: {float(lost[1, 2]):+.3g} logit" in report
    monkeypatch.setattr(looks, "ATTENTION_LIMIT", 0)
    assert "tick" not in why.ledger_report(look, 2), "no race is run there"


def test_nothing_is_switched_off_for_one_who_has_left(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    asked: list[None] = []

    def wanted() -> None:
        asked.append(None)
        raise Left

    with pytest.raises(Left):
        why.run_ablation(look, 2, wanted)
    assert len(asked) == 1 < look.model.config.depth, "after its first layer"


def test_the_page_and_the_file_have_the_same_numbers(look: Look) -> None:
    shown = {"Attention distance": "distance_px", "Effective tokens": "effective_tokens_patches"}
    shown |= {"Share on itself": "self_share"}
    shown |= {"Share on ": "prefix_share"} if look.trace().num_prefix_tokens else {}
    board = heads.head_panels(look)
    for row in stats.head_table(look.trace()):
        for title, name in shown.items():
            panel = board.partition(f"<h3>{title}")[2].partition("</section>")[0]
            assert f"L{row['layer']}.H{row['head']}: {parts.label(row[name])}" in panel, title


def test_numbers_on_a_page_have_a_true_minus_and_zero_has_none() -> None:
    assert [number(-1234.5678, ",.1f"), number(-0.0004), number(-2e-7, "+.0e")] == [
        "−1,234.6",
        "0.00",
        "−2e−07",
    ]
    shown = [
        parts.cells(np.array([[-0.25, 0.5]]), signed=True),
        parts.dots(np.array([[-0.125, 0.5]]), "logit"),
        parts.lines({"a": ([0, 1], [-0.75, 0.5])}, "x", "y"),
    ]
    for told, low in zip(shown, ("−0.25", "−0.125", "−0.75")):
        assert low in re.sub("<[^>]*>", " ", told) and low in " ".join(re.findall('data-tip="([^"]*)"', told))
        assert not re.search(r"-\d", re.sub("(?:<[^>]*>)", " ", told))


def test_curves_can_be_read_in_numbers() -> None:
    told = parts.lines({"a": ([0, 1, 2], [3, 4, 5.25]), "b": ([0, 1, 2], [6, 7, 8])}, "x", "y", marks=[0, 2])
    table = told.partition("In numbers")[2]
    assert re.findall(r"<t[hd](?: [^>]*)?>([^<]*)<", table) == ["", "a", "b", "0", "3", "6", "2", "5.25", "8"]
    assert "In numbers" not in parts.lines({"a": ([0, 1], [1, 2]), "b": ([0, 2], [1, 2])}, "x", "y")


def test_every_class_has_its_own_map_ledger_and_file(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    maps_of = [look.maps_value("relevance", target, ())["maps"][0] for target in (1, 3)]
    (first, meta), (second, other) = (unpack(served(look, address)) for address in maps_of)
    assert (meta["target"], other["target"]) == (1, 3) and (first["relevance"] != second["relevance"]).any()
    assert [why.ledger_of(look, target).target for target in (1, 3)] == [1, 3]
    pattern = r'href="([^"]+)" download="[^"]*-relevance.npz"'
    links = [re.findall(pattern, take_home.links(look, target, {}))[0] for target in (1, 3)]
    assert served(look, links[0]) != served(look, links[1])


def test_before_and_after_an_intervention_are_two_passes(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    edits = look.edits([3], [[0, 1]])
    value = look.viewer_value(edits)
    assert look.edits(**value["after"]["edits"]) == edits, "whose they are is said with them"
    for sent, trace in ((value, look.trace()), (value["after"], look.trace(edits=edits))):
        rolled = maps.rollout_all(trace)
        for layer in (0, 2):
            arrays, _ = unpack(served(look, sent["layers"][layer]))
            for name, truth in (("attn", trace.attn[layer]), ("rollout", rolled[layer + 1])):
                part = (np.arange(truth.shape[-1]) >= 1).astype(int)  # [CLS] has a maximum of its own
                shown = arrays[name + "_max"][..., part] * (arrays[name] / 255.0) ** 2
                np.testing.assert_allclose(shown, truth.numpy(), atol=0.006)


def test_a_small_map_is_not_mirrored() -> None:
    grid = np.zeros((3, 5))
    grid[0, 4] = 1
    png = base64.b64decode(parts.map_png(grid).partition(",")[2])
    alpha = np.asarray(Image.open(io.BytesIO(png)))[..., 3]
    assert alpha.shape == (3, 5) and np.unravel_index(alpha.argmax(), alpha.shape) == (0, 4)


def test_the_heads_page_stands_every_model(look: Look) -> None:
    board = heads.report(look, target_of(look))
    L, H = look.trace().attn.shape[:2]
    config = look.model.config
    charts = 3 + bool(config.prefix_names) + config.is_clip  # a dot per head in each
    assert ("Times away" in board) == config.is_clip
    assert board.count('class="vx-dot"') == charts * L * H and "Attention distance" in board
    assert ("Logit lens" in board) == bool(look.model.config.num_classes)
    prefix = look.model.config.prefix_names
    assert ("Share on [CLS]" in board) == (prefix == ("[CLS]",))
    assert ("Share on prefix tokens" in board) == (len(prefix) > 1)
    has_no_code(board)


def test_each_class_has_its_own_patches_and_nothing_large_is_kept(look: Look) -> None:
    if target_of(look) is None:
        assert "Patches that point to" not in heads.depth_panels(look, None)
        return
    maps = []
    for target in (1, 3):
        panel = heads.depth_panels(look, target).partition(f"Patches that point to {NAMES[target]}")[2]
        maps.append(panel.partition('class="vx-over" src="')[2].partition('"')[0])
    assert maps[0] != maps[1]
    kept = [e.value for key, e in look.session.results._entries.items() if key[-1] == ("patch lens", 1)]
    assert kept and all(x.untyped_storage().nbytes() == x.nbytes for x in kept)


def test_what_the_head_was_taught_to_read_is_what_it_reads(checkpoints, picture) -> None:
    said = {
        "cls": "[CLS]: a hint, not an answer.",
        "deit": "[CLS] and [DIST]: a hint, not an answer.",
        "mean": "the mean over patches.",
    }
    for kind, read in said.items():
        look = Session(extra=(checkpoints[kind],)).look(picture, checkpoints[kind])
        assert f"It was taught to read {read}" in heads.depth_panels(look, 1)


def test_who_led_early_is_in_the_logit_lens(checkpoints, picture, monkeypatch) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    lens = torch.zeros(4, 7)  # (L+1, K)
    lens[0, 5] = lens[1, 5] = lens[2, 1] = lens[3, 1] = 9
    lens[3, 3] = 5
    monkeypatch.setattr(heads.stats, "logit_lens", lambda model, trace: lens)
    panel = heads.depth_panels(look, 1).partition("Patches that point to")[0]
    assert re.findall(r'<span class="vx-s\d">([^<]*)</span>', panel) == ["bee", "dog", "fox"]
    monkeypatch.setattr(heads, "class_name", lambda card, index: "crane")
    panel = heads.depth_panels(look, 1).partition("Patches that point to")[0]
    told = ["crane", "crane (2)", "crane (3)"]
    assert re.findall(r'<span class="vx-s\d">([^<]*)</span>', panel) == told, "a bird and a machine"


def test_layers_of_every_model_are_compared_over_what_it_reads(look: Look, monkeypatch) -> None:
    monkeypatch.setattr(heads, "CKA_IMAGES", 8)
    monkeypatch.setattr(heads, "CKA_BATCH", 8)
    heads.run_cka(look, SimpleNamespace(tqdm=lambda steps, desc: steps))
    panel = heads.cka_panel(look)
    assert ("8 generated clips" in panel) == look.model.config.is_clip and 'data-tip="3, 3: 1"' in panel


def test_layers_are_compared_at_the_size_that_is_shown(checkpoints, picture, monkeypatch) -> None:
    monkeypatch.setattr(heads, "CKA_IMAGES", 8)
    monkeypatch.setattr(heads, "CKA_BATCH", 8)
    session, progress = Session(extra=(checkpoints["cls"],)), SimpleNamespace(tqdm=lambda steps, desc: steps)
    looks = [session.look(picture, checkpoints["cls"], size=size) for size in (TRAINED, DOUBLE)]
    assert heads.cka_panel(looks[0]) == "", "not asked for yet"
    for look in looks:
        heads.run_cka(look, progress)
    small, large = map(heads.cka_panel, looks)
    assert small != large
    undefined = re.findall(r'data-tip="(\d), (\d): undefined"', small)
    assert len(undefined) == 7 and all("0" in cell for cell in undefined), "[CLS] before the first layer"


def test_what_is_slow_is_slow_at_the_size_that_is_shown(session, checkpoints, picture, monkeypatch):
    look = session.look(picture, checkpoints["cls"], size=DOUBLE)  # 60 patches, the model was trained on 15
    monkeypatch.setattr(looks, "QUICK", 40 * look.cost.flops)
    assert not look.is_quick(METHODS["occlusion"])
    assert "Takes 60 forwards" in why.maps_grid(look, 0)


def test_the_lesson_is_where_its_value_says(look: Look) -> None:
    assert lesson.start_of(look, None).patch in look.trace().grid.in_frame(look.trace().grid.frames // 2)
    value = lesson.lesson_value(look, Choice(14, 1, 3))
    told = json.loads(served(look, value["lesson"]))
    assert told["choice"] == {"patch": 14, "layer": 1, "head": 3} and told["layers"] == 3
    said = {step["name"]: step["data"] for step in told["steps"]}
    token = look.trace().num_prefix_tokens + 14
    shares = torch.tensor(said["softmax"]["shares"])
    torch.testing.assert_close(shares, look.trace().attn[1, 3, token], rtol=1e-5, atol=1e-6)
    assert ("why" in said) == bool(look.model.config.num_classes)
    whole = 20 * look.model.config.num_frames, 12
    assert Image.open(io.BytesIO(served(look, value["picture"]))).size == whole, "all frames, side by side"


def test_what_a_stranger_asks_the_lesson_for_is_checked() -> None:
    start = Choice(1, 2, 3)
    for asked in (None, "x", [1], {"patch": "7"}, {"patch": None}, {"patch": [1]}):
        assert lesson.choice_of(asked, start) == start
    assert lesson.choice_of({"patch": 4.0, "head": 0}, start) == Choice(4, 2, 0)
    for url in (None, 3, "javascript:alert(1)", "file:///x", "https://" + "x" * 3000):
        with pytest.raises(ValueError, match="no address that a phone could open"):
            lesson.code_of(url)
    code = lesson.code_of('https://example.org/?tab=lesson#how=7&"><script>')
    assert code["qr"].startswith("<svg") and "script" not in code["qr"]


def test_the_timeline_has_every_snapshot(look: Look) -> None:
    value = training.timeline_value(look.session, look, look.name)
    assert [moment["step"] for moment in value["moments"]] == [1, 10, 100]
    _, meta = unpack(served(look, value["moments"][0]["head"]))
    assert meta["num_layers"] == 3
    assert value["charts"].count('data-step="10"') == 2, "accuracy and loss, linked"
    assert "step 100 · epoch 2 · accuracy 50.0 %" in value["moments"][2]["words"]


def test_what_is_damaged_of_a_run_is_named_and_the_rest_is_shown(checkpoints, picture, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoints["cls"], run)
    look = Session().look(picture, str(run))
    (run / "history.csv").write_text("step,loss\n1,2\n10,x\n")
    (run / "snapshots" / "step_0000100.safetensors").write_bytes(b"broken")
    value = training.timeline_value(look.session, look, look.name)
    assert [moment["step"] for moment in value["moments"]] == [1, 10]
    assert len(value["left_out"]) == 2 and not any(str(tmp_path) in words for words in value["left_out"])
    assert any("step_0000100" in words for words in value["left_out"])


def test_the_timeline_ends_with_the_weights_as_they_are(checkpoints, picture, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoints["cls"], run)
    with (run / "history.csv").open("a") as file:
        file.write("150,3,0.9,0.6\n")
    look = Session().look(picture, str(run))
    *_, last = training.timeline_value(look.session, look, look.name)["moments"]
    assert last["step"] == 150 and "accuracy 60.0 %" in last["words"]
    assert last["head"] == look.addresses()["head"], "what Explore shows of it"


def test_a_finished_run_ends_with_its_weights_and_not_with_a_snapshot_of_them(
    checkpoints, picture, tmp_path
) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    *before, last = training.timeline_value(look.session, look, look.name)["moments"]
    assert last["step"] == 100 and [moment["step"] for moment in before] == [1, 10]
    assert last["head"] == look.addresses()["head"] != before[-1]["head"]
    assert [snapshot.step for snapshot in earlier_snapshots(checkpoints["cls"])] == [1, 10]


def test_the_timeline_does_not_wait_for_the_weights_of_its_moments(checkpoints, picture, monkeypatch) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    look.session.model(look.name)
    monkeypatch.setattr("explorer.session.load_snapshot", None)
    assert len(training.timeline_value(look.session, look, look.name)["moments"]) == 3


def test_a_run_that_diverged_is_drawn_as_far_as_it_went(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,loss,accuracy\n1,2,0.1\n2,inf,0.2\n3,nan,0.1\n")
    assert training.charts_of(training.read_history(tmp_path), [1, 2, 3]).count("<svg") == 2


def test_a_run_without_labels_says_how_often_the_nearest_is_of_its_class(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,loss,test_loss,nearest\n0,1,1,0.1\n9,0.8,0.9,0.3\n")
    rows = training.read_history(tmp_path)
    drawn = training.charts_of(rows, [0, 9])
    assert drawn.count("<svg") == 2 and "nearest neighbour" in drawn and "accuracy" not in drawn
    assert "nearest neighbour right 30.0 %" in training.words_of(9, rows[1])


def test_a_folder_is_read_only_by_who_may_name_it(checkpoints, picture, tmp_path, monkeypatch) -> None:
    (tmp_path / "history.csv").write_text("step\n1\n")
    public = Session(public=True, extra=(checkpoints["cls"],))
    look = public.look(picture, checkpoints["cls"])
    monkeypatch.setattr(training, "read_history", lambda folder: pytest.fail(f"{folder} was read"))
    with pytest.raises(CheckpointError):
        training.timeline_value(look.session, look, str(tmp_path))


@pytest.mark.parametrize("size", SIZES)
def test_other_sizes_and_shapes_are_looked_at(session, checkpoints, tmp_path, size: str) -> None:
    tall = tmp_path / "tall.png"
    tall.write_bytes(picture_bytes(3, (30, 90)))
    look = session.look(tall, checkpoints["registers"], size=size)
    h, w = look.trace().grid_size
    assert (h > w) == ("whole" in size), "the picture's own shape"
    assert (h * w > 40) == ("twice" in size)
    board = heads.report(look, 0) + why.maps_grid(look, 0)
    told = json.loads(lesson.lesson_bytes(look, Choice(h * w - 1, 0, 0)))
    _, meta = unpack(served(look, look.viewer_value()["head"]))
    assert meta["grid_size"] == [h, w] and "vx-map" in board and told["steps"]
    assert len(training.timeline_value(look.session, look, look.name)["moments"]) == 3


def test_two_moments_can_be_compared(look: Look) -> None:
    offered = [step for _, step in compare.moments(look)]
    assert offered == [compare.LAST, 100, 10, 1]
    has_no_code(compare.answer(look))


def test_interventions_are_what_was_asked_as_far_as_the_model_has_it(look: Look) -> None:
    assert look.edits([], []) == ()
    nonsense = look.edits([-1, 99, "x", None], [[9, 9], [0], "xx", [0, -1], None])
    assert nonsense == look.edits(5, 5) == ()
    edits = look.edits([3, 3, 1], [[0, 1], [2, 3]])
    assert edits[0].patches == (1, 3) and edits[1].heads == ((0, 1), (2, 3))
    value = look.viewer_value(edits)
    _, before = unpack(served(look, value["head"]))
    _, after = unpack(served(look, value["after"]["head"]))
    if look.model.config.num_classes:
        assert before["classes"] != after["classes"]
    with pytest.raises(ValueError, match="at least one patch"):
        look.edits(list(range(look.num_patches)), [])


def test_an_address_holds_nothing_large_and_makes_again_what_was_forgotten(checkpoints, picture) -> None:
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"], owner="ann")
    address = look.maps_value("rollout", 0, ())["maps"][0]
    kept = weakref.ref(look.map(METHODS["rollout"], 0))
    look.session.results.release("ann")
    gc.collect()
    assert kept() is None
    assert "rollout" in unpack(served(look, address))[0]


# ---- the page's own handlers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(session: Session) -> gr.Blocks:
    return ui.build(session)


def handler(demo: gr.Blocks, name: str, view: str = ""):
    """A handler by its function's name, and the module that it is in where several have one of this name."""
    functions = [fn.fn for fn in demo.fns.values() if getattr(fn.fn, "__name__", "") == name]
    return next(fn for fn in functions if fn.__module__.endswith(view))


def button(demo: gr.Blocks, name: str, task: str):
    """`on_start` or `on_stop` of this one of the page's long tasks."""
    functions = [inspect.unwrap(fn.fn) for fn in demo.fns.values() if getattr(fn.fn, "__name__", "") == name]
    return next(fn for fn in functions if inspect.getclosurevars(fn).nonlocals["task"] == task)


def visitor(query: dict[str, str] | None = None, name: str = "ann") -> SimpleNamespace:
    return SimpleNamespace(session_hash=name, query_params=query or {})


def pointed(**payload) -> gr.EventData:
    """An event of the viewer, as Gradio hands it on: `.target` is the viewer, whatever the payload says."""
    return gr.EventData(gr.HTML(render=False), payload)


def arrive(demo: gr.Blocks, query: dict[str, str] | None = None) -> tuple[str, list]:
    """(the model, what else the first page shows) for a visitor of this address."""
    wanted, hello = handler(demo, "on_address")(visitor(query))
    assert hello["name"] == "ann"
    picture, model, size = hello["first"]
    screen = handler(demo, "on_load")(visitor(query))
    if wanted:
        with suppress(gr.Error):
            handler(demo, "on_wanted")(wanted)
            model = handler(demo, "on_came")(wanted, model)
    return model, [picture["path"], size, *screen]


def show(
    demo: gr.Blocks, picture: str | None, model: str, kept: tuple | None = None, name: str = "ann"
) -> ui.Screen:
    """What `on_show` returns to who has chosen this; kept: (target, edits) if it is shown already."""
    chosen = Shown(picture or "", model)
    target, edits = kept or (None, Edits())
    return handler(demo, "on_show")(
        *chosen[:3], chosen if kept else None, target, edits, Failed(), visitor(name=name)
    )


def test_a_picture_is_there_without_a_click(demo: gr.Blocks, session: Session) -> None:
    model, (picture, _, viewer, card, thumbs, target, *_, beacon) = arrive(demo)
    assert Path(picture).exists() and model == session.names()[0]
    assert viewer["head"].startswith("shard/") and target is None
    assert "4 heads" in card and thumbs.count("data-example") >= 5 and beacon["example"] in thumbs


def test_the_address_restores_model_and_example(demo: gr.Blocks, checkpoints: dict[str, str]) -> None:
    query = {"model": checkpoints["mean"], "example": "tower"}
    model, (picture, *_, beacon) = arrive(demo, query)
    assert Path(picture).stem == "tower" and model == checkpoints["mean"]
    assert beacon["model"] == model and beacon["example"] == "tower"


@pytest.mark.parametrize(
    "query", [{"model": "no/such"}, {"model": "/etc"}, {"example": "../../etc"}, {"model": "\0"}]
)
def test_a_bad_address_shows_the_default_and_says_so(demo, session, monkeypatch, query) -> None:
    told: list[str] = []
    monkeypatch.setattr(ui.gr, "Warning", lambda text, **_: told.append(text))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, _ = arrive(demo, query)
    assert model == session.names()[0]
    assert len(told) == ("model" in query)


def test_a_class_can_be_chosen_and_nonsense_means_the_answer(demo, session, checkpoints, picture) -> None:
    choose = handler(demo, "on_target")
    name = checkpoints["cls"]
    answer = int(session.look(picture, name).trace().logits.argmax())
    for asked, expected in [(2, 2), (99, answer), (-1, answer), ("x", answer), (None, answer)]:
        target, _ = choose(Shown(str(picture), name), pointed(target=asked), visitor())
        assert target == expected
    headless = Shown(str(picture), checkpoints["headless"])
    assert choose(headless, pointed(target=1), visitor())[0] is None


def test_a_frame_that_is_chosen_undoes_no_picture_that_is_shown_meanwhile(demo) -> None:
    """Both write what is shown as a whole: in one lane, in which an address has one place."""
    functions = {fn.name: fn for fn in demo.fns.values()}
    on_frame, on_show = functions["on_frame"], functions["on_show"]
    assert on_frame.queue and on_frame.concurrency_id == on_show.concurrency_id
    assert turns.share(on_show.concurrency_limit) == 1


def test_a_map_that_takes_seconds_is_made_beside_the_queue_of_the_others(demo, checkpoints, tmp_path) -> None:
    limits = {fn.concurrency_id: fn.concurrency_limit for fn in demo.fns.values()}
    assert (limits["model"], limits["slow"], limits["hub"]) == (2, 2, 4), "half for each address"
    queues = {fn.name: fn.concurrency_id for fn in demo.fns.values()}
    assert queues["on_slow_map"] == "slow" and queues["on_need_maps"] == queues["on_slow_map_made"] == "model"
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for seed, file in enumerate(files):
        file.write_bytes(picture_bytes(30 + seed))
    mine, other = (Shown(str(file), checkpoints["cls"]) for file in files)
    none = Edits()
    asked = pointed(method="flow", target=None)
    value, wish = handler(demo, "on_need_maps")(mine, none, asked, visitor())
    assert "maps" not in value and "takes 15 max-flows" in value["progress"]
    handler(demo, "on_slow_map")(mine, wish, visitor())
    made = handler(demo, "on_slow_map_made")
    assert made(mine, none, wish, visitor())["maps"]
    assert made(other, none, wish, visitor()) == gr.skip(), "never the picture that the visitor left"
    assert "maps" in handler(demo, "on_need_maps")(mine, none, asked, visitor())[0]


def test_where_strangers_wait_for_each_other_work_is_bounded(checkpoints, picture, monkeypatch) -> None:
    looks = [
        Session(public=public, extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
        for public in (False, True)
    ]
    progress = SimpleNamespace(tqdm=lambda steps, desc: steps)
    monkeypatch.setattr(heads.stats, "layer_cka", lambda model, batches: torch.eye(4))
    monkeypatch.setattr(why.faithfulness, "race", lambda *args, **kwargs: [])
    monkeypatch.setattr("explorer.look.PUBLIC_WORK_LIMIT", 14 * looks[0].cost.flops)
    told = "too much where others wait: choose a smaller size or a smaller model"
    for look in looks:
        assert (told in look.refusal(METHODS["occlusion"])) == look.session.public
        assert told not in look.refusal(METHODS["rollout"])
        for work in (
            lambda look=look: heads.run_cka(look, progress),
            lambda look=look: why.run_race(look, 0, False, lambda done, total: None),
        ):
            if look.session.public:
                with pytest.raises(TooLarge, match=told):
                    work()
            else:
                work()


def test_a_class_chosen_in_why_reaches_the_viewer_and_every_tab(demo, checkpoints, picture) -> None:
    asked = Shown(str(picture), checkpoints["cls"]), 3, Edits([2], [])
    target, viewer, beacon = handler(demo, "on_class")(*asked, visitor())
    assert target == viewer["state"]["target"] == 3 and "after" in viewer
    _, again, other = handler(demo, "on_class")(*asked, visitor())
    assert beacon["stamp"] != other["stamp"] and viewer["nonce"] != again["nonce"], "heard again"


HOSTILE_VALUES = (None, -1.5, "x" * 2000, [[1]], {"query": "x"})


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: repr(value)[:20])
def test_no_handler_answers_anything_with_a_fault(
    demo, checkpoints, picture, value, caplog, monkeypatch
) -> None:
    """Anyone may call any of them with anything: a value or a sentence comes back, never a traceback."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(gr, "Info", lambda *args, **options: None)
    monkeypatch.setattr(gr, "Warning", lambda *args, **options: None)
    shown = Shown(str(picture), checkpoints["cls"])
    for function in {id(fn.fn): fn.fn for fn in demo.fns.values() if callable(fn.fn)}.values():
        parameters = inspect.signature(function).parameters
        kinds = {name: str(p.annotation) for name, p in parameters.items()}
        if function.__name__ in ("on_race", "on_cka", "<lambda>"):  # of State alone, or minutes long
            continue
        known = {"shown": shown, "edits": Edits(), "said": Edits(), "seen": (), "opened": True, "last": shown}
        known |= {
            "shown_now": shown,
            "kept_now": None,
            "wish": {},
            "failed": Failed(),
            "brought": [],
            "followed": {},
            "picked": {},
            "chosen": None,
            "wanted": "/nowhere",
        }
        values = [
            pointed(**value)
            if "EventData" in kinds[name] and isinstance(value, dict)
            else gr.EventData(gr.HTML(render=False), value)  # type: ignore[arg-type]
            if "EventData" in kinds[name]
            else visitor()
            if name == "request"
            else known.get(name, value)
            for name in parameters
        ]
        with suppress(gr.Error):
            function(*values)
    assert not [record.exc_info for record in caplog.records if record.name.startswith("explorer")]


def test_a_model_is_fetched_beside_the_queue_of_those_who_look(checkpoints, picture, monkeypatch) -> None:
    fetches: list[str] = []

    def fetch(name: str) -> tuple[ViT, Card]:
        fetches.append(name)
        return randomised(ViT(tiny_config())), Card(name=name, class_names=NAMES)

    session = Session(extra=(checkpoints["cls"],))
    demo = ui.build(session)
    load = session.load
    monkeypatch.setattr(session, "load", lambda name: fetch(name) if "someone" in name else load(name))
    queues = {fn.name: fn.concurrency_id for fn in demo.fns.values()}
    assert queues["on_model"] == queues["on_wanted"] == "hub" and queues["on_show"] == "model"
    with pytest.raises(gr.Error, match="someone/vit is not here yet"):
        show(demo, str(picture), "someone/vit")
    assert not fetches
    skipped: list[ui.Screen] = []

    def slowly(name: str) -> tuple[ViT, Card]:
        skipped.append(show(demo, str(picture), "someone/vit"))  # another picture is chosen meanwhile
        return fetch(name)

    monkeypatch.setattr(session, "load", slowly)
    handler(demo, "on_model")("hf-hub:someone/vit", Failed(), visitor())
    monkeypatch.setattr(session, "load", lambda name: fetch(name) if "someone" in name else load(name))
    assert skipped == [ui.UNCHANGED], "it is shown with the model, when that has come"
    assert show(demo, str(picture), "someone/vit").beacon["model"] == "someone/vit"
    session.models.release("")  # pushed out by others: its files are still here
    show(demo, str(picture), "someone/vit")
    assert arrive(demo, {"model": "someone/other"})[0] == "someone/other"
    assert fetches == ["someone/vit", "someone/vit", "someone/other"]


def test_a_visitors_second_wish_for_a_model_on_its_way_is_dropped(demo, session, monkeypatch) -> None:
    on_model, fetched, said = handler(demo, "on_model"), [], []

    def choose(name: str, who: SimpleNamespace) -> None:
        on_model(name, Failed(), who)

    def fetch(name: str) -> None:
        fetched.append(name)
        if len(fetched) == 1:  # while it comes
            choose("someone/twice", visitor())
            choose("someone/twice", visitor(name="bob"))

    monkeypatch.setattr(session, "fetch", fetch)
    monkeypatch.setattr(gr, "Info", said.append)
    choose("someone/twice", visitor())
    assert len(fetched) == len(said) == 2, "one for each visitor"
    choose("someone/twice", visitor())
    assert len(fetched) == len(said) == 3, "it had not come: it may be asked for again"


def test_a_model_that_cannot_come_is_said_once_for_one_choice(demo, session, monkeypatch) -> None:
    on_model, failed, said, clock = handler(demo, "on_model"), Failed(), [], [100.0]

    def fetch(name: str) -> None:
        raise ValueError("There is no such model.")

    monkeypatch.setattr(session, "fetch", fetch)
    monkeypatch.setattr(gr, "Info", said.append)
    monkeypatch.setattr("explorer.views.page.time.monotonic", lambda: clock[0])
    for _ in range(2):
        shown = []
        for _ in range(2):  # as the widget says it
            with pytest.raises(gr.Error) as error:
                on_model("someone/none", failed, visitor())
            shown.append(error.value.visible)
        assert shown == [True, False]
        clock[0] += 2
    assert len(said) == 2, "chosen later, it is tried again"


def test_the_same_chosen_again_is_sent_again_with_class_and_interventions(demo, checkpoints, picture) -> None:
    name, edits = checkpoints["cls"], Edits([2], [[0, 1]])
    first = show(demo, str(picture), name)
    assert "after" not in first.viewer and first.target is None and first.edits == Edits()
    again = show(demo, str(picture), name, kept=(3, edits))
    assert again.viewer["after"] and again.viewer["nonce"] != first.viewer["nonce"]
    assert (again.target, again.edits) == (3, edits)


def test_a_race_is_shown_where_it_belongs_and_as_often_as_one_comes_back(demo, checkpoints, tmp_path) -> None:
    (tmp_path / "raced.png").write_bytes(picture_bytes(41))  # a picture that no other test races
    shown = Shown(str(tmp_path / "raced.png"), checkpoints["cls"])
    race, raced, opened = (handler(demo, name, "why") for name in ("on_race", "on_raced", "on_open"))
    handler(demo, "on_start")(visitor())
    assert race(shown, 1, False, visitor(), lambda *args, **kwargs: None) is None
    grid, report, book = raced(shown, 1, visitor())
    assert "vx-verdict" in grid and "insertion" in report.lower()
    assert raced(shown, 2, visitor())[1] == why.BEFORE, "of another class nothing is known"
    assert opened(shown, 1, visitor())[1:] == (grid, report, book)


def test_a_race_ends_when_it_is_stopped_or_nobody_waits_for_it(demo, session, checkpoints, tmp_path) -> None:
    (tmp_path / "stop.png").write_bytes(picture_bytes(44))
    shown = Shown(str(tmp_path / "stop.png"), checkpoints["cls"])
    race, raced = handler(demo, "on_race"), handler(demo, "on_raced")
    steps: list[tuple] = []

    def stop(*args: Any, **options: Any) -> None:
        steps.append(args)
        button(demo, "on_stop", why.RACE)(visitor(name="racer"))

    button(demo, "on_start", why.RACE)(visitor(name="racer"))
    race(shown, 1, False, visitor(name="racer"), stop)
    assert len(steps) == 1 and raced(shown, 1, visitor())[1] == why.BEFORE
    button(demo, "on_start", pairs.CARRY)(visitor(name="racer"))  # other work of the same page
    race(shown, 1, False, visitor(name="racer"), stop)  # what waited in the queue meanwhile
    assert len(steps) == 1

    def leave(*args: Any, **options: Any) -> None:
        steps.append(args)
        session.release("racer")

    button(demo, "on_start", why.RACE)(visitor(name="racer"))
    race(shown, 1, False, visitor(name="racer"), leave)
    assert len(steps) == 2
    button(demo, "on_start", why.RACE)(visitor(name="racer"))
    button(demo, "on_stop", pairs.CARRY)(visitor(name="racer"))
    race(shown, 1, False, visitor(name="racer"), lambda *args, **options: None)
    assert "vx-verdict" in raced(shown, 1, visitor())[0], "who comes back may race again"


def test_another_size_keeps_the_class_that_is_explained(demo, checkpoints, picture) -> None:
    first = Shown(str(picture), checkpoints["cls"])
    larger = Shown(str(picture), checkpoints["cls"], DOUBLE)
    on_show = handler(demo, "on_show")
    screen = on_show(*larger[:3], first, 3, Edits([2], []), Failed(), visitor())
    assert (screen.target, screen.edits, screen.shown) == (3, Edits(), larger)
    assert screen.viewer["state"] == {"target": 3}
    screen = on_show(str(picture), checkpoints["mean"], TRAINED, first, 3, Edits(), Failed(), visitor())
    assert screen.target is None, "another model's classes are others"


def test_a_model_chosen_while_no_picture_is_there_shows_the_last_one(demo, checkpoints, picture) -> None:
    last = Shown(str(picture), checkpoints["cls"])
    screen = handler(demo, "on_show")(
        None, checkpoints["mean"], TRAINED, last, None, Edits(), Failed(), visitor()
    )
    assert screen.shown == Shown(str(picture), checkpoints["mean"])
    assert show(demo, None, checkpoints["cls"]) == ui.UNCHANGED
    unchanged = handler(demo, "on_show")(None, *last[1:3], last, None, Edits(), Failed(), visitor())
    assert unchanged == ui.UNCHANGED


def test_what_fails_leaves_the_widgets_unless_something_else_was_chosen_since(
    demo, checkpoints, picture, tmp_path
) -> None:
    last, failed = Shown(str(picture), checkpoints["cls"]), Failed(one_choice=1000.0)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    tried = [str(bad), *last[1:3]]
    with pytest.raises(gr.Error, match="not a picture"):
        handler(demo, "on_drop")(*tried, failed, visitor())
    with pytest.raises(gr.Error) as twice:
        handler(demo, "on_drop")(*tried, failed, visitor())
    assert not twice.value.visible, "one sentence"
    put_back = handler(demo, "put_back")
    assert put_back("another.png", *tried[1:], last, failed) == [gr.skip()] * 3
    assert put_back(*tried, last, failed) == last[:3]
    failed.at -= failed.one_choice  # then it is chosen again
    with pytest.raises(gr.Error, match="not a picture"):
        handler(demo, "on_show")(*tried, last, None, Edits(), failed, visitor())
    assert put_back(*tried, last, failed) == last[:3]


def test_what_was_chosen_while_something_else_failed_is_shown_then(demo, checkpoints, picture) -> None:
    last = Shown(str(picture), checkpoints["cls"])

    def left_out(chosen, failed: Failed) -> ui.Screen:
        return handler(demo, "on_left_out")(*chosen, last, None, Edits(), failed, visitor())

    assert left_out(last[:3], Failed()) == ui.UNCHANGED, "it was put back"
    since = str(picture), checkpoints["mean"], TRAINED
    assert left_out(since, Failed(choice=("bad.png", *last[1:3]))).shown == Shown(*since)
    assert left_out(since, Failed(choice=since)) == ui.UNCHANGED, "it fails, too"


def test_no_event_that_says_something_is_said_twice_for_another(demo) -> None:
    """Gradio sends what the first event said once more for one that came meanwhile and is `always_last`."""
    inner = {fn: inspect.unwrap(fn.fn) for fn in demo.fns.values() if callable(fn.fn)}
    hearing = [fn for fn, call in inner.items() if "event" in inspect.signature(call).parameters]
    assert len(hearing) > 8
    assert "always_last" not in {fn.trigger_mode for fn in hearing}


def test_a_class_that_the_model_does_not_have_is_corrected_in_the_viewer(demo, checkpoints, picture) -> None:
    shown = Shown(str(picture), checkpoints["cls"])
    need = handler(demo, "on_need_maps")
    value, _ = need(shown, Edits(), pointed(method="relevance", target=207), visitor())
    answer = handler(demo, "on_target")(shown, pointed(target=-1), visitor())[0]
    assert value["state"] == {"target": answer} and value["maps"]
    value, _ = need(shown, Edits(), pointed(method="relevance", target=2), visitor())
    assert "state" not in value


def test_one_bad_side_of_a_comparison_leaves_the_other(demo, checkpoints, picture) -> None:
    shown = Shown(str(picture), checkpoints["cls"])
    asked = compare.SAME, compare.LAST, "nowhere/to-be-found", compare.LAST
    *left, moment, said, viewer = handler(demo, "on_open", "compare")(shown, *asked, visitor())
    assert left[2]["head"] and moment == viewer == gr.skip() and "is not here yet" in said


def test_a_moment_that_is_chosen_is_the_moment_that_is_compared(demo, session, checkpoints, picture) -> None:
    shown = Shown(str(picture), checkpoints["cls"])
    _, _, viewer = handler(demo, "on_side", "compare")(shown, compare.SAME, 10, visitor())
    then = session.look(picture, checkpoints["cls"], 10)
    assert viewer["head"] == then.addresses()["head"]


def test_the_lesson_starts_at_the_pin_and_then_is_the_visitors(demo, checkpoints, picture) -> None:
    shown, pin = Shown(str(picture), checkpoints["cls"]), {"query": 9, "layer": 2, "head": 1}
    opened = handler(demo, "on_open", "lesson")
    look = Session(extra=(checkpoints["cls"],)).look(picture, checkpoints["cls"])
    assert lesson.start_of(look, pin) == Choice(8, 2, 1), "[CLS], then the patches"
    assert lesson.start_of(look, {"query": 0}) == Choice(7, 1, 0), "the middle of the picture"
    by_pin, chosen = (opened(shown, pin, choice, visitor())["lesson"] for choice in (None, Choice(0, 0, 0)))
    assert by_pin != chosen and by_pin == opened(shown, pin, Choice(8, 2, 1), visitor())["lesson"]


def test_a_run_that_is_not_there_is_called_so(demo, checkpoints, picture) -> None:
    shown = Shown(str(picture), checkpoints["cls"])
    said = handler(demo, "on_run")(shown, "runs/cifr10", visitor())[1]
    assert "There is no folder runs/cifr10 here." in said


def test_an_uploaded_picture_is_no_example_whatever_it_is_called(demo, checkpoints, tmp_path) -> None:
    _, (path, *_, beacon) = arrive(demo, {"example": "lion"})
    assert beacon["example"] == "lion"
    mine = tmp_path / Path(path).name
    mine.write_bytes(picture_bytes(5))
    screen = show(demo, str(mine), checkpoints["cls"])
    assert screen.beacon["example"] == "" and 'aria-pressed="true"' not in screen.thumbs


def test_a_network_that_can_reach_the_app_is_made_of_strangers(checkpoints, monkeypatch) -> None:
    made: dict[str, Any] = {}
    page = SimpleNamespace(queue=lambda **o: made.update(o), launch=lambda **o: made.update(o))
    page._queue, page.block_thread = SimpleNamespace(**NO_QUEUE), lambda: None
    monkeypatch.setattr(ui, "build", lambda session: made.update(session=session) or page)
    monkeypatch.setattr(ui, "keep_first", lambda session: None)
    app.main(["--host", "0.0.0.0", "--port", "7871", "--checkpoint", checkpoints["cls"]])
    assert made["session"].public and made["session"].names()[0] == checkpoints["cls"]
    assert (made["server_name"], made["server_port"], made["api_open"]) == ("0.0.0.0", 7871, False)


def test_the_names_in_a_models_card_are_text(checkpoints, picture, tmp_path) -> None:
    hostile = Card("hostile", tuple(f"{HOSTILE}{i}" for i in range(7)), source=HOSTILE, data=HOSTILE)
    save(tmp_path / "hostile", randomised(ViT(tiny_config())), hostile)
    look = Session().look(picture, str(tmp_path / "hostile"))
    assert "&lt;img" in ui.describe(look)
    has_no_code(
        ui.describe(look) + heads.report(look, 2) + why.maps_grid(look, 2) + why.ledger_report(look, 2)
    )
    has_no_code(compare.answer(look))


def test_names_from_outside_are_text_in_toasts_and_labels(demo, picture, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(ui.gr, "Warning", lambda text, **_: told.append(text))
    monkeypatch.setattr(page.gr, "Info", lambda text, **_: told.append(text))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arrive(demo, {"model": HOSTILE})
    with pytest.raises(gr.Error) as fetching:
        handler(demo, "on_model")(HOSTILE, Failed(), visitor())
    with pytest.raises(gr.Error) as looking:
        show(demo, str(picture), HOSTILE)
    assert len(told) == 1, "no word of fetching what can be no id of the Hub"
    for html in (*told, str(fetching.value.message), str(looking.value.message)):
        assert "&lt;img" in html
        has_no_code(html)
    folder = f"a{HOSTILE}"
    has_no_code(ui.strip([Example(folder, folder, tmp_path / folder, tmp_path / folder, "mine")]))


def test_strangers_are_not_told_which_folders_there_are(checkpoints, picture, tmp_path, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(page.gr, "Info", lambda text, **_: told.append(text))
    public = page.Page(Session(public=True, extra=(checkpoints["cls"],)), *[None] * 12)
    errors = []
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(gr.Error) as error:
            public.look(Shown(str(picture), str(folder)), visitor())
        errors.append(str(error.value.message).replace("/".join(folder.parts[-2:]), "FOLDER"))
    assert told == [] and errors[0] == errors[1]


BROKEN = {
    "text.png": b"hello",
    "empty.png": b"",
    "cut.png": picture_bytes(1)[:200],
    "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_picture_is_one_sentence_without_paths(demo, checkpoints, tmp_path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(gr.Error) as error:
        show(demo, str(path), checkpoints["cls"])
    text = str(error.value.message)
    assert text.endswith(".") and "/" not in text and "\n" not in text


@pytest.mark.parametrize("model", ["", "no such model", "/etc/passwd", "weights.pt", None, 5, ["shapes"]])
def test_a_bad_model_is_one_sentence(demo, picture, monkeypatch, model) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(gr.Error) as error:
        show(demo, str(picture), model)
    assert "\n" not in str(error.value.message) and len(str(error.value.message)) < 300


def test_a_lost_picture_or_none_is_one_sentence(demo, checkpoints) -> None:
    with pytest.raises(gr.Error, match="picture"):
        show(demo, "/nowhere/x.png", checkpoints["cls"])
    kept = show(demo, None, checkpoints["cls"])
    assert kept == ui.UNCHANGED, "taking the picture away loses nothing"


def test_a_followed_run_says_nothing_when_nothing_is_to_be_said(demo, checkpoints, picture) -> None:
    follow, name = handler(demo, "on_follow"), checkpoints["cls"]
    quiet = (gr.skip(),) * 3
    for lost in (None, "/nowhere/x.png"):
        assert follow(lost and Shown(lost, name), "", (), visitor()) == quiet
    shown = Shown(str(picture), name)
    value, _, seen = follow(shown, "", (), visitor())
    assert len(value["moments"]) == 3
    assert follow(shown, "", seen, visitor()) == quiet, "nothing new"


def test_what_keeps_a_file_from_being_used_is_said_and_not_where_it_lies() -> None:
    with pytest.raises(gr.Error) as error, page.kindly():
        raise OSError(5, "Input/output error", "/secret/path")
    said = str(error.value.message)
    assert "Input/output error" in said and "secret" not in said and "picture" not in said


def test_files_are_made_one_by_one_and_the_pages_own_do_not_wait(session: Session) -> None:
    """Six files are asked for together; none is finished before the viewer's own bytes have come."""
    busy, most, lock, go_on = 0, 0, threading.Lock(), threading.Event()

    def make() -> bytes:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        assert go_on.wait(PATIENCE)
        with lock:
            busy -= 1
        return b"x" * (2 * serve.PIECE + 1)

    routes = ui.launch_options(session)["app_kwargs"]["routes"]
    with TestClient(Starlette(routes=routes)) as server, ThreadPoolExecutor(6) as pool:
        files = [pool.submit(server.get, session.promise(("file", i), make, "npz")) for i in range(6)]
        assert server.get(session.promise("own", lambda: b"own", "bin")).content == b"own"
        assert server.get(session.promise("seen", lambda: b"seen", PICTURE)).content == b"seen"
        assert server.get(session.promise("lesson", lambda: b"{}", "json")).content == b"{}"
        go_on.set()
        answers = [file.result() for file in files]
    assert most == 1, "of one address; another one's does not wait for it (test_doors.py)"
    assert all(len(answer.content) == 2 * serve.PIECE + 1 for answer in answers)


def test_a_file_that_cannot_be_made_is_one_sentence(session: Session) -> None:
    def fail() -> bytes:
        raise forms.ExportError("/tmp/depth.mp4 cannot be written: no codec.")

    server = TestClient(Starlette(routes=ui.launch_options(session)["app_kwargs"]["routes"]))
    answer = server.get(session.promise("film", fail, "mp4"))
    assert answer.status_code == 503 and answer.text.endswith(".") and "/" not in answer.text


def test_a_closed_tab_frees_what_only_it_held(demo, session, checkpoints, tmp_path) -> None:
    files = []
    for seed in (11, 12):
        files.append(tmp_path / f"{seed}.png")
        files[-1].write_bytes(picture_bytes(seed))
    show(demo, str(files[0]), checkpoints["cls"], name="leaving")
    show(demo, str(files[1]), checkpoints["cls"], name="staying")
    held = session.results.held
    handler(demo, "on_close")(visitor(name="leaving"))
    assert session.results.held < held
    owners = {owner for entry in session.results._entries.values() for owner in entry.owners}
    assert "leaving" not in owners and "staying" in owners


def test_what_was_being_made_when_the_tab_closed_is_not_kept(checkpoints, picture) -> None:
    session = Session(extra=(checkpoints["cls"],))
    look = session.look(picture, checkpoints["cls"], owner="ann")
    address = look.address(
        "late", lambda: look.remember("late", lambda: (session.release("ann"), b"late")[1])
    )
    name = address.removeprefix("shard/")
    assert [kept(session, name), kept(session, name)] == [b"late", None], "who still listens is answered"
    assert not len(session.shards) and not len(session.promises)
    session.look(picture, checkpoints["cls"], owner="bob")
    assert look.remembered("late") is None, "it went with the next visitor's look"
    look.address("later", lambda: b"")
    assert not len(session.promises)
    session.look(picture, checkpoints["cls"], owner="ann").remember("back", lambda: 1)
    assert look.remembered("back") == 1, "a tab that comes back is a visitor again"


def test_a_file_bears_the_name_that_its_visitor_gave_the_picture(checkpoints, picture, tmp_path) -> None:
    session, pages = Session(extra=(checkpoints["cls"],)), []
    for name in ("annas-cat", "berts-cat"):
        (tmp_path / f"{name}.png").write_bytes(Path(picture).read_bytes())
        look = session.look(tmp_path / f"{name}.png", checkpoints["cls"], owner=name)
        address = re.findall(r'href="shard/([^"]*html)"', take_home.links(look, 0, {}))[0]
        pages.append(kept(session, address))
    assert [b"annas" in page for page in pages] == [True, False] == [b"berts" not in page for page in pages]


def test_a_promise_is_kept_with_the_picture_that_is_still_there(tmp_path) -> None:
    session, lost, here = Session(), tmp_path / "lost", tmp_path / "here"
    here.write_bytes(b"here")
    addresses = [session.promise("key", file.read_bytes, owner=file.name) for file in (lost, here)]
    assert addresses[0] == addresses[1] and kept(session, addresses[0].removeprefix("shard/")) == b"here"


@pytest.mark.parametrize("public", [False, True])
def test_only_who_can_follow_a_run_is_told_so(checkpoints, public: bool) -> None:
    demo = ui.build(Session(public=public, extra=(checkpoints["cls"],)))
    words = " ".join(str(block.value) for block in demo.blocks.values() if isinstance(block, gr.HTML))
    assert "Move along the curve" in words and ("can be followed" in words) != public


def test_strangers_are_not_offered_folders(checkpoints: dict[str, str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "secret" / "snapshots").mkdir(parents=True)
    public = Session(public=True, extra=(checkpoints["cls"],))
    assert training.runs(public) == [] and training.runs(Session(extra=(checkpoints["cls"],))) == [
        "runs/secret"
    ]
    with pytest.raises(CheckpointError):
        public.snapshots("runs/secret")


# ---- over HTTP -------------------------------------------------------------------------------------------


def test_pictures_of_a_data_set_that_is_here_are_the_first_examples(tmp_path, monkeypatch) -> None:
    (tmp_path / "imagenette" / "train").mkdir(parents=True)
    for folder, seed in (("n01440764", 1), ("n02102040", 2), ("n03028079", 3)):
        (tmp_path / "imagenette" / "val" / folder).mkdir(parents=True)
        (tmp_path / "imagenette" / "val" / folder / "a.png").write_bytes(picture_bytes(seed))
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    examples = make_examples(tmp_path / "examples")
    assert [e.name for e in suited(examples, "imagenette")][:3] == [
        "imagenette-tench",
        "imagenette-church",
        "cat",
    ]
    assert suited(examples, "")[0].name == "cat", "a model of other data gets photographs first"
    assert suited(examples, "shapes")[0].data == "shapes"
    assert max(example.thumb.stat().st_size for example in examples.values()) < 16_000, "a slow line waits"


fetch = partial(httpx.get, timeout=PATIENCE)


def test_two_clients_each_get_their_own_picture(url: str, checkpoints, tmp_path) -> None:
    clients = [Client(url, verbose=False) for _ in range(2)]
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for seed, file in enumerate(files):
        file.write_bytes(picture_bytes(20 + seed))
    jobs = [
        client.submit(picture=handle_file(file), model=checkpoints["cls"], api_name="/look")
        for client, file in zip(clients, files)
    ]
    heads = []
    for job, file in zip(jobs, files):
        viewer = job.result(timeout=PATIENCE)
        message = fetch(url + viewer["head"]).content
        arrays, _ = unpack(message)
        pixels = np.asarray(Image.open(io.BytesIO(arrays["image"].tobytes())).convert("RGB"), int)
        mine = np.asarray(Image.open(file).resize((20, 12), Image.Resampling.BICUBIC), int)
        assert np.abs(pixels - mine).mean() < 12, "the picture in the answer is the picture that was sent"
        heads.append(viewer["head"])
    assert heads[0] != heads[1]


def test_a_program_asks_by_name_and_gets_the_numbers_of_the_page(url, session, checkpoints, picture) -> None:
    client, name = Client(url, verbose=False), checkpoints["cls"]
    look, file = session.look(picture, name), handle_file(picture)
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == {"/predict", "/look", "/map"}
    assert all(endpoint["description"] for endpoint in described.values())
    assert "at most twenty" in described["/predict"]["description"] and TOP_CLASSES == 20
    said = client.predict(picture=file, model=name, api_name="/predict")
    assert said["classes"][0]["index"] == target_of(look) and said["scores"] == "softmax"
    assert client.predict(picture=file, api_name="/predict")["model"] == session.names()[0]
    found = client.predict(picture=file, model=name, method="relevance", target=2, api_name="/map")
    np.testing.assert_allclose(found["map"], look.map(METHODS["relevance"], 2).numpy(), atol=1e-6)
    assert (found["target"], found["class"]) == (2, NAMES[2])
    with pytest.raises(Exception, match="classification head"):
        headless = {"model": checkpoints["headless"], "method": "relevance"}
        client.predict(picture=file, **headless, api_name="/map")
    for nobody in (7, -2):
        with pytest.raises(Exception, match=f"no class {nobody}: this model has 7, 0 to 6"):
            client.predict(picture=file, model=name, method="relevance", target=nobody, api_name="/map")


def test_only_the_queue_leads_to_the_handlers(url: str, checkpoints, picture) -> None:
    for way in ("run/predict", "api/predict", "run/on_show"):
        answer = httpx.post(url + "gradio_api/" + way, json={"data": []}, timeout=PATIENCE)
        assert answer.status_code == 404
    assert httpx.get(url + "monitoring/summary", timeout=PATIENCE).status_code == 404
    big = httpx.post(url + "gradio_api/queue/join", content=b" " * (2 * 2**20), timeout=PATIENCE)
    assert big.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "shard/" + "0" * 64 + ".bin",
        "shard/..%2F..%2Fapp.py",
        "gradio_api/file=app.py",
        "gradio_api/file=/etc/passwd",
    ],
)
def test_nothing_else_can_be_fetched(url: str, path: str) -> None:
    assert fetch(url + path).status_code in (403, 404)


def test_a_file_that_was_not_uploaded_is_not_looked_at(url: str, checkpoints, picture) -> None:
    """The picture's component opens nothing itself, so that Gradio's own guard must stand before it."""

    def look(path: str) -> str:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, checkpoints["cls"], TRAINED]
        asked = httpx.post(url + "gradio_api/call/look", json={"data": data}, timeout=PATIENCE).json()
        return fetch(f"{url}gradio_api/call/look/{asked['event_id']}").text

    assert look(str(picture)).startswith("event: error")
    with picture.open("rb") as file:
        sent = httpx.post(url + "gradio_api/upload", files={"files": file}, timeout=PATIENCE).json()
    assert look(sent[0]).startswith("event: complete")


def test_a_large_upload_is_refused(url: str) -> None:
    files = {"files": ("big.png", b"x" * (11 * 2**20))}
    assert httpx.post(url + "gradio_api/upload", files=files, timeout=PATIENCE).status_code == 413


def test_the_page_names_no_other_host(url: str) -> None:
    text = fetch(url).text + fetch(url + "theme.css").text
    assert not re.findall(r"(?:src|href)=[\"']https?://(?!127\.0\.0\.1)[^\"']*\.(?:js|css|woff2?)", text)
    assert "fonts.googleapis" not in text


# ---- the command line ------------------------------------------------------------------------------------


def test_help_teaches_and_is_quick() -> None:
    told = subprocess.run(
        [sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert told.returncode == 0
    for word in ("--host", "--port", "--share", "--public", "--checkpoint", "--open", "examples:"):
        assert word in told.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "public"),
    [
        ([], {}, False),
        (["--host", "127.0.0.1"], {}, False),
        (["--host", "0.0.0.0"], {}, True),
        (["--share"], {}, True),
        ([], {"SPACE_ID": "me/space"}, True),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}, True),
        (["--host", "0.0.0.0", "--no-public"], {}, False),
        (["--public"], {}, True),
    ],
)
def test_who_can_reach_the_page_decides_what_it_offers(monkeypatch, arguments, environment, public) -> None:
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert app.is_public(app.parse(arguments)) is public


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("10.255.255.1", "this machine has no address 10.255.255.1"),
        ("no-such-host.invalid", "no-such-host.invalid is not known here"),
    ],
)
def test_a_host_that_is_not_ours_is_one_true_sentence(host: str, said: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(said)):
        app.main(["--host", host, "--port", "7873"])


def launched(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """The session of `app.py` with these arguments, and what Gradio is launched with."""
    made: dict[str, Any] = {}
    page = SimpleNamespace(queue=lambda **o: None, launch=made.update, _queue=SimpleNamespace(**NO_QUEUE))
    page.launch, page.block_thread = lambda **options: made.update(options), lambda: None
    monkeypatch.setattr(ui, "keep_first", lambda session: None)
    monkeypatch.setattr(ui, "build", lambda session: made.update(session=session) or page)
    monkeypatch.setattr(app, "check_address", lambda host, port: None)
    app.main([*arguments])
    return made


@pytest.mark.parametrize(("host", "public"), [("::1", False), ("[::1]", False), ("::", True)])
def test_addresses_of_the_new_kind_get_the_brackets_that_gradio_wants(monkeypatch, host, public) -> None:
    made = launched(monkeypatch, "--host", host)
    assert made["server_name"] == f"[{host.strip('[]')}]" and made["session"].public is public


@pytest.mark.parametrize(("arguments", "guarded"), [([], True), (["--share"], False)])
def test_a_link_of_gradios_leads_in_also_without_public(monkeypatch, arguments, guarded) -> None:
    """It comes under the tunnel's name, which an app on this machine otherwise does not answer."""
    for name in ("SPACE_ID", "GRADIO_ROOT_PATH"):
        monkeypatch.delenv(name, raising=False)
    made = launched(monkeypatch, *arguments, "--no-public")
    assert made["share"] is not guarded and not made["session"].public
    assert made["app_kwargs"]["middleware"][0].kwargs["guarded"] is guarded


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "x"], ["--checkpoint"], ["--nonsense"]])
def test_a_wrong_option_is_one_sentence(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        app.parse(arguments)
    assert stop.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_wrong_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"app\.py: "):
        app.main(["--checkpoint", str(tmp_path)])


def test_a_port_that_is_taken_is_one_sentence(url: str, monkeypatch) -> None:
    port = url.rstrip("/").rpartition(":")[2]
    with gr.Blocks() as nothing:  # the page itself is tested elsewhere
        pass
    monkeypatch.setattr(ui, "build", lambda session: nothing)
    with pytest.raises(SystemExit, match=f"port {port} is taken: give another --port"):
        app.main(["--port", port])


FILE_DATA = {"meta": {"_type": "gradio.FileData"}}


def told_to_a_program(url: str, name: str, data: Any) -> str:
    """What an endpoint says to these arguments, sent as they are: "OK" or its sentence."""
    dependencies = fetch(url + "config").json()["dependencies"]
    number = next(each["id"] for each in dependencies if each["api_name"] == name)
    page = uuid.uuid4().hex
    body = {"data": data, "fn_index": number, "session_hash": page}
    joined = httpx.post(url + "gradio_api/queue/join", json=body, timeout=PATIENCE)
    if joined.status_code != 200:
        return f"HTTP {joined.status_code}"
    waiting = httpx.stream(
        "GET", url + "gradio_api/queue/data", params={"session_hash": page}, timeout=PATIENCE
    )
    with waiting as answers:
        for line in answers.iter_lines():
            message = json.loads(line[5:]) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                return "OK" if message["success"] else str(message["output"]["error"])
    return "no answer"


def test_programs_that_send_nonsense_get_a_sentence(url: str, checkpoints, picture, capfd) -> None:
    uploaded = httpx.post(
        url + "gradio_api/upload", files={"files": Path(picture).read_bytes()}, timeout=PATIENCE
    )
    file, name = {"path": uploaded.json()[0], **FILE_DATA}, checkpoints["cls"]
    assert told_to_a_program(url, "map", [file, name, TRAINED, "rollout", -1]) == "OK"
    wrong = [
        ("predict", [None, name, TRAINED]),
        ("predict", ["x", name, TRAINED]),
        ("predict", [5, name, TRAINED]),
        ("predict", [[file], name, TRAINED]),
        ("predict", [{"path": "/etc/passwd", **FILE_DATA}, name, TRAINED]),
        ("predict", [{"path": None, "url": "http://127.0.0.1:1/x", **FILE_DATA}, name, TRAINED]),
        ("predict", [file, 5, TRAINED]),
        ("predict", [file, "x" * 5000, TRAINED]),
        ("predict", [file, name + "\0", TRAINED]),
        ("map", [file, name, TRAINED, [], -1]),
        ("map", [file, name, TRAINED, "relevance", [1]]),
        ("map", [file, name, TRAINED, "relevance", "x"]),
        ("map", [file, name, TRAINED, "relevance", 1e308]),
        ("look", []),
    ]
    told = [(asked, told_to_a_program(url, *asked)) for asked in wrong]
    said = capfd.readouterr()
    assert not [each for each in told if not each[1].endswith(".") or len(each[1]) > 400]
    assert "Traceback" not in said.err + said.out
