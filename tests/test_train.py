"""Training learns what it should, begins where it is told, and says what is wrong."""

import csv
import math
import shlex
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import randomised, tiny_config
from PIL import Image
from tiny_run import command, run, same
from torch import nn

import train as t
from explorer.tensors import lines_of, shapes_of
from vit import ViT, beginning
from vit.card import Card
from vit.checkpoint import list_snapshots, load_snapshot, save
from vit.data import Split
from vit.library import BUNDLED, load
from vit.moves import MOVES_CLASSES, MOVES_COUNT, moves_sample
from vit.options import RANGES, Options
from vit.pictures import normalize
from vit.positions import resample_relative
from vit.recipes import RECIPES
from vit.report import evaluate
from vit.schedule import Schedule

pytestmark = pytest.mark.usefixtures("alone")


# Learning


def test_it_overfits_one_batch():
    torch.manual_seed(0)
    options = Options(
        data="x", image_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, batch_size=16
    )
    images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    data = Split(images, torch.arange(16) % 4, tuple("abcd"))
    options = replace(options, epochs=100, flip=False, label_smoothing=0.0)
    schedule, model = Schedule(options, len(data)), t.build_model(options, "abcd")
    optimizers, losses = t.make_optimizers(model, options), []
    for step in range(schedule.total):
        batch = t.make_batch(data, step, schedule, Card("x"))
        losses.append(t.learn(model, *batch, t.Team(), 0.0, bf16=False).item())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[0] == pytest.approx(np.log(4), abs=1e-4) and losses[-1] < 0.05


def test_a_run_leaves_a_checkpoint_that_explains_itself(finished, pictures):
    model, card = load(finished)
    assert card.class_names == ("dark", "light") and card.image_size == (16, 16) == model.config.image_size
    assert card.accuracy == 1.0
    again, first = (
        vars(t.parse(words)) for words in (shlex.split(card.command)[2:], command(pictures, finished))
    )
    assert again | {"out": finished} == first  # the card's command is the one that was given
    rows = list(csv.DictReader((finished / "history.csv").open()))
    assert [float(rows[0][name]) for name in ("step", "epoch")] == [0, 0]
    assert float(rows[-1]["step"]) == 12 and float(rows[-1]["accuracy"]) == 1.0
    readme = (finished / "README.md").read_text()
    assert "100.00%" in readme and card.command in readme and readme.startswith("---\npipeline_tag:")
    assert f"--evaluate {finished} --data {pictures}" in readme


def test_snapshots_are_log_spaced_and_end_with_the_model(finished):
    snapshots = list_snapshots(finished)
    assert [snapshot.step for snapshot in snapshots] == [0, 1, 3, 12]
    assert snapshots[-1].metrics["accuracy"] == 1.0
    last, model = load_snapshot(snapshots[-1].path)[0], load(finished)[0]
    image = torch.randn(1, 3, 16, 16)
    assert torch.allclose(last(image), model(image), atol=0.03)  # the noise of few bits: tests/test_codec.py
    vectors = {name: x for name, x in last.state_dict().items() if x.ndim == 1}  # kept as they are
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in vectors.items())
    now = torch.load(finished / "state.pt", weights_only=True)["model"]
    assert not all(torch.allclose(x, now[name], atol=2e-4) for name, x in vectors.items()), "the average"


