"""vit/card.py: what a checkpoint says a logit means, and that every screen and file takes its word."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import randomised, tiny_config
from PIL import Image

from explorer import export, faithfulness, measures, payload
from explorer.__main__ import main
from explorer.subject import Subject
from vit import Card, CheckpointError, ViT, load, save, trace
from vit.report import evaluate

ROOT = Path(__file__).resolve().parent.parent
LOGITS = torch.tensor([6.0, 6.0, 5.0, -6.0])
NAMES = ("cat", "dog", "outdoor", "night")
TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)


def transformers_folder(folder: Path, logits: torch.Tensor, labels: tuple[str, ...], **more) -> Path:
    """A classifier that answers these logits whatever the picture."""
    config = transformers.ViTConfig(
        **TINY, image_size=32, patch_size=8, num_labels=len(labels), id2label=dict(enumerate(labels)), **more
    )
    model = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(logits)
    model.save_pretrained(folder)
    return folder


def test_a_logit_means_what_the_card_says() -> None:
    card = Card("a", NAMES)
    torch.testing.assert_close(card.probabilities(LOGITS), LOGITS.softmax(0))
    several = replace(card, scores="sigmoid")
    torch.testing.assert_close(several.probabilities(LOGITS), LOGITS.sigmoid())
    assert [payload.written(several, float(x)) for x in several.values(LOGITS)] == [
        "100 %",
        "100 %",
        "99 %",
        "0.25 %",
    ]
    number = replace(card, scores="none")
    assert number.values(LOGITS) is LOGITS and number.value_name == "value"
    assert payload.written(number, -0.66612) == "−0.6661"
    with pytest.raises(ValueError, match="a gives numbers, not probabilities"):
        number.probabilities(LOGITS)


@pytest.mark.parametrize(
    "labels, problem, scores",
    [
        (NAMES, None, "softmax"),
        (NAMES, "single_label_classification", "softmax"),
        (NAMES, "multi_label_classification", "sigmoid"),
        (("pneumonia",), None, "sigmoid"),  # a softmax over one output would be 1 whatever the picture
        (("age",), "regression", "none"),
        (NAMES, "regression", "none"),
    ],
)
def test_the_layout_of_transformers_says_it(
    tmp_path: Path, labels: tuple[str, ...], problem: str | None, scores: str
) -> None:
    folder = transformers_folder(tmp_path, LOGITS[: len(labels)], labels, problem_type=problem)
    model, card = load(folder)
    assert card.scores == scores and card.class_names == labels
    save(tmp_path / "ours", model, card)
    assert load(tmp_path / "ours")[1].scores == scores, "our own layout carries it on"


@pytest.mark.parametrize("classes, scores", [(1, "sigmoid"), (3, "softmax")])
def test_the_layout_of_timm_says_it(tmp_path: Path, classes: int, scores: str) -> None:
    shape = dict(embed_dim=32, depth=2, num_heads=4, img_size=[32, 32])
    theirs = timm.create_model("vit_base_patch16_224", num_classes=classes, **shape)
    timm.models.save_for_hf(theirs, tmp_path, model_args=shape, safe_serialization=True)
    assert load(tmp_path)[1].scores == scores


def test_a_word_that_means_nothing_is_refused(tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "theirs", LOGITS, NAMES)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "ranking"}))
    with pytest.raises(CheckpointError, match="problem_type must be one of single_label_classification"):
        load(folder)
    save(tmp_path / "ours", randomised(ViT(tiny_config())), Card("a", scores="ranking"))
    with pytest.raises(CheckpointError, match="scores must be softmax, sigmoid or none"):
        load(tmp_path / "ours")


def test_an_older_checkpoint_of_ours_with_one_output_is_a_yes_or_no(tmp_path: Path) -> None:
    save(tmp_path, randomised(ViT(tiny_config(num_classes=1))), Card("a", ("pneumonia",)))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("scores") == "softmax"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path)[1].scores == "sigmoid"


def subject_of(scores: str) -> Subject:
    model = randomised(ViT(tiny_config(num_classes=4)))
    return Subject(
        "x", trace(model, torch.randn(3, 12, 20), target=2), model, Card("a", NAMES, scores=scores)
    )


EXPECTED = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "none": lambda x: x}


@pytest.mark.parametrize("scores", EXPECTED)
def test_every_file_takes_the_cards_word(scores: str, tmp_path: Path) -> None:
    """The viewer's bytes, the words under a figure, the logit lens, and what a race watches."""
    subject, expected = subject_of(scores), EXPECTED[scores]
    values = expected(subject.trace.logits)
    sections, meta = payload.unpack(payload.head_payload(subject.trace, subject.card, subject.model))
    assert meta["scores"] == scores
    np.testing.assert_allclose(sections["class_values"], values, rtol=1e-6)
    best = int(values.argmax())
    assert meta["classes"][0]["value"] == pytest.approx(float(values[best]))
    assert subject.answers(1) == f"{NAMES[best]} {payload.written(subject.card, float(values[best]))}"
    export.figures_of_heads(subject).save(tmp_path / "heads.npz")
    lens = np.load(tmp_path / "heads.npz")
    np.testing.assert_allclose(lens["lens"][-1], values, rtol=1e-4, atol=1e-6)
    assert subject.card.value_name in str(lens["README"])
    (curves,) = measures.perturbation_curves(
        subject.model, subject.trace, torch.arange(15)[None], "drop", 3, subject.card
    )
    assert float(curves.deletion[0]) == pytest.approx(float(values[2]), rel=1e-4)
    export.figures_of_heads(subject).save(tmp_path / "heads.svg")
    export.race(subject, ["rollout"], plan=faithfulness.Plan(("drop",), 3, 1)).save(tmp_path / "race.svg")
    words = (tmp_path / "race.svg").read_text() + (tmp_path / "heads.svg").read_text()
    assert ("%" in re.findall(r"cat +[^<]*", words)[0]) == (scores != "none")


