"""What is taken home is what was computed, in files that are whole or not there."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import clip_config, randomised, tiny_config
from matplotlib.text import Text
from PIL import Image

from explorer import export, faithfulness, films, forms, render, show, stats
from explorer import ledger as ledgers
from explorer.forms import Export, ExportError
from explorer.methods import METHODS
from explorer.subject import Subject, subject_of
from vit import Card, ViT
from vit.pictures import normalize

CARD = Card("tiny", class_names=tuple("abcdefg"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


@pytest.fixture
def subject() -> Subject:
    """3 layers, 4 heads, a 3 x 5 grid behind [CLS] and two registers; traced for class 2."""
    model = randomised(ViT(tiny_config(num_registers=2)))
    return subject_of("a picture", torch.randn(3, 12, 20), model, CARD, target=2)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


# numbers ----------------------------------------------------------------------------------------------


def test_an_npz_holds_the_whole_trace_bit_by_bit(subject: Subject, tmp_path: Path) -> None:
    found = load(export.everything(subject).save(tmp_path / "trace.npz"))
    for name in ("image", "tokens", "attn", "logits", "attn_grad"):
        assert (found[name] == getattr(subject.trace, name).numpy()).all(), name
    assert found["grid_size"].tolist() == [3, 5] and found["num_prefix_tokens"] == 3 and found["target"] == 2
    assert found["class_names"].tolist() == list("abcdefg")
    about = str(found["README"])
    assert all(name in about for name in found if name != "README")
    assert about.splitlines()[0].startswith("a picture, tiny.")


@pytest.mark.parametrize("change", [{"post_norm": True}, {"pool": "attention", "class_token": False}])
def test_heads_are_switched_off_where_there_is_no_ledger_too(change: dict, tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config(**change)))
    made = export.ablation(subject_of("x", torch.randn(3, 12, 20), model, CARD, target=2))
    assert load(made.save(tmp_path / "lost.npz")).keys() == {"lost", "README"} and made.figure()
    rows = read_csv(made.save(tmp_path / "lost.csv"))
    assert len(rows) == 12 and rows[0].keys() == {"layer", "head", "lost"}


def test_an_npz_names_only_what_is_there(subject: Subject, tmp_path: Path) -> None:
    bare = replace(subject.trace, attn=torch.empty(0), attn_grad=None, target=None)
    kept = Subject("x", replace(bare, activations={"mlp_pre": torch.ones(3, 2)}), subject.model, Card("x"))
    found = load(export.everything(kept).save(tmp_path / "trace.npz"))
    assert not {"attn", "attn_grad", "target", "class_names"} & found.keys()
    assert found["mlp_pre"].shape == (3, 2) and "mlp_pre [3, 2]" in str(found["README"])


@pytest.mark.parametrize("contrast", [1, "others"])
def test_an_npz_says_what_is_pooled_and_against_what_its_gradients_are(contrast, tmp_path: Path) -> None:
    model = randomised(ViT(tiny_config(pool="attention", class_token=False)))
    seen = subject_of("x", torch.randn(3, 12, 20), model, CARD, target=2, contrast=contrast)
    found = load(export.everything(seen).save(tmp_path / "trace.npz"))
    assert (found["pool_attn"] == seen.trace.pool_attn.numpy()).all() and found["contrast"] == contrast
    assert "pool_attn (H', T) what" in str(found["README"]) and "contrast () and what" in str(found["README"])


def test_maps_are_the_methods_own_numbers_in_every_format(subject: Subject, tmp_path: Path) -> None:
    methods = ["attention", "relevance", "occlusion"]
    made = export.maps(subject, methods, query=7, layer=1, head=3, target=2)
    found = load(made.save(tmp_path / "m.npz"))
    rows = read_csv(made.save(tmp_path / "m.csv"))
    assert [(int(row["row"]), int(row["column"])) for row in rows] == list(np.ndindex(3, 5))
    for name in methods:
        options = {"query": 7, "layer": 1, "head": 3, "target": 2, "model": subject.model}
        expected = METHODS[name](subject.trace, **options).numpy()
        assert (found[name] == expected).all(), name
        assert np.allclose([float(row[name]) for row in rows], expected.ravel(), rtol=1e-6), name


def test_the_sheet_holds_every_head(subject: Subject, tmp_path: Path) -> None:
    found = load(export.grid(subject, query=4).save(tmp_path / "g.npz"))["maps"]
    assert (found == subject.trace.attn[:, :, 4, 3:].unflatten(-1, (3, 5)).numpy()).all()
    row = (read_csv(export.grid(subject, query=4).save(tmp_path / "g.csv")))[-1]
    assert list(row.values())[:4] == ["2", "3", "2", "4"] and float(row["attention"]) == found[2, 3, 2, 4]


def test_the_matrix_is_one_heads_or_the_mean(subject: Subject, tmp_path: Path) -> None:
    found = load(export.matrix(subject, layer=1, head=2).save(tmp_path / "a.npz"))["attn"]
    assert (found == subject.trace.attn[1, 2].numpy()).all()
    found = load(export.matrix(subject).save(tmp_path / "b.npz"))["attn"]
    assert (found == subject.trace.attn[-1].mean(dim=0).numpy()).all()


def test_the_ledgers_csv_adds_up_to_the_logit(subject: Subject, tmp_path: Path) -> None:
    rows = read_csv(export.ledger(subject, target=5).save(tmp_path / "l.csv"))
    assert abs(sum(float(row["logit"]) for row in rows) - float(subject.trace.logits[5])) < 1e-4
    found = load(export.ledger(subject, target=5).save(tmp_path / "l.npz"))
    assert (found["heads"] == ledgers.ledger(subject.trace, subject.model, 5).heads.numpy()).all()


def test_figures_of_heads_have_one_row_per_head(subject: Subject, tmp_path: Path) -> None:
    made = export.figures_of_heads(subject)
    rows = read_csv(made.save(tmp_path / "s.csv"))
    found = load(made.save(tmp_path / "s.npz"))
    assert len(rows) == 12 and float(rows[5]["distance_px"]) == found["distance_px"][1, 1]
    assert found["lens"].shape == (4, 7) and np.allclose(found["lens"].sum(-1), 1)
    assert np.allclose(found["lens"][-1], subject.trace.logits.softmax(0), atol=1e-5)


PLAN = faithfulness.Plan(modes=("drop",), points=4, randoms=2)


def test_a_race_takes_home_curves_and_maps(subject: Subject, tmp_path: Path) -> None:
    made = export.race(subject, ["rollout", "relevance"], plan=PLAN)
    found = load(made.save(tmp_path / "r.npz"))
    assert (found["rollout/map"] == METHODS["rollout"](subject.trace, model=subject.model).numpy()).all()
    area = np.trapezoid(found["rollout/deletion/drop"], found["fractions"])
    (row,) = [row for row in read_csv(made.save(tmp_path / "r.csv")) if row["method"] == "rollout"]
    assert abs(float(row["deletion drop"]) - area) < 1e-6
    assert made.save(tmp_path / "r.png").stat().st_size > 10_000


def test_a_faithfulness_table_becomes_figure_csv_and_markdown(subject: Subject, tmp_path: Path) -> None:
    images = [faithfulness.Sample(torch.randn(3, 12, 20)) for _ in range(2)]
    plan = faithfulness.Plan(points=3, randoms=1)
    table = faithfulness.table(subject.model, images, ["rollout"], plan, resamples=20)
    made = export.faithfulness_table(table, "tiny on noise")
    assert made.save(tmp_path / "t.md").read_text() == table.markdown() + "\n"
    assert [row["method"] for row in read_csv(made.save(tmp_path / "t.csv"))] == [
        row.name for row in table.rows
    ]
    assert made.save(tmp_path / "t.svg").read_text().count("<svg") == 1
    numbers = load(made.save(tmp_path / "t.npz"))
    assert numbers["rollout/score"].shape == (2,) and "tiny on noise" in str(numbers["README"])
    alone = faithfulness.table(subject.model, images[:1], ["rollout"], plan)
    made = export.faithfulness_table(alone, "tiny on one picture")
    assert "too few pictures" in made.save(tmp_path / "o.md").read_text()
    assert made.save(tmp_path / "o.png").stat().st_size > 5_000


# pictures ---------------------------------------------------------------------------------------------


def test_the_picture_has_its_true_colours(subject: Subject) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    image = normalize(torch.from_numpy(pixels).permute(2, 0, 1), CARD)
    seen = replace(subject, trace=replace(subject.trace, image=image))
    assert (seen.picture == pixels).all()


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_every_figure_is_drawn(subject: Subject, tmp_path: Path, ending: str) -> None:
    for name, made in {
        "maps": export.maps(subject, ["rollout", "knockout"], query=5, scale="uniform"),
        "grid": export.grid(subject, scale="uniform"),
        "matrix": export.matrix(subject, head=1),
        "stats": export.figures_of_heads(subject),
        "ledger": export.ledger(subject),
    }.items():
        assert made.save(tmp_path / f"{name}{ending}").stat().st_size > 5_000, name


def test_a_film_has_one_frame_per_layer(subject: Subject, tmp_path: Path) -> None:
    made = films.film(subject, ["attention", "rollout"], fps=5)
    film = Image.open(made.save(tmp_path / "f.gif"))
    assert film.n_frames == 3 and film.info["duration"] == 200
    video = cv2.VideoCapture(str(made.save(tmp_path / "f.mp4")))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    with pytest.raises(ExportError, match="Occlusion has no layers to play through"):
        films.film(subject, ["occlusion"])


def test_a_films_words_belong_to_its_maps(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict] = []
    real = render.maps_figure
    monkeypatch.setattr(
        render, "maps_figure", lambda *a, **k: drawn.append(k | {"maps": a[1]}) or real(*a, **k)
    )
    films.film(subject, ["attention", "gradcam"], query=7, head=-1, target=2).frames()
    assert list(drawn[1]["maps"]) == ["Attention, L1, H3", "Grad-CAM, L1"]
    assert [frame["title"] for frame in drawn] == ["L0, layer 1 of 3", "L1, layer 2 of 3", "L2, layer 3 of 3"]
    assert drawn[1]["without_query"] == {"Grad-CAM, L1"}
    assert "class explained: c" in drawn[1]["caption"] and "query: patch (0, 4)" in drawn[1]["caption"]
    films.film(subject, ["gradcam"], query=7).frames()
    assert "query" not in drawn[-1]["caption"]


def test_a_film_of_training_has_one_frame_per_snapshot_on_one_scale(subject: Subject, tmp_path: Path) -> None:
    young = replace(subject, trace=replace(subject.trace, attn=subject.trace.attn * 0))
    made = films.training_film([("step 1", young), ("step 2", subject)], ["attention"], layer=0)
    first, second = made.frames()
    assert first.shape == second.shape and Image.open(made.save(tmp_path / "t.gif")).n_frames == 2
    shown = render.overlay(render.enlarge(subject.picture), np.zeros((3, 5)))
    assert (first != second).any() and contains(first, shown[200, 300]), (
        "no attention leaves the picture as it is"
    )


def contains(picture: np.ndarray, color: np.ndarray) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


def test_weights_are_taken_home_as_the_statistics_have_them(subject: Subject, tmp_path: Path) -> None:
    made = export.weights(subject.model, CARD)
    found = load(made.save(tmp_path / "w.npz"))
    assert (found["patch_filters"] == stats.patch_filters(subject.model).numpy()).all()
    assert found["position_similarity"].shape == (3, 5, 3, 5)
    assert made.save(tmp_path / "w.png").stat().st_size > 5_000


def test_weights_of_a_model_of_clips_are_drawn(tmp_path: Path) -> None:
    model = randomised(ViT(clip_config()))
    made = export.weights(model, CARD)
    found = load(made.save(tmp_path / "w.npz"))
    assert found["patch_filters"].shape[1:] == (2, 4, 4, 3)
    assert found["position_similarity"].shape == (4, 3, 5, 4, 3, 5)
    filters, positions = made.figure().axes[:2]
    assert "of its moment" in positions.get_title()
    shown = positions.images[0].get_array()
    assert shown.shape[:2] == (3 * 4 - 1, 5 * 6 - 1), "a map (3, 5) for each of 3 x 5 patches, and gaps"
    height, width = filters.images[0].get_array().shape[:2]
    assert width < height, "9 rows of 3 filters, whose two frames stand side by side"


def test_files_of_a_clip_say_the_shapes_that_they_hold(tmp_path: Path) -> None:
    clip = subject_of("a clip", torch.randn(8, 3, 12, 20), randomised(ViT(clip_config())), CARD)
    found = load(export.grid(clip).save(tmp_path / "g.npz"))
    assert found["maps"].shape == (3, 4, 4, 3, 5) and "maps (L, H, t, h, w)" in str(found["README"])
    found = load(export.everything(clip).save(tmp_path / "e.npz"))
    assert found["image"].shape == (8, 3, 12, 20) and "of a clip (F, 3, height" in str(found["README"])
    assert found["grid_size"].tolist() == [4, 3, 5] and "(t, h, w)" in str(found["README"])


def test_a_history_and_a_confusion_matrix_become_files(tmp_path: Path) -> None:
    rows = [{"epoch": e, "loss": 2.0 - e, "test_loss": 2.1 - e, "accuracy": e / 2} for e in (0.0, 1.0)]
    made = export.history(rows, title="run")
    assert load(made.save(tmp_path / "h.npz"))["accuracy"].tolist() == [0.0, 0.5]
    assert made.save(tmp_path / "h.svg").is_file()
    unlabelled = [{"nearest" if name == "accuracy" else name: x for name, x in row.items()} for row in rows]
    drawn = export.history(unlabelled).save(tmp_path / "n.svg").read_text()
    assert "nearest neighbour" in drawn and "50.0 %" in drawn
    with pytest.raises(ExportError, match="no rows yet"):
        export.history([])
    with pytest.raises(ExportError, match="no column test_loss"):
        export.history([{"epoch": 1.0, "loss": 2.0, "accuracy": 0.5}])
    made = export.confusion(np.array([[3, 1], [0, 2]]), ["a", "b"])
    assert made.save(tmp_path / "c.csv").read_text() == "true class,a,b\na,3,1\nb,0,2\n"
    assert made.save(tmp_path / "c.png").is_file()


def test_a_page_opens_without_a_network(subject: Subject, tmp_path: Path) -> None:
    page = export.everything(subject, layer=1).save(tmp_path / "p.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "a picture" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:|@import|fetch\(["']http""", page)