def test_a_run_on_clips(tmp_path, monkeypatch):
    monkeypatch.setitem(MOVES_COUNT, "train", 20)
    monkeypatch.setitem(MOVES_COUNT, "test", 10)
    tiny = "--embed-dim 16 --depth 1 --num-heads 2 --batch-size 10 --epochs 2 --sizes 32:0.5 --snapshots 3"
    t.main(["moves", "--out", str(tmp_path), *tiny.split(), "--precision", "fp32"])
    model, card = load(tmp_path)
    assert (model.config.num_frames, model.config.tubelet, model.config.grid_size) == (8, 2, (4, 8, 8))
    assert model.patch_embed.proj.weight.shape == (16, 3, 2, 8, 8) and card.class_names == MOVES_CLASSES
    assert round(evaluate(str(tmp_path), "moves").accuracy, 4) == card.accuracy
    last = load_snapshot(list_snapshots(tmp_path)[-1].path)[0]
    clip = torch.rand(1, 8, 3, 64, 64)
    torch.testing.assert_close(last(clip), model(clip), rtol=0, atol=0.05)  # as far as snapshots are exact
    text = (tmp_path / "README.md").read_text()
    assert "video-classification" in text and "patches of 8 px and 2 frames" in text
    with pytest.raises(SystemExit, match="moves needs --num-frames 8, not 4"):
        t.main(["moves", "--out", str(tmp_path / "other"), "--num-frames", "4", *tiny.split()])


def test_the_average_remembers_as_long_as_it_says():
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    t.update_ema(average, model, 0.9, step=10**6)
    assert average.weight.item() == pytest.approx(0.1)


def test_the_average_forgets_its_beginning_and_takes_along_what_batch_norm_has_counted():
    """In step s it keeps (1 + s) / (10 + s) of itself, so long as that is less than was asked for."""
    average, model = (nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)) for _ in range(2))
    nn.init.zeros_(average[0].weight)
    nn.init.ones_(model[0].weight)
    model[1].running_mean.fill_(10.0)
    model[1].num_batches_tracked.fill_(7)
    for step, kept in ((0, 0.1), (8, 0.5), (10**6, 0.9)):
        before = [average[0].weight.item(), average[1].running_mean.item()]
        t.update_ema(average, model, 0.9, step)
        after = [average[0].weight.item(), average[1].running_mean.item()]
        assert after == pytest.approx([kept * x + (1 - kept) * y for x, y in zip(before, (1, 10))], rel=1e-5)
        assert average[1].num_batches_tracked == 7


def test_calibration_scales_all_of_the_head_and_nothing_else(monkeypatch):
    """A bias left as it was would change answers."""
    model = randomised(ViT(tiny_config(image_size=(8, 8), distillation=True)))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    data = Split(images, torch.arange(24) % 7, tuple("abcdefg"))
    options = Options(image_size=8, batch_size=8)
    run = SimpleNamespace(options=options, card=Card("x"), bf16=False)
    monkeypatch.setattr(t, "scale_of", lambda logits, labels: 0.25)
    t.calibrate(model, run, data)
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, before[name] * (0.25 if name.startswith("head") else 1))
    assert before["head.bias"].abs().min() > 0


def test_matrices_decay_as_asked():
    model = t.build_model(Options(embed_dim=16, depth=2, num_heads=2), "abc")
    muon, adamw = t.make_optimizers(model, Options(weight_decay=0.3))
    assert {group["weight_decay"] for group in muon.param_groups} == {0.3}
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.3, 0.0]


