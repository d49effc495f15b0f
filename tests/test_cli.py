"""`python -m explorer`: files hold what the API returns; a mistake is one sentence and exit code 2."""

import base64
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import randomised, tiny_config
from PIL import Image

import vit.model
from explorer import export, faithfulness, films, tensors
from explorer.cli import arguments, data, sources
from explorer.cli import commands as cli
from explorer.cli.request import NOTHING, PARTIAL, Asked, Request
from explorer.faithfulness import weights_digest
from explorer.methods import METHODS
from explorer.payload import unpack
from explorer.roles import Roles
from explorer.subject import Style, Subject, subject_of
from vit import Card, MaskPatches, ViT, ZeroHeads, load, save, trace
from vit.checkpoint import save_snapshot
from vit.cost import cost
from vit.model import HOOK_POINTS
from vit.pictures import open_picture, preprocess
from vit.shapes import SHAPES_CLASSES, shapes_sample

ROOT = Path(__file__).resolve().parent.parent
ON_PICTURES = {name: command for name, command in cli.COMMANDS.items() if command.make}
QUICK = ("--images", "2", "--method", "attention", "--points", "3")
NAMES = ("tench", "church", "chain saw", "gas pump", "golf ball", "truck", "parachute")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a checkpoint "tiny", a picture, and a folder of pictures, one damaged."""
    monkeypatch.chdir(tmp_path)
    save("tiny", randomised(ViT(tiny_config(num_registers=2))), Card("tiny", NAMES))
    save("headless", randomised(ViT(tiny_config(num_classes=0))), Card("headless"))
    colors = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(colors).save("cat.png")
    for name in ("photos/a.png", "photos/sub/a.png", "photos/sub/a.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors).save(name)
    Path("mixed").mkdir()
    Image.fromarray(colors).save("mixed/good.png")
    Path("mixed/bad.png").write_bytes(b"no picture")
    return tmp_path


def run(*words: str, model: str | None = "tiny") -> int:
    return cli.main([words[0], *(["--model", model] if model else []), *words[1:]])


def read_csv(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def numbers(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


# what comes out is what the API returns ---------------------------------------------------------------


def test_a_map_is_the_methods_map(folder: Path) -> None:
    assert run("map", "cat.png", "--method", "attention,relevance", "--query", "1,4", "--target", "golf",
               "--layer", "0", "--head", "2", "--out", "m.npz", "--out", "m.png") == 0  # fmt: skip
    model, card = load("tiny")
    traced = trace(model, preprocess(open_picture("cat.png"), card, (12, 20)), target=4)
    options = {"query": 3 + 5 + 4, "layer": 0, "head": 2, "target": 4}
    for name in ("attention", "relevance"):
        values = numbers("m.npz")[name]
        assert (values == METHODS[name](traced, model=model, **options).numpy()).all()
    assert Image.open("m.png").size[0] > 600


def test_a_map_that_needs_no_gradient_names_its_class_too(folder: Path, monkeypatch) -> None:
    asked: list[dict] = []
    real = export.maps
    monkeypatch.setattr(export, "maps", lambda *a, **k: asked.append(k) or real(*a, **k))
    model, card = load("tiny")
    answer = int(trace(model, preprocess(open_picture("cat.png"), card, (12, 20))).logits.argmax())
    for method, target in (("occlusion", answer), ("attention", None)):
        assert run("map", "cat.png", "--method", method, "--out", "m.npz") == 0
        assert asked[-1]["target"] == target


def test_all_methods_are_those_that_work_here(folder: Path) -> None:
    assert run("map", "cat.png", "--method", "all", "--out", "m.npz", model="headless") == 0
    able = {name for name, m in METHODS.items() if not (m.class_specific or m.pools)}
    assert set(numbers("m.npz")) == able | {"README"}
    request = cli.parse(["film", "--method", "all"])
    config = tiny_config(post_norm=True)
    able = arguments.methods_of(request, config, (68, 68))  # 290 tokens
    expected = [name for name, m in METHODS.items() if "layer" in m.options and not m.refusal(config, 290)]
    assert able == expected and not {"flow", "logit_ledger"} & {*able}


def test_a_file_of_numbers_says_what_they_are_of(folder: Path) -> None:
    asked = ("cat.png", "--method", "rollout,relevance", "--query", "1,2", "--target", "church")
    assert run("map", *asked, "--out", "m.npz") == 0
    said = str(numbers("m.npz")["README"])
    for words in (
        "cat, tiny",
        "query: patch (1, 2)",
        "class explained: church",
        "rollout (h, w): Attention rollout",
    ):
        assert words in said
    assert run("matrix", "cat.png", "--layer", "1", "--head", "2", "--out", "x.npz") == 0
    assert "L1.H2" in str(numbers("x.npz")["README"])


def test_a_page_explains_the_class_that_was_asked_for(folder: Path) -> None:
    asked = ("html", "cat.png", "--target", "gas pump", "--out", "c.npz", "--out", "c.html")
    assert run(*asked) == 0
    assert numbers("c.npz")["target"] == 3 and '"target": 3' in Path("c.html").read_text(encoding="utf-8")


def test_a_page_explains_the_answer_where_there_is_one(folder: Path) -> None:
    for model, explained in (("tiny", True), ("headless", False)):
        assert run("html", "cat.png", "--out", "c.html", model=model) == 0
        page = Path("c.html").read_text(encoding="utf-8")
        assert '"name": "rollout"' in page and ('"name": "relevance"' in page) == explained


def test_a_page_says_what_was_measured_of_its_model(folder: Path) -> None:
    model, _ = load("tiny")
    values = np.full((model.config.depth, model.config.num_heads), 0.9).tolist()
    roles = Roles(weights_digest(model), "shapes", 1, {"sink": values}, {"layer": 0})
    Path("tiny", "heads.json").write_text(json.dumps(asdict(roles)))
    assert run("html", "cat.png", "--out", "c.html") == 0
    sent = re.findall('"head": "([^"]+)"', Path("c.html").read_text(encoding="utf-8"))
    _, meta = unpack(base64.b64decode(sent[0]))
    assert meta["head_names"][0][0] == ["sink"] and meta["opening"] == {"layer": 0}


def test_a_grid_of_one_patch_has_a_page(folder: Path) -> None:
    assert run("html", "cat.png", "--size", "4", "--out", "one.html") == 0


def test_another_size_makes_another_grid(folder: Path) -> None:
    assert run("grid", "cat.png", "--size", "16x36", "--query", "reg2", "--out", "g.npz") == 0
    model, card = load("tiny")
    traced = trace(model, preprocess(open_picture("cat.png"), card, (16, 36)))
    assert (numbers("g.npz")["maps"] == traced.attn[:, :, 2, 3:].unflatten(-1, (4, 9)).numpy()).all()


def test_a_picture_has_the_size_that_its_card_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = load("tiny")
    monkeypatch.setattr(sources, "load", lambda _: (model, replace(card, image_size=(16, 24))))
    assert run("map", "cat.png", "--out", "m.npz") == 0
    assert model.config.image_size == (12, 20) and numbers("m.npz")["attention"].shape == (4, 6)


def test_a_model_of_other_channels_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture) -> None:
    save("grey", randomised(ViT(tiny_config(in_chans=1))), Card("grey"))
    assert run("map", "cat.png", model="grey") == NOTHING
    assert "grey reads 1 channels: pictures here have 3" in capsys.readouterr().err


def test_every_command_writes_every_format_it_promises(folder: Path) -> None:
    for name, command in ON_PICTURES.items():
        outs = [word for ending in command.endings for word in ("--out", f"out/{name}{ending}")]
        assert run(name, "cat.png", *outs) == 0
        assert {path.suffix for path in Path("out").glob(f"{name}.*")} == set(command.endings)


def test_commands_promise_what_exports_can_hold(folder: Path) -> None:
    model, card = load("tiny")
    subject = subject_of("x", torch.zeros(3, 12, 20), model, card)
    for name, command in ON_PICTURES.items():
        made = command.make(subject, Request(name), Asked(("attention",)))
        assert set(made.endings) == set(command.endings), name


def test_without_a_picture_there_is_one(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("matrix") == 0
    assert Path("cat-matrix.png").is_file() and "cat: " in capsys.readouterr().out


def test_a_model_that_knows_shapes_is_shown_a_shape(folder: Path) -> None:
    save("shapes8", randomised(ViT(tiny_config(num_classes=8))), Card("shapes8", SHAPES_CLASSES))
    assert run("ledger", "--out", "s.csv", model="shapes8") == 0
    assert len(read_csv("s.csv")) == 1 + 3 * (4 + 1) + 1


def test_shapes_are_the_real_models_and_cost_nothing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("shapes", "--variant", "B/16", "--out", "b.csv", model=None) == 0
    chain = "[1, 3, 224, 224] -> [1, 196, 768] -> [1, 197, 768] -> 12 x [1, 197, 768] -> [1, 1000]"
    assert f"ViT-B/16: {chain}, 86.57 million parameters" in capsys.readouterr().out
    rows = read_csv("b.csv")
    assert len(rows) == 1 + 2 + 12 * 13 + 3
    assert {row["shape"] for row in rows if row["name"] == "attn"} == {"[1, 12, 197, 197]"}
    assert run("shapes", "--size", "8x24") == 0
    assert (
        "[1, 3, 8, 24] -> [1, 12, 32] -> [1, 15, 32] -> 3 x [1, 15, 32] -> [1, 7]" in capsys.readouterr().out
    )


def test_shapes_name_what_the_head_reads(folder: Path, capsys: pytest.CaptureFixture) -> None:
    def last(changes: dict) -> str:
        return tensors.shapes_of(tiny_config(**changes))[-1]["about"]

    assert last({}) == "the head reads [CLS]: one number per class"
    assert last(dict(distillation=True)) == "the head reads [CLS] and [DIST]: one number per class"
    assert last(dict(num_classes=0)) == "[CLS]: no head"


def test_shapes_have_words_for_every_activation() -> None:
    assert set(tensors.SAYS) == set(HOOK_POINTS)
    pooled = tensors.shapes_of(tiny_config(pool="attention"))
    assert [(row["name"], row["shape"]) for row in pooled[-4:]] == [
        ("pool_scores", "[1, 4, 1, 16]"),
        ("pool_attn", "[1, 4, 1, 16]"),
        ("pooled", "[1, 32]"),
        ("logits", "[1, 7]"),
    ]


def test_faithfulness_prints_a_table_and_a_race(folder: Path, capsys: pytest.CaptureFixture) -> None:
    options = ("--method", "rollout,relevance", "--points", "4", "--mode", "drop")
    save("shapes8", randomised(ViT(tiny_config(num_classes=8))), Card("shapes8", SHAPES_CLASSES))
    shapes = ("--data", "shapes", "--images", "3")
    assert run("faithfulness", *shapes, *options, "--out", "t.md", model="shapes8") == 0
    text = Path("t.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "Class relevance" in text and "pointing" in text and "centre prior" in text
    assert run("faithfulness", "photos", "--images", "2", *options, "--out", "t.csv") == 0
    assert {row["method"] for row in read_csv("t.csv")} == {
        "rollout",
        "relevance",
        *faithfulness.CONTROLS,
    }
    assert run("faithfulness", "cat.png", *options, "--out", "r.npz") == 0
    assert numbers("r.npz")["relevance/map"].shape == (3, 5)


def test_a_films_frames_are_the_snapshots_of_training(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = load("tiny")
    for step in (1, 20, 300):
        save_snapshot("tiny", model, card, step, {"accuracy": step / 300})
    for name in ("tiny", "tiny/model.safetensors"):
        assert run("film", "cat.png", "--through", "training", "--out", "t.gif", model=name) == 0
        assert Image.open("t.gif").n_frames == 4, "and the model as it is"
    Path("tiny/history.csv").write_text("step,accuracy\n300,1\n")
    assert run("film", "cat.png", "--through", "training", "--out", "t.gif") == 0
    assert Image.open("t.gif").n_frames == 3, "which is finer than the snapshot of the same step"
    drawn: list[tuple] = []
    monkeypatch.setattr(
        films,
        "training_film",
        lambda *a, **k: drawn.append((a, k)) or films.film(a[0][0][1], ["attention"]),
    )
    layer = ("--method", "gradcam", "--layer", "0")
    assert run("film", "cat.png", "--through", "training", *layer, "--out", "c.gif") == 0
    (moments, _), options = drawn[0]
    answer = int(trace(model, moments[0][1].trace.image).logits.argmax())
    assert options["layer"] == 0
    assert options["target"] == answer, "one class for all moments, not each moment's own answer"
    one = cost(model.config, (12, 20)).attn_bytes
    monkeypatch.setattr(arguments, "MAX_ATTENTION", 2 * one)  # room for two traces, and three moments
    assert run("map", "cat.png", "--out", "m.png") == 0
    assert run("film", "cat.png", "--through", "training", "--out", "t.gif") == NOTHING
    assert "of attention at once" in capsys.readouterr().err
    assert run("film", "cat.png", "--through", "training", model="headless") == NOTHING
    assert "headless kept no snapshots of its training" in capsys.readouterr().err


def test_commands_about_the_model_need_no_picture(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path("tiny/history.csv").write_text(
        "step,epoch,loss,test_loss,accuracy\n1,0.5,2.1,2.0,0.25\n2,1,1.5,1.4,0.5\n"
    )
    assert run("training", "--out", "h.npz") == 0 and numbers("h.npz")["loss"].tolist() == [2.1, 1.5]
    assert run("weights", "--out", "w.npz") == 0 and numbers("w.npz")["position_similarity"].shape == (
        3,
        5,
        3,
        5,
    )
    save("shapes8", randomised(ViT(tiny_config(num_classes=8))), Card("shapes8", SHAPES_CLASSES))
    assert run("confusion", "--data", "shapes", "--images", "16", "--out", "c.npz", model="shapes8") == 0
    counts = numbers("c.npz")["confusion"]
    assert counts.shape == (8, 8) and counts.sum() == 16
    assert run("confusion", "--data", "shapes") == NOTHING
    assert "tiny knows other classes than shapes" in capsys.readouterr().err
    assert run("training", model="headless") == NOTHING
    assert "headless/history.csv is missing or has no rows" in capsys.readouterr().err


def test_rows_of_a_confusion_matrix_are_the_truth(folder: Path, monkeypatch) -> None:
    save("shapes8", randomised(ViT(tiny_config(num_classes=8))), Card("shapes8", SHAPES_CLASSES))
    monkeypatch.setattr(data, "answer_of", lambda *_: 2)
    assert run("confusion", "--data", "shapes", "--images", "16", "--out", "c.npz", model="shapes8") == 0
    counts = numbers("c.npz")["confusion"]
    assert counts[:, 2].sum() == 16 and counts[2].sum() < 16


STYLE = Style("dark", "magma", True, True)


@pytest.mark.parametrize(
    ("words", "maker", "name", "value"),
    [
        ("map --scale uniform", "maps", "scale", "uniform"),
        ("grid --scale layer", "grid", "scale", "layer"),
        ("film --fps 5", "film", "fps", 5),
        ("film --head 2", "film", "head", 2),
        ("map --theme dark --colormap magma --smooth --lines", "maps", "style", STYLE),
        ("map --method knockout --target 4 --contrast 1", "maps", "contrast", 1),
        ("map --method relevance --contrast others", "maps", "contrast", "others"),
        ("ledger --target 4 --contrast 1", "ledger", "contrast", 1),
        ("faithfulness --mode drop --points 4", "race", "plan", faithfulness.Plan(("drop",), 4, 8)),
        ("faithfulness --method rollout --road", "race", "plan", faithfulness.Plan(randoms=8, road=True)),
    ],
)
def test_an_option_reaches_what_draws(folder: Path, monkeypatch, words, maker, name, value) -> None:
    heard: list[dict] = []

    def listen(*args, **options):
        heard.append(options)
        raise ValueError("That is enough.")

    monkeypatch.setattr(films if maker == "film" else export, maker, listen)
    command, *rest = words.split()
    run(command, "cat.png", *rest)
    assert heard and heard[0][name] == value


def test_the_objects_mask_lies_where_the_object_is(folder: Path, monkeypatch) -> None:
    save("shapes8", randomised(ViT(tiny_config(num_classes=8))), Card("shapes8", SHAPES_CLASSES))
    seen: list = []
    monkeypatch.setattr(faithfulness, "table", lambda model, images, *_, **__: seen.extend(images) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("faithfulness", "--data", "shapes", "--images", "2", "--method", "rollout", model="shapes8")
    for index, mask in enumerate(sample.mask for sample in seen):
        truth = shapes_sample(sources.TEST_SPLIT, index)[2]
        ys, xs = (axis.float().mean() for axis in torch.where(mask))
        rows, columns = np.nonzero(truth)
        size = np.array(truth.shape)
        side = min(size / mask.shape)  # of a pixel of the mask, in the picture's
        corner = (size - side * np.array(mask.shape)) / 2  # a centre crop
        place = (np.array([rows.mean(), columns.mean()]) - corner) / side
        assert np.abs(place - [ys, xs]).max() < 1.5


def test_files_of_a_model_or_data_set_lie_where_they_were_asked_for(folder: Path) -> None:
    """A model's name may be a path, or owner/model; files bear its last part."""
    elsewhere = folder / "of" / "others"
    tiny = hf.ViTModel(
        hf.ViTConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32
        )
    )
    tiny.save_pretrained(elsewhere / "their_vit")
    before = {*folder.rglob("*")}
    for model in (
        str(elsewhere / "their_vit"),
        "of/others/their_vit",
        "../" + folder.name + "/of/others/their_vit",
    ):
        assert run("weights", "--out", "out/", model=model) == 0
        assert run("weights", "--out", "out/{name}.svg", model=model) == 0
    assert run("faithfulness", "--data", str(folder / "photos"), *QUICK, "--out", "out/") == NOTHING
    assert run("faithfulness", str(folder / "photos"), *QUICK, "--out", "out/") == 0
    assert run("shapes", "--variant", "B/16", "--out", "out/", "--out", "out/{name}.csv", model=None) == 0
    new = {path.relative_to(folder).as_posix() for path in {*folder.rglob("*")} - before}
    assert new == {
        "out", "out/their_vit-weights.png", "out/their_vit.svg", "out/photos-faithfulness.md",
        "out/ViT-B-16-shapes.md", "out/ViT-B-16.csv",
    }  # fmt: skip