def test_the_lesson_of_a_page_follows_the_patch_in_the_middle(subject: Subject) -> None:
    assert '{"7.1.0": ' in show(subject.trace, CARD, subject.model).page, "row 1, column 2 of 3 x 5"
    assert '{"0.1.0": ' in show(subject.trace, CARD, subject.model, query=3).page, "or the one that is pinned"


def test_words_say_what_was_asked(subject: Subject) -> None:
    assert subject.token_name(None) == "[CLS]" and subject.token_name(1) == "[REG1]"
    assert subject.token_name(3 + 7) == "patch (1, 2)" and subject.patch(3 + 7) == (1, 2)
    assert subject.patch(2) is None and subject.patch(None) is None
    best = int(subject.trace.logits.argmax())
    assert subject.answers(1).startswith("abcdefg"[best])
    headless = replace(subject.trace, logits=torch.empty(0))
    assert "no head" in replace(subject, trace=headless).answers()
    assert replace(subject, card=Card("x")).answers(1).startswith(f"class {best} ")


def test_a_distilled_model_is_read_from_two_tokens() -> None:
    model = randomised(ViT(tiny_config(distillation=True)))
    subject = subject_of("x", torch.randn(3, 12, 20), model, CARD)
    assert subject.token_name(None) == "[CLS] and [DIST]"
    texts = drawn_words(export.figures_of_heads(subject).figure())
    assert "What patches give to all prefix tokens" in texts