@pytest.fixture(scope="module")
def short(pictures, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights after one plain epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(pictures, tmp_path_factory.mktemp("short") / "run", "--epochs", "1", "--mix", "0")


CHANGES = "aspect 2, clip 1e-3, label-smoothing 0.3, mix 1, drop-path 0.5, ema 0.01, sizes 16:1, rotation 30"


@pytest.mark.parametrize("change", CHANGES.split(", "))
def test_every_option_changes_what_is_learned(change, pictures, short, tmp_path):
    changed = ("--epochs", "1", "--mix", "0", *f"--{change}".split())
    assert not same(run(pictures, tmp_path / "run", *changed), short)


def test_every_picture_is_seen_once_per_epoch():
    data = Split(
        torch.arange(24, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8),
        torch.zeros(24).long(),
        ("a",),
    )
    options = Options(image_size=8, batch_size=8, flip=False)
    schedule, card = Schedule(options, 24), Card("x", mean=(0.0,) * 3, std=(1.0,) * 3)
    epochs = []
    for epoch in range(2):
        batches = [t.make_batch(data, 3 * epoch + i, schedule, card)[0][:, 0, 0, 0] * 255 for i in range(3)]
        epochs.append(torch.cat(batches).round().int().tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24)) and epochs[0] != epochs[1]


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = t.build_model(Options(embed_dim=16, depth=2, num_heads=2), "abc")
    muon, adamw = t.make_optimizers(model, Options())
    assert sum(len(group["params"]) for group in muon.param_groups) == 2 * 4
    decayed, free = adamw.param_groups
    assert {tuple(p.shape) for p in decayed["params"]} == {(16, 3, 8, 8), (3, 16)} and free[
        "weight_decay"
    ] == 0
    everything = sum(len(group["params"]) for o in (muon, adamw) for group in o.param_groups)
    assert everything == len(list(model.parameters()))
    assert len(t.make_optimizers(model, Options(optimizer="adamw"))) == 1


def test_q_k_and_v_are_made_orthogonal_one_by_one():
    model = t.build_model(Options(embed_dim=16, depth=1, num_heads=2), "abc")
    muon = t.make_optimizers(model, Options())[0]
    parts = {id(p): group["parts"] for group in muon.param_groups for p in group["params"]}
    blocks = {name: p for name, p in model.blocks[0].named_parameters() if id(p) in parts}
    assert {name: parts[id(p)] for name, p in blocks.items()} == {
        "attn.qkv.weight": 3,
        "attn.proj.weight": 1,
        "mlp.fc1.weight": 1,
        "mlp.fc2.weight": 1,
    }


# Weights of others


def test_init_brings_the_weights_to_other_pictures_and_classes(finished, pictures):
    options = t.with_init(Options(image_size=32, init=str(finished)), {})
    old = load(finished)[0]
    grown, other = t.build_model(options, ("dark", "light")), t.build_model(options, ("bright", "dim"))
    assert grown.config.image_size == (32, 32) and grown.pos_embed.shape == (1, 17, 16)
    assert torch.equal(grown.head.weight, old.head.weight) and other.head.weight.abs().max() == 0
    assert torch.equal(grown.blocks[1].mlp.fc1.weight, old.blocks[1].mlp.fc1.weight)
    image = torch.randn(1, 3, 32, 32)
    assert torch.allclose(grown(image), old(image), atol=1e-5)  # the same positions, resampled


def test_a_class_that_was_known_keeps_what_it_knew_wherever_it_stands(finished, tmp_path):
    model, card = load(finished)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.7, -0.3]))
    save(tmp_path / "old", model, card)
    old, card = load(tmp_path / "old")
    assert card.class_names == ("dark", "light")
    options = t.with_init(Options(image_size=16, init=str(tmp_path / "old")), {})
    new = t.build_model(options, ("light", "x", "dark")).head
    assert torch.equal(new.weight[[2, 0]], old.head.weight) and torch.equal(new.bias[[2, 0]], old.head.bias)
    assert new.bias.tolist() == pytest.approx([-0.3, 0, 0.7], abs=1e-3) and new.weight[1].abs().max() == 0


def test_relative_positions_follow_to_pictures_of_another_size(tmp_path):
    """Layer by layer: what a block adds to scores is its own old table on the new grid, as the model itself
    would make it for such a picture."""
    old = randomised(ViT(tiny_config(rel_pos=True, pos_embed="none", image_size=(16, 16))))
    save(tmp_path / "old", old, Card("old", tuple("abcdefg")))
    options = t.with_init(Options(image_size=32, init=str(tmp_path / "old")), {})
    new, old = t.build_model(options, tuple("abcdefg")).eval(), load(tmp_path / "old")[0]
    assert new.config.grid_size == (8, 8) and new.rel_pos.shape[1] == 15 * 15 + 3
    for layer, table in enumerate(old.rel_pos):
        torch.testing.assert_close(new.rel_pos[layer], resample_relative(table, (4, 4), (8, 8)))
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(new(image), old(image), rtol=1e-4, atol=1e-5)