def test_figures_of_heads_over_a_folder_are_means(folder: Path, capsys: pytest.CaptureFixture) -> None:
    outs = [word for ending in ("csv", "npz", "png") for word in ("--out", f"h.{ending}")]
    colors = np.random.default_rng(1).integers(0, 256, (4, 30, 50, 3), dtype=np.uint8)
    for number, pixels in enumerate(colors):
        Image.fromarray(pixels).save(f"mixed/{number}.png")
    for model in ("tiny", "headless"):
        assert run("heads", "mixed", *outs, model=model) == PARTIAL
        assert "bad.png" in capsys.readouterr().err
        found, rows = numbers("h.npz"), read_csv("h.csv")
        assert found["distance_px"].shape == (5, 3, 4) and found["features"].shape == (4, 5, 32)
        mean, sd = found["sink_share"][:, 1, 2].mean(), found["sink_share"][:, 1, 2].std(ddof=1)
        assert float(rows[6]["sink_share"]) == pytest.approx(mean, rel=1e-5)
        assert float(rows[6]["sink_share_sd"]) == pytest.approx(sd, rel=1e-4)
        assert np.isnan(found["cka"][0, 0]) and found["cka"][3, 3] == pytest.approx(1)
        assert "5 pictures of mixed" in str(found["README"])
    assert run("heads", "cat.png", "--out", "one.npz") == 0 and "cka" not in numbers("one.npz")
    assert run("heads", "cat.png", "--data", "shapes") == NOTHING
    assert "Name pictures or --data, not both." in capsys.readouterr().err
    assert run("heads", "--data", "shapes", "--images", "2") == 0 and Path("shapes-heads.png").is_file()