@pytest.mark.parametrize(("past", "named"), [({}, "tokens"), ({"pool_prefix": False}, "patches")])
def test_a_model_that_pools_by_attention_is_drawn_from_what_is_pooled(past: dict, named: str) -> None:
    """Not from the pool's query: the rows that are drawn are those of the layers."""
    model = randomised(ViT(tiny_config(num_registers=2, pool="attention", **past)))
    subject = subject_of("x", torch.randn(3, 12, 20), model, CARD)
    assert subject.token_name(None) == f"the {named} that are pooled"
    t = subject.trace
    rows = t.attn[1, 2, 3 if past else 0 :, t.num_prefix_tokens :].mean(dim=0)
    torch.testing.assert_close(export.head_maps(subject)[1, 2].flatten(), rows)
    made = export.heads(model, CARD, torch.randn(2, 3, 12, 20), "noise")
    assert f"at every depth what the head reads (the {named}" in str(made.arrays()["README"])


def drawn_words(figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.findobj(lambda x: hasattr(x, "get_text"))]


def test_titles_say_how_heads_were_put_together(subject: Subject) -> None:
    words = drawn_words(export.maps(subject, ["attention", "value_weighted", "gradcam"], target=2).figure())
    assert {"Attention, L2, mean of heads", "Value-weighted attention, L2, all heads", "Grad-CAM, L2"} <= {
        *words
    }
    assert any("class explained: c" in text for text in words)
    words = drawn_words(export.maps(subject, ["attention"], head=-1, layer=0).figure())
    assert "Attention, L0, H3" in words and not any("class explained" in text for text in words)