def test_what_knows_pictures_begins_with_clips(finished):
    """A clip that stands still is the picture at every time, but for what tells the times apart."""
    given = dict(num_frames=6, tubelet=2)
    options = t.with_init(Options(image_size=16, init=str(finished), **given), given)
    old, model = load(finished)[0], t.build_model(options, ("goes", "stays"))
    P, prefix = old.config.num_patches, old.config.num_prefix_tokens
    assert model.config.grid_size == (3, *old.config.grid_size)
    image = torch.randn(1, 3, 16, 16)
    patches = model.patch_embed(image.expand(6, -1, -1, -1)[None]).view(3, P, -1)
    torch.testing.assert_close(patches, old.patch_embed(image).expand(3, -1, -1))
    assert torch.equal(model.pos_embed[:, :prefix], old.pos_embed[:, :prefix])
    times = model.pos_embed[0, prefix:].view(3, P, -1) - old.pos_embed[:, prefix:]
    torch.testing.assert_close(times, times[:, :1].expand_as(times), rtol=0, atol=1e-6)
    assert 0.01 < times[:, 0].std() < 0.03
    assert torch.equal(model.blocks[1].attn.qkv.weight, old.blocks[1].attn.qkv.weight)


def test_fine_tuning_keeps_the_shape_and_the_colours_of_its_beginning(
    finished, pictures, tmp_path, monkeypatch
):
    model, card = load(finished)
    save(tmp_path / "old", model, replace(card, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)))
    few, loaded = "--image-size 16 --batch-size 8 --epochs 1 --eval-images 6", []
    monkeypatch.setattr(beginning, "load", lambda name: loaded.append(name) or load(name))
    t.main(
        [
            "--data",
            str(pictures),
            "--out",
            str(tmp_path / "new"),
            "--init",
            str(tmp_path / "old"),
            *few.split(),
        ]
    )
    assert len(loaded) == 1  # it may be far away
    begin = list_snapshots(tmp_path / "new")[0].metrics
    assert begin["loss"] == begin["test_loss"] != pytest.approx(math.log(2), abs=1e-3)  # it knows something
    tuned, new = load(tmp_path / "new")
    assert (new.mean, new.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)) and new.accuracy == 1.0
    assert tuned.config == model.config and "--depth 2" in (tmp_path / "new" / "README.md").read_text()


# Evaluation


def test_evaluate_says_what_the_card_says_every_time(finished, pictures, tmp_path, capsys):
    said = []
    for _ in range(2):
        t.main(["--evaluate", str(finished), "--data", str(pictures), "--out", str(tmp_path)])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "100.00% of 12; its card says 100.00%" in said[0]
    assert "dark" in said[0] and "calibration error" in said[0]
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.size > (200, 200)


def test_a_model_may_be_used_at_another_size_than_it_learned_at(pictures, tmp_path):
    run(pictures, tmp_path / "run", "--epochs", "1", "--test-size", "24")
    model, card = load(tmp_path / "run")
    assert model.config.image_size == (16, 16) and card.image_size == (24, 24)
    assert round(evaluate(str(tmp_path / "run"), str(pictures)).accuracy, 4) == card.accuracy