def test_interventions_are_those_of_the_trace(folder: Path, capsys: pytest.CaptureFixture) -> None:
    model, card = load("tiny")
    image = preprocess(open_picture("cat.png"), card, (12, 20))
    edits = [ZeroHeads(((0, 1), (2, 3))), MaskPatches((0, 7), 3)]
    off = ("--off", "L0.H1 l2.h3", "--hide", "0,0 1,2")
    assert run("matrix", "cat.png", "--head", "2", *off, "--out", "x.npz") == 0
    expected = trace(model, image, edits=edits)
    assert np.array_equal(numbers("x.npz")["attn"], expected.attn[-1, 2].numpy())
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"cat: {Subject('cat', trace(model, image), model, card).answers()}"
    name = "cat (L0.H1 l2.h3 off, 0,0 1,2 hidden)"
    assert said[1] == f"{name}: {Subject('cat', expected, model, card).answers()}"
    assert "hidden" in str(numbers("x.npz")["README"])
    assert run("map", "cat.png", "--method", "relevance", "--target", "3", *off, "--out", "m.npz") == 0
    found = METHODS["relevance"](trace(model, image, target=3, edits=edits), model=model)
    assert np.array_equal(numbers("m.npz")["relevance"], found.numpy())
    Path("cat-grid.png").write_bytes(b"of the model as it is")
    assert run("grid", "cat.png", *off) == 0 and Path("cat-L0.H1-l2.h3-off-0,0-1,2-hidden-grid.png").is_file()
    assert Path("cat-grid.png").read_bytes() == b"of the model as it is"