def test_the_command_line_says_it(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("x.png")
    transformers_folder(tmp_path / "several", LOGITS, NAMES, problem_type="multi_label_classification")
    transformers_folder(tmp_path / "one", torch.tensor([-1.6]), ("pneumonia",))
    transformers_folder(tmp_path / "age", torch.tensor([31.5]), ("age",), problem_type="regression")
    for name, words in {
        "several": "cat 100 %, dog 100 %, outdoor 99 %",
        "one": "pneumonia 17 %",
        "age": "age 31.5",
    }.items():
        assert main(["map", "x.png", "--model", f"./{name}", "--method", "attention", "--out", "o/"]) == 0
        assert f"x: {words}\n" in capsys.readouterr().out


@pytest.mark.parametrize("accuracy", [7.0, 97.2, -0.1, float("nan")])
def test_an_accuracy_that_is_no_share_is_refused(tmp_path: Path, accuracy: float) -> None:
    save(tmp_path, randomised(ViT(tiny_config())), Card("a", accuracy=accuracy))
    with pytest.raises(CheckpointError, match="accuracy must lie between 0 and 1"):
        load(tmp_path)


@pytest.mark.parametrize("scores", ["sigmoid", "none"])
def test_accuracy_is_of_models_that_choose_one_class(tmp_path: Path, scores: str) -> None:
    save(tmp_path, randomised(ViT(tiny_config())), Card("a", tuple("abcdefg"), scores=scores))
    with pytest.raises(ValueError, match="does not choose one class of a picture"):
        evaluate(str(tmp_path), "shapes")
    assert main(["confusion", "--model", str(tmp_path), "--data", "shapes"]) == 2


ATTENTION = {"vit/model.py", "vit/words.py", "explorer/totals.py", "explorer/lesson/attention.py"}
TRAINING = {"vit/report.py", "vit/teacher.py"}  # which is always one class of all: its loss is cross-entropy


def test_only_the_card_turns_logits_into_probabilities() -> None:
    """What is shown goes through the card; softmax stands elsewhere only in attention and in training."""
    found = set()
    for path in [*ROOT.glob("vit/**/*.py"), *ROOT.glob("explorer/**/*.py"), ROOT / "train.py"]:
        for line in path.read_text().splitlines():
            if re.search(r"softmax\(", line.split("#")[0]):
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= {"vit/card.py"} | ATTENTION | TRAINING