def test_a_test_split_is_prepared_as_the_card_says(finished, tmp_path, monkeypatch):
    model, card = load(finished)
    card = replace(card, image_size=(24, 24), crop_pct=0.875, interpolation="bilinear")
    save(tmp_path / "other", model, card)
    asked = []
    monkeypatch.setattr("vit.report.load_split", lambda *args: asked.append(args) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(str(tmp_path / "other"), "somewhere", seed=3)
    assert asked == [("somewhere", "test", (24, 24), 0.875, "bilinear", 3)]


def said_by_evaluate(name: str) -> tuple[float, float | None]:
    report = evaluate(name, name)
    assert report.confusion.diagonal().sum() / report.confusion.sum() == pytest.approx(report.accuracy)
    return round(report.accuracy, 4), report.card.accuracy


def test_the_bundled_shapes_checkpoint_is_as_good_as_its_card_says():
    accuracy, on_the_card = said_by_evaluate("shapes")
    assert accuracy == on_the_card >= 0.95


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "imagenette", "photos"])
def test_bundled_checkpoints_are_as_good_as_their_cards_say(name, request):
    request.getfixturevalue(f"{name}_folder")
    accuracy, on_the_card = said_by_evaluate(name)
    assert accuracy == on_the_card


@pytest.mark.slow
def test_the_bundled_clip_model_is_as_good_as_its_card_says():
    accuracy, on_the_card = said_by_evaluate("moves")
    assert accuracy == on_the_card >= 0.97


def test_the_bundled_clip_model_needs_time():
    """One frame at every time stays, whatever it was cut from: at chance. Backwards, right is left; and in
    another order, of a move and its reverse either is as likely."""
    model, card = load("moves")
    drawn = [moves_sample(1, index) for index in range(5 * len(MOVES_CLASSES))]
    clips = normalize(torch.stack([torch.from_numpy(x).permute(0, 3, 1, 2) for x, _, _ in drawn]), card)
    true = torch.tensor([label for _, label, _ in drawn])
    said = model(clips).argmax(1)
    assert (said == true).float().mean() >= 0.9
    still = model(clips[:, 3:4].expand_as(clips)).argmax(1)
    assert (still == true).float().mean() <= 0.16
    opposite = torch.tensor([1, 0, 3, 2, 4, 6, 5, 8, 7, 9])
    backwards = model(clips.flip(1)).argmax(1)
    assert (backwards == opposite[true]).float().mean() >= 0.85
    lot, turned = torch.Generator().manual_seed(0), opposite[true] != true
    logits = model(torch.stack([clip[torch.randperm(len(clip), generator=lot)] for clip in clips]))
    ahead = logits.gather(1, true[:, None]) > logits.gather(1, opposite[true][:, None])
    assert 0.3 <= ahead[turned].float().mean() <= 0.7


@pytest.mark.parametrize("name", ["shapes", "cifar10", "imagenette", "photos", "moves"])
def test_bundled_checkpoints_bring_their_training_along(name):
    model, card = load(name)
    snapshots = list_snapshots(BUNDLED / name)
    assert len(snapshots) >= 7 and snapshots[0].step == 0 and card.accuracy is not None
    assert card.command.startswith(f"python train.py {name}") and model.config.grid.space >= (8, 8)
    with (BUNDLED / name / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["step"]) >= snapshots[-1].step  # the last moment may be the weights themselves
    assert max(file.stat().st_size for file in (BUNDLED / name).rglob("*.*")) < 16 * 2**20


# The command line


def test_dry_run_prints_the_shapes_of_the_real_model(capsys):
    t.main(["folder", "--data", "shapes", "--dry-run", "B/16"])
    lines = capsys.readouterr().out.splitlines()
    chain = "[1, 3, 224, 224] -> [1, 196, 768] -> [1, 197, 768] -> 12 x [1, 197, 768] -> [1, 8]"
    assert lines[-1].startswith(f"ViT-B/16: {chain}, ")
    assert [line for line in lines if line.startswith("[1, 12, 197, 197]  attn ")]
    t.main(["cifar10", "--dry-run"])
    chain = "[1, 3, 48, 48] -> [1, 144, 192] -> [1, 145, 192] -> 6 x [1, 145, 192] -> [1, 10]"
    assert chain in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", ["shapes", "cifar10", "imagenette", "photos", "moves"])