# files ------------------------------------------------------------------------------------------------


def test_a_wrong_ending_is_one_sentence_that_names_the_right_ones(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"x.jpg cannot hold this: .* \.png, \.svg, \.npz, \.csv or \.md\."):
        export.matrix(subject).save(tmp_path / "x.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")

    def fail() -> list[dict[str, object]]:
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match=r"t.csv cannot be written: No space left on device\."):
        Export(rows=fail).save(path)
    with pytest.raises(KeyError):
        Export(rows=lambda: [{"a": 1}["b"]]).save(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    Export(rows=lambda: [{"a": 1}]).save(path)
    assert path.read_text() == "a\n1\n" and list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    rows = Export(rows=lambda: [{"a": 1}])
    assert rows.save(tmp_path / "new" / "deep" / "t.csv").is_file()
    with pytest.raises(ExportError, match="cannot be written"):
        rows.save(tmp_path / "new" / "deep" / "t.csv" / "t.csv")


def test_markdown_is_aligned_and_safe() -> None:
    names = ("method", "score", "n", "note")
    rows = [dict(zip(names, row)) for row in (("a|b", 0.12345, 3, None), ("c", -1.0, 20, "x"))]
    assert forms.to_markdown(rows).splitlines() == [
        "| method |  score |  n | note |",
        "| ------ | -----: | -: | ---- |",
        "| a\\|b   |  0.123 |  3 |      |",
        "| c      | -1.000 | 20 | x    |",
    ]
    assert forms.to_markdown([{"true": "a\nb", "c|d\r\ne": 1}]).splitlines() == [
        "| true | c\\|d e |",
        "| ---- | -----: |",
        "| a b  |      1 |",
    ]


def test_a_csv_keeps_every_digit() -> None:
    value = 0.1 + 0.2
    assert float(forms.to_csv([{"x": value}]).splitlines()[1]) == value
    assert json.loads(forms.to_csv([{"x": 1e-30}]).splitlines()[1]) == 1e-30


def test_classes_of_one_name_keep_their_columns_and_rows(tmp_path: Path) -> None:
    counts = np.array([[5, 1, 0], [0, 2, 4], [1, 0, 5]])
    made = export.confusion(counts, ("true class", "crane", "crane"))
    header, *rows = csv.reader(made.save(tmp_path / "k.csv").read_text().splitlines())
    assert header == ["true class", "true class (2)", "crane", "crane (2)"]
    assert [row[0] for row in rows] == header[1:]
    assert np.array_equal(np.array(rows)[:, 1:].astype(int), counts)


def test_no_name_is_run_by_a_spreadsheet() -> None:
    for name in ("=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "＝1", "＋1", "－1", "＠SUM(A1)"):
        head, row = csv.reader(forms.to_csv([{name: name, "x": -1.5}]).splitlines())
        assert head[0] == row[0] == f"'{name}" and row[1] == "-1.5"


def test_a_confusion_matrix_of_many_classes_is_bounded() -> None:
    counts = np.zeros((1300, 1300), int)
    counts[1200, 5] = 7
    figure = render.confusion_figure(counts, [f"class {i}" for i in range(1300)])
    width, height = figure.get_size_inches()
    assert max(width, height) < 16
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape[:2] == (434, 434)  # three classes to a cell
    hot = np.argwhere((shown != shown[0, 0]).any(axis=-1))
    assert hot.tolist() == [[400, 1]]
    words = {text.get_text() for text in figure.findobj(Text)}
    assert any("3 classes to a cell" in word for word in words)


def test_the_text_of_a_notebooks_viewer_is_one_line(subject: Subject, tmp_path: Path) -> None:
    shown = show(subject.trace, CARD, subject.model, title="caf\udce9")
    assert len(repr(shown)) < 100 < 10_000 < len(shown.page)
    assert "caf" in shown.save(tmp_path / "x.html").read_text(encoding="utf-8")


def test_a_frame_of_a_film_is_never_empty(subject: Subject) -> None:
    frames = np.stack([np.full((2, 2), 8.0), np.full((2, 2), 1.0)])
    own, shared = films.film_scale(frames), films.shared_scale(frames)
    assert own(frames[:, None]).min() == 1 and own.words == render.SCALES["map"]
    assert shared(frames[:, None]).min() == 0.125 and films.film_scale(frames[[0, 0]]).words == ""