def test_an_intervention_of_many_patches_has_a_file_of_its_own() -> None:
    many = " ".join(f"{i},{j}" for i in range(9) for j in range(9))
    hidden = (many, many[:-1] + "7", "0,0", None)
    names = {arguments.changed_file(Request("map", hide=hide)) for hide in hidden}
    assert len(names) == 4 and max(map(len, names)) < 60


def test_what_its_user_should_know_of_a_model_is_said(folder: Path, capsys: pytest.CaptureFixture) -> None:
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    config = hf.Dinov2Config(**shape, image_size=32, patch_size=16, num_labels=5)
    hf.Dinov2ForImageClassification(config).save_pretrained("dino")
    assert run("map", "cat.png", "--out", "m.png", model="dino") == 0
    said = capsys.readouterr().err
    assert "dino: " in said and "class token and mean patch" in said and "how pixels are prepared" in said
    assert run("map", "cat.png", "--out", "m.png") == 0 and "tiny: " not in capsys.readouterr().err


def test_a_class_named_by_a_number_is_found_by_its_name(folder: Path) -> None:
    digits = Card("digits", tuple("1234567"))
    for text, found in (("3", 2), ("7", 6), ("0", 0)):
        assert arguments.parse_target(text, digits, 7) == found
    with pytest.raises(ValueError, match="is no class"):
        arguments.parse_target("²", digits, 7)
    assert arguments.parse_target("3", Card("tiny", NAMES), 7) == 3