def test_a_recipe_makes_a_model_of_the_shape_of_the_bundled_one(name, capsys):
    """Heads, too, of the one that begins with another's weights and cuts them finer."""
    config, side = load(name)[0].config, RECIPES[name].options["image_size"]
    t.main([name, "--dry-run"])
    wanted = "\n".join(lines_of(name, config, shapes_of(config, (side, side))))
    rows, _, _ = capsys.readouterr().out.partition("\n\n")  # what follows counts parameters of this size
    assert rows == wanted.partition("\n\n")[0]


@pytest.mark.parametrize(
    "args, sentence",
    [
        ("", "Say what to learn"),
        ("--data NOWHERE", "There is no folder NOWHERE"),
        ("shapes --patch-size 7", "--image-size, --test-size and --sizes must be multiples of 7, not 64."),
        ("shapes --sizes 30:0.5", "--image-size, --test-size and --sizes must be multiples of 8, not 30."),
        ("shapes --sizes half", "must look like '24:0.6'"),
        ("shapes --sizes 32:45", "needs shares of the run that rise between 0 and 1"),
        ("shapes --sizes 32:nan", "needs shares of the run that rise between 0 and 1"),
        ("shapes --sizes 32:0", "needs shares of the run that rise between 0 and 1"),
        ("shapes --sizes 32:0.9,48:0.5", "must look like '24:0.6'"),
        ("shapes --optimizer sgd", "--optimizer must be one of muon, adamw"),
        ("shapes --precision int8", "--precision must be one of"),
        ("shapes --accumulate 3", "must be a multiple of 3"),
        ("shapes --epochs 0", "--epochs must be between"),
        ("shapes --epochs inf", "--epochs must be between"),
        ("shapes --lr nan", "--lr must be between"),
        ("shapes --batch-size -1", "--batch-size must be between"),
        ("shapes --patch-size 0", "--patch-size must be between"),
        ("shapes --drop-path 1", "--drop-path must be between 0 and 0.99999, not 1"),
        ("shapes --accumulate 0", "--accumulate must be at least 1"),
        ("shapes --min-area 60", "--min-area must be between 1e-09 and 1, not 60"),
        ("shapes --snapshots 2", "--snapshots must be between 3"),
        ("shapes --device foo", "--device foo cannot be used here"),
        ("shapes --device meta", "--device meta cannot be used here"),
        ("moves --mix 0.5", "--mix blends pictures: leave it out for clips"),
        ("shapes --teacher imagenette", "imagenette holds no teacher"),
        ("shapes --init shapes --depth 4", "--depth of shapes is 6: leave the option out"),
        (
            "shapes --network conv --depth 4 --calibrate",
            "Without --network vit nothing is changed by --depth",
        ),
        ("shapes --teach 0.2", "Without --teacher nothing is changed by --teach: leave it out"),
        ("shapes --aspect 2", "Without --min-area below 1 nothing is changed by --aspect: leave it out"),
        (
            "masked --label-smoothing 0 --mix 0.5",
            "With --mask nothing is changed by --label-smoothing, --mix: leave them out",
        ),
        ("--evaluate shapes --data shapes --image-size 32", "as it is: leave out --image-size"),
        ("--evaluate NOWHERE/x --data shapes", "NOWHERE"),
        ("--evaluate x", "Say with --data"),
        ("--dry-run Q/16", "No variant 'Q/16'"),
        ("shapes --dry-run --embed-dim 10", "not a multiple of num_heads"),
    ],
)
def test_a_wrong_option_is_one_sentence(args, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        t.main(args.split())
    said = str(caught.value)
    assert sentence in said and said.startswith("train.py: ") and "\n" not in said


def test_a_run_that_goes_on_is_typed_as_it_was(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(t, "begin", lambda *_: True)
    words = command(pictures, tmp_path, "--network", "conv")  # which has no use for --embed-dim
    (tmp_path / "state.pt").touch()
    t.main(words)
    for more in (["--fresh"], ["--out", str(tmp_path / "new")]):
        with pytest.raises(SystemExit, match="nothing is changed by --embed-dim, --depth, --num-heads"):
            t.main([*words, *more])


def test_stages_that_never_come_are_refused():
    with pytest.raises(ValueError, match="rise between 0 and 1"):
        Options(data="shapes", sizes="32:0.9 48:0.5").check(1)
    Options(data="shapes", sizes="32:0.5 48:1").check(1)


def test_a_dry_run_of_one_block_names_no_others(capsys):
    t.main(["shapes", "--dry-run", "--depth", "1"])
    assert "the same in layers" not in capsys.readouterr().out
    t.main(["shapes", "--dry-run", "--depth", "2"])
    assert "the same in layers 1 to 1" in capsys.readouterr().out


def test_every_number_has_its_range():
    numbers = {f.name for f in fields(Options) if type(f.default) in (int, float)}
    assert numbers == RANGES.keys()


def test_a_run_named_like_a_bundled_checkpoint_is_measured_itself(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(pictures, Path("shapes"), "--epochs", "1")
    assert load(tmp_path / "shapes")[1].class_names == ("dark", "light")


def test_classes_that_differ_between_training_and_test_are_refused(pictures, tmp_path):
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "test" / "dark").rename(copy / "test" / "grey")
    with pytest.raises(SystemExit, match="other classes for training than for testing: dark, grey"):
        run(copy, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoint(pictures, tmp_path, monkeypatch):
    learn = t.learn
    monkeypatch.setattr(t, "learn", lambda *args, **more: learn(*args, **more) * math.nan)
    with pytest.raises(SystemExit, match="The loss stopped being a number before step 1: begin again with"):
        run(pictures, tmp_path / "run")
    assert load(tmp_path / "run")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        t.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in t.RECIPES) and "torchrun" in text and "--label-smoothing" in text


def test_the_help_of_what_was_installed_names_its_own_commands(capsys, monkeypatch):
    import app

    for file, parse, other in (("vit-train", t.parse, "train.py"), ("vit-explorer", app.parse, "app.py")):
        monkeypatch.setattr("sys.argv", [file])
        with pytest.raises(SystemExit):
            parse(["--help"])
        text = capsys.readouterr().out
        assert f"  {file} " in text and other not in text


@pytest.mark.parametrize("more", [[], ["--mask", "0.5", "--mix", "0"]])
def test_what_was_installed_writes_commands_that_are_there(more, pictures, tmp_path, monkeypatch):
    """As a command, and as the module that torchrun takes."""
    where = (t, "__package__", "vit_explorer") if more else (sys, "argv", ["/bin/vit-train"])
    monkeypatch.setattr(*where)
    run(pictures, tmp_path / "run", "--epochs", "1", *more)
    told = (tmp_path / "run" / "README.md").read_text()
    assert "`vit-train --" in told and "train.py" not in told
    assert load(tmp_path / "run")[1].command.startswith("vit-train --data ")


def test_every_recipe_is_sound():
    for recipe in t.RECIPES.values():
        options = Options(**{"data": "x"} | recipe.options)
        options.check(1)
        assert all(type(getattr(options, f.name)) is type(f.default) for f in fields(Options))


def test_a_step_is_decided_by_seed_and_step_alone():
    data = Split(
        torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.arange(32) % 4, tuple("abcd")
    )
    options = Options(image_size=16, batch_size=8, min_area=0.3, mix=0.5, colour=0.3, cutout=0.2)
    schedule = Schedule(options, 32)
    first = t.make_batch(data, 7, schedule, Card("x"))
    torch.rand(100)
    again = t.make_batch(data, 7, schedule, Card("x"))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    other = t.make_batch(data, 7, Schedule(replace(options, seed=1), 32), Card("x"))
    assert not torch.equal(first[0], other[0])