# folders ----------------------------------------------------------------------------------------------


def test_every_picture_of_a_folder_gets_its_own_file(folder: Path) -> None:
    assert run("map", "photos", "cat.png", "--out", "maps/{name}.csv", "--out", "figures") == 0
    names = {"a", "sub-a", "sub-a-2", "cat"}
    assert {path.stem for path in Path("maps").iterdir()} == names
    assert {path.name for path in Path("figures").iterdir()} == {f"{name}-map.png" for name in names}
    assert run("html", "cat.png", "--out", "v1.2/") == 0 and Path("v1.2/cat.html").is_file()
    Path("cat.png").rename("cat.v2.png")  # what looks like an ending is a part of the name
    assert run("map", "cat.v2.png", "--out", "of/{name}") == 0 and Path("of/cat.v2/cat.v2-map.png").is_file()


def test_a_bad_picture_is_named_and_the_others_are_done(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("map", "mixed", "--out", "done") == PARTIAL == 1
    assert [path.name for path in Path("done").iterdir()] == ["good-map.png"]
    assert "bad.png: This file is not a picture" in capsys.readouterr().err
    assert run("map", "mixed/bad.png") == NOTHING == 2
    rollout = ("--method", "rollout", "--points", "3", "--mode", "drop")
    capsys.readouterr()
    assert run("faithfulness", "mixed", *rollout, "--out", "t.csv") == PARTIAL
    assert "mixed/bad.png: This file is not a picture" in capsys.readouterr().err
    for name in ("ant", "bee"):
        Path(f"data/test/{name}").mkdir(parents=True)
        Image.open("cat.png").save(f"data/test/{name}/good.png")
    Path("data/test/bee/bad.png").write_bytes(b"no picture")
    save("two", randomised(ViT(tiny_config(num_classes=2))), Card("two", ("ant", "bee")))
    assert run("faithfulness", "--data", "data", *rollout, model="two") == PARTIAL
    assert "test picture 1 of data: This file is not a picture" in capsys.readouterr().err
    assert run("confusion", "--data", "data", "--out", "c.npz", model="two") == PARTIAL
    assert numbers("c.npz")["confusion"].sum() == 2 and "picture 1 of data" in capsys.readouterr().err
    for name in ("ant", "bee"):
        Path(f"data/test/{name}/good.png").write_bytes(b"no picture")
    assert run("confusion", "--data", "data", model="two") == NOTHING
    assert "No picture of data could be read" in capsys.readouterr().err


# mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["map", "cat.png", "--query", "9,0"],
            "There is no patch 9,0: this grid has rows from 0 to 2, columns from 0 to 4.",
        ),
        (["map", "cat.png", "--query", "nose"], "write ROW,COLUMN or cls, reg1, reg2."),
        (["map", "cat.png", "--layer", "7"], "There is no layer 7: this model has 3, 0 to 2."),
        (["grid", "cat.png", "--size", "13"], "Patches of 4 pixels do not divide"),
        (["map", "cat.png", "--size", "big"], "--size big is no size: write 224"),
        (
            ["ledger", "cat.png", "--target", "dog"],
            "'dog' is no class of tiny: give a number below 7 or one of tench",
        ),
        (["ledger", "cat.png", "--target", "ch"], "'ch' may be several classes"),
        (["map", "cat.png", "--contrast", "1"], "--contrast means nothing to Attention"),
        (["ledger", "cat.png", "--target", "4", "--contrast", "4"], "Class 4 cannot be told from itself"),
        (["ledger", "cat.png", "--target", "7"], "'7' is no class"),
        (["map", "cat.png", "--out", "x.gif"], "map cannot write .gif: let --out end in .png, .svg, .npz"),
        (
            ["map", "photos", "--out", "x.png"],
            '3 pictures need 3 files: write --out "{name}.png" or a folder.',
        ),
        (["map", "nowhere.png"], "This picture does not exist."),
        (["map", "tiny/model.safetensors"], "This file is not a picture"),
        (["map", "empty"], "There is no picture in the folder empty."),
        (["film", "cat.png", "--method", "occlusion"], "Occlusion has no layers to play through"),
        (["map", "cat.png", "--method", "occlusion", "--query", "1,1"], "--query means nothing to Occlusion"),
        (["map", "cat.png", "--off", "L3.H0"], "--off L3.H0 names no heads: write L0.H0 to L2.H3"),
        (["map", "cat.png", "--off", "2.1"], "names no heads"),
        (["grid", "cat.png", "--hide", "3,0"], "There is no patch 3,0"),
        (["grid", "cat.png", "--hide", "cls"], "write ROW,COLUMN."),
        (["grid", "cat.png", "--hide", "999"], "--hide 999 is no token of this model: write ROW,COLUMN"),
        (["grid", "cat.png", "--hide", " "], "Patches can be hidden, and nothing else: write ROW,COLUMN."),
        (["grid", "cat.png", "--off", " "], '--off "" names no heads: write L0.H0 to L2.H3'),
        (
            ["grid", "cat.png", "--hide", " ".join(f"{i},{j}" for i in range(3) for j in range(5))],
            "Leave at least one patch visible.",
        ),
        (["map", "cat.png", "--method", "occlusion", "--off", "L0.H0"], "Occlusion runs the model as it is"),
        (["map", "cat.png", "--target", "truck"], "--target means nothing to Attention, Attention rollout"),
        (["film", "cat.png", "--layer", "1"], "leave out --layer, or add --through training."),
        (["faithfulness"], "Which pictures? Name a folder, or --data"),
        (["faithfulness", "--data", "shapes"], "tiny knows no class of shapes: name a folder of pictures"),
        (["faithfulness", "photos", "--data", "shapes"], "Name pictures or --data, not both."),
        (["faithfulness", "cat.png", "--images", "3"], "this is one picture: leave it out."),
        (["faithfulness", "photos", "--target", "truck"], "--target is for one picture"),
        (
            ["map", "cat.png", "--method", "relevance", "--scale", "uniform"],
            "--scale uniform is for rows that",
        ),
        (["shapes", "--variant", "B/16", "--model", "tiny"], "Name a paper's --variant or a --model"),
        (["map", "cat.png", "--out", "cat.png/x.png"], "cannot be written"),
        (["map", "cat.png", "--size", "4000"], "need 44,703.8 GiB of attention at once, more than 8"),
        (["faithfulness", "cat.png", "--size", "4000"], "give a smaller --size"),
        (["faithfulness", "cat.png", "--points", "2"], "A curve needs at least 3 points"),
        (["training", "--model", "young"], "young/history.csv is missing or has no rows yet"),
        (["training", "--model", "torn"], "torn/history.csv has a row that is not all numbers"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture, words: list[str], sentence: str
) -> None:
    Path("empty").mkdir()
    for name, row in (("young", ""), ("torn", "1,0.5,2.1\n")):
        Path(name).mkdir()
        Path(name, "history.csv").write_text("step,epoch,loss,test_loss,accuracy\n" + row)
    assert run(*words) == NOTHING
    said = capsys.readouterr().err.strip()
    assert sentence in said and len(said.splitlines()) == 1 and "Traceback" not in said


@pytest.mark.parametrize("command", ["weights", "training", "confusion"])
def test_what_looks_at_no_size_takes_none(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        cli.build_parser().parse_args([command, *["--data", "x"] * (command == "confusion"), "--size", "64"])
    assert error.value.code == 2 and "unrecognized arguments: --size 64" in capsys.readouterr().err


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture) -> None:
    assert run("shapes", "--variant", "Q/16", model=None) == NOTHING
    assert "No variant 'Q/16'" in capsys.readouterr().err


def test_a_model_without_a_head_says_what_it_cannot_do(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("map", "cat.png", "--out", "x.png", model="headless") == 0
    assert "no classes: this model has no head" in capsys.readouterr().out
    assert run("stats", "cat.png", "--out", "s.png", model="headless") == 0
    for words in (["map", "cat.png", "--method", "relevance"], ["map", "cat.png", "--method", "gradcam"],
                  ["ledger", "cat.png"], ["faithfulness", "cat.png"]):  # fmt: skip
        assert run(*words, model="headless") == NOTHING
        assert "no classification head" in capsys.readouterr().err, words


def test_without_any_checkpoint_one_is_asked_for(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sources, "list_checkpoints", lambda: [])
    for words in (["map", "cat.png"], ["training"]):
        assert run(*words, model=None) == NOTHING
        assert "No checkpoint is bundled: train one" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "1e9", "fast"])
def test_a_film_needs_a_rate_that_can_be_played(rate: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        run("film", "--fps", rate)
    assert error.value.code == 2 and f"{rate} is no number between 0.01 and 100" in capsys.readouterr().err


def test_an_unknown_checkpoint_or_method_is_named(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("map", "cat.png", model="./nowhere") == NOTHING
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        run("map", "cat.png", "--method", "magic")
    assert error.value.code == 2
    assert "no method 'magic': choose from attention, " in capsys.readouterr().err


# the process ------------------------------------------------------------------------------------------


def test_the_shell_sees_the_exit_code_and_loads_no_page(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "explorer", "matrix", "nowhere.png", "-m", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    timing = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in done.stderr.splitlines() if line not in timing]
    assert said == ["nowhere.png: This picture does not exist."]
    loaded = {line.split("|")[-1].strip() for line in timing}
    assert "torch" in loaded and not loaded & {"gradio", "transformers", "timm", "matplotlib.pyplot"}


def test_help_teaches(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    for name, command in cli.COMMANDS.items():
        assert f"\n    {name}" in text and command.about in " ".join(text.split())
    with pytest.raises(SystemExit):
        cli.main(["map", "--help"])
    text = capsys.readouterr().out
    for name, method in METHODS.items():
        assert all(
            words in text for words in (name, method.about, method.formula, method.source, method.cost)
        )


def test_every_example_of_the_help_is_a_command_that_exists() -> None:
    lines = [line.strip() for line in cli.EXAMPLES.splitlines() if line.startswith("  python -m explorer ")]
    for line in lines:
        request = cli.parse(shlex.split(line)[3:])
        assert request.data in (None, request.model, "PHOTOS"), "the data that taught it, or the reader's own"
    assert len(lines) >= 9


# the tour ---------------------------------------------------------------------------------------------

TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TOUR, flags=re.DOTALL)


def test_the_tours_code_is_the_models_code() -> None:
    source = {line.strip() for line in (ROOT / "vit" / "model.py").read_text(encoding="utf-8").splitlines()}
    quotes = [block.splitlines() for block in fenced("python") if block.startswith("# vit/model.py, ")]
    assert len(quotes) >= 5
    for heading, *lines in quotes:
        assert not set(lines) - source, f"{heading}: vit/model.py has other lines now"
        owner, _, name = heading.removeprefix("# vit/model.py, ").partition(".")
        assert hasattr(getattr(vit.model, owner), name)


def test_the_tours_commands_are_commands_and_its_figures_are_there() -> None:
    commands = [
        line for block in fenced("sh") for line in block.splitlines() if line.startswith("python -m ")
    ]
    made = set()
    for command in commands:
        made |= {Path(out).name for out in cli.parse(shlex.split(command)[3:]).out}
    shown = set(re.findall(r"\(figures/([^)]+)\)", TOUR))
    assert len(commands) >= 10 and shown <= made, "every figure has the command that made it"
    for name in shown:
        assert 0 < (ROOT / "docs" / "figures" / name).stat().st_size < 400_000, name


def test_the_tours_shapes_are_printed_like_that(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["shapes", "--variant", "B/16"]) == 0
    assert capsys.readouterr().out.strip() == fenced("text")[0].strip()


# odd names and consoles -------------------------------------------------------------------------------


def test_a_picture_whose_name_is_no_utf8_is_looked_at(folder: Path, capsys: pytest.CaptureFixture) -> None:
    os.rename(os.fsencode(folder / "photos" / "a.png"), os.fsencode(folder / "photos") + b"/caf\xe9.png")
    for command, ending in (("map", "-map.png"), ("html", ".html")):
        assert run(command, "photos", "--out", "out") == 0
        assert Path(f"out/caf\ufffd{ending}").is_file()
    assert "caf\ufffd: " in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_cannot_spell_shows_the_rest(folder: Path, encoding: str) -> None:
    save("zh", randomised(ViT(tiny_config(num_classes=2))), Card("zh", ("\u732b", "\u72d7")))
    Path("cat.png").rename("\u5199\u771f.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}
    for words in (["map", "--help"], ["map", "\u5199\u771f.png", "-m", "zh", "--out", "x.svg"]):
        command = [sys.executable, "-m", "explorer", *words]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert "\u732b" in Path("x.svg").read_text(encoding="utf-8") and b"??: ? " in done.stdout


def test_files_are_written_before_the_answer_is_printed(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(cli.pictures.tqdm, "write", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("map", "cat.png", "--out", "m.npz")
    assert Path("m.npz").is_file()
