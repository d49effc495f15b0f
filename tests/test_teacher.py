"""A convolutional teacher learns, is kept, and guides a ViT, all as the formulas say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import randomised, tiny_config
from safetensors.torch import save as serialize
from tiny_run import command, interrupted, run, same, weights

import train as t
from vit import ViT, load, save
from vit.beginning import build_model
from vit.card import Card, CheckpointError
from vit.checkpoint import list_snapshots
from vit.data import find_pictures, load_split
from vit.options import Options
from vit.recipes import Recipe
from vit.teacher import FILE, Conv, ConvTeacher, Guide, distance, load_teacher, save_teacher
from vit.trace import trace

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def teacher() -> ConvTeacher:
    model = ConvTeacher(7, stem=2, side=32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().requires_grad_(False)


def test_a_convolution_kept_as_a_matrix_is_one():
    conv = Conv(3, 5, 3)
    x = torch.randn(2, 3, 8, 8)
    expected = F.conv2d(x, conv.weight.unflatten(1, (3, 3, 3)), padding=1)
    assert torch.equal(conv(x), expected)


def test_a_teachers_answer_is_the_mean_of_what_its_places_say(teacher):
    images = torch.randn(2, 3, 48, 32)
    places = teacher.places(images)
    assert places.shape == (2, 3, 2, 7)  # two patches of 8 px wide
    assert teacher.places(torch.randn(1, 3, 8, 24)).shape == (1, 1, 2, 7)  # a place and a half
    assert (teacher(images) - places.mean(dim=(1, 2))).abs().max() < 1e-5


def test_a_teacher_is_kept_with_its_classes(teacher, tmp_path):
    names = tuple("abcdefg")
    save_teacher(tmp_path, teacher, names)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_teacher(tmp_path, names)(images), teacher(images))
    finer = ConvTeacher(7, stem=1, side=16).eval()
    save_teacher(tmp_path, finer, names)
    small = F.interpolate(images, (16, 16), mode="bilinear", antialias=True)  # what it has learned from
    found = load_teacher(tmp_path, names).places(images)
    assert found.shape == (1, 2, 2, 7) and torch.equal(found, finer.places(small))
    with pytest.raises(CheckpointError, match="knows other classes"):
        load_teacher(tmp_path, tuple("abcdefh"))
    with pytest.raises(CheckpointError, match="holds no teacher"):
        load_teacher(tmp_path / "nowhere", names)
    weights = {"head.weight": torch.zeros(7, 3)}
    about = {"classes": "\n".join(names), "side": "32"}
    for content in (b"no weights", serialize(weights), serialize(weights, about)):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(CheckpointError, match="holds no teacher"):
            load_teacher(tmp_path, names)


def test_the_loss_of_a_guided_vit_is_the_sum_of_its_three_lessons(teacher):
    """Picture by picture and patch by patch, from what a trace shows."""
    config = tiny_config(image_size=(16, 32), num_registers=1)
    model = randomised(ViT(config))
    images, targets = torch.randn(3, 3, 16, 32), torch.rand(3, 7).softmax(dim=1)
    options = Options(teach=0.3, teach_patches=0.7, teach_attention=0.2, label_smoothing=0.1)
    expected = []
    for image, target in zip(images, targets):
        seen = trace(model, image, keep=("attn", "resid_post", "norm"))
        places = teacher.places(image[None])[0].permute(2, 0, 1)  # (K, 1, 2)
        there = F.interpolate(places[None], (4, 8), mode="bilinear")[0].flatten(1).T  # (P, K)
        said = places.mean(dim=(1, 2)).softmax(dim=0)
        wanted = 0.7 * (0.9 * target + 0.1 / 7) + 0.3 * said
        answer = -(wanted * seen.logits.log_softmax(dim=0)).sum()
        lens = model.head(seen.activations["norm"][0, 2:]).log_softmax(dim=1)  # (P, K)
        patches = -(there.softmax(dim=1) * lens).sum(dim=1).mean()
        evidence = there @ target
        where = (evidence - evidence.mean()).clamp(min=0)
        where = where / where.sum()
        away = []
        for attn in seen.attn[-2:, :, 0, 2:]:  # (H, P)
            for row in (attn.mean(dim=0), attn[0], attn[1]):
                row = row / row.sum()
                away.append(sum(w * (w / r).log() for w, r in zip(where, row) if w > 0))
        expected.append(answer + 0.7 * patches + 0.2 * sum(away) / len(away) * (said * target).sum())
    found = Guide(teacher, model, options, bf16=False)(model, images, targets)
    assert abs(found - sum(expected) / 3) < 1e-4
    plain = replace(options, teach=0.0, teach_patches=0.0, teach_attention=0.0)
    found = Guide(teacher, model, plain, bf16=False)(model, images, targets)
    assert abs(found - F.cross_entropy(model(images), targets, label_smoothing=0.1)) < 1e-5


def test_a_distillation_token_has_the_teacher_and_cls_the_labels(teacher):
    model = randomised(ViT(tiny_config(image_size=(16, 32), distillation=True)))
    images, targets = torch.randn(3, 3, 16, 32), torch.rand(3, 7).softmax(dim=1)
    options = Options(teach=0.3, teach_patches=0.0, teach_attention=0.0, label_smoothing=0.1)
    expected = []
    for image, target in zip(images, targets):
        cls, dist = trace(model, image, keep=("norm",)).activations["norm"][0, :2]
        said = teacher(image[None])[0].softmax(dim=0)
        labels = -((0.9 * target + 0.1 / 7) * model.head(cls).log_softmax(dim=0)).sum()
        taught = -(said * model.head_dist(dist).log_softmax(dim=0)).sum()
        expected.append(0.7 * labels + 0.3 * taught)
    found = Guide(teacher, model, options, bf16=False)(model, images, targets)
    assert abs(found - sum(expected) / 3) < 1e-4
    built = build_model(Options(embed_dim=16, depth=1, num_heads=2, image_size=16, distillation=True), "ab")
    assert built.head_dist is not None and built.config.num_prefix_tokens == 2
    with pytest.raises(SystemExit, match="Without --teacher nothing is changed by --distillation"):
        t.main(["cifar10", "--distillation"])
    for teach in ("0", "1"):  # either token would have nothing to learn
        with pytest.raises(SystemExit, match="--teach above 0 and below 1"):
            t.main(["cifar10", "--teacher", "small-teacher", "--distillation", "--teach", teach])
    with pytest.raises(
        SystemExit, match="imagenette has no distillation token: leave out --distillation, or"
    ):
        t.main(["photos", "--distillation"])


def test_attention_on_the_evidence_alone_is_no_distance_away():
    evidence = torch.tensor([[1.0, 3.0, 2.0, 0.0]])  # above its mean: the second and third patch, 3 to 1
    row = torch.tensor([0.0, 0.3, 0.1, 0.0])  # the rest is on [CLS]
    there, elsewhere = row.expand(2, 1, 2, 4), row.roll(1).expand(2, 1, 2, 4)
    assert distance(there, evidence) < 1e-6 < distance(elsewhere, evidence)
    assert distance(there, torch.zeros(1, 4)).isfinite().all()  # a teacher that sees nothing anywhere


def test_one_command_trains_the_teacher_first_and_goes_on_with_either(pictures, tmp_path, monkeypatch):
    """Stopped in the teacher's run and in the ViT's, the same command ends with the same weights."""
    tiny = dict(network="conv", image_size=16, batch_size=8, epochs=2.0, eval_images=6, precision="fp32")
    monkeypatch.setitem(t.RECIPES, "tiny-teacher", Recipe("", tiny))
    words = ("--teacher", "tiny-teacher", "--epochs", "2")
    whole = run(pictures, tmp_path / "whole", *words)
    assert (tmp_path / "whole-tiny-teacher" / FILE).is_file()
    plain = run(pictures, tmp_path / "plain", "--epochs", "2")
    assert whole.keys() == plain.keys() and not same(whole, plain)
    run(pictures, tmp_path / "fine", *words, "--patch-size", "4")
    fine = load_teacher(tmp_path / "fine-tiny-teacher", find_pictures(str(pictures), "train")[1])
    assert (fine.square, fine.side) == (1, 16)
    for patch, why in (("1", "a multiple of 4, not 1"), ("12", "multiples of 12, not 16")):
        own = ("--patch-size", patch, "--image-size", "24", "--sizes", "")
        said = rf"The recipe tiny-teacher does not fit this run \(.*{why}\): train a teacher that fits"
        with pytest.raises(SystemExit, match=said):
            t.main(command(pictures, tmp_path / "odd", *words, *own), 0.0)
    assert not (tmp_path / "odd-tiny-teacher").exists(), "before a teacher is trained"

    learn, steps = t.learn, 0

    def once_in_each_run(*args, **more):
        nonlocal steps
        steps += 1
        if steps in (3, 9):
            raise KeyboardInterrupt
        return learn(*args, **more)

    monkeypatch.setattr(t, "learn", once_in_each_run)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            t.main(command(pictures, tmp_path / "again", *words), 0.0)
    t.main(command(pictures, tmp_path / "again", *words), 0.0)
    assert same(weights(tmp_path / "again"), whole)
    assert same(weights(tmp_path / "again-tiny-teacher"), weights(tmp_path / "whole-tiny-teacher"))


def test_ctrl_c_in_the_last_step_of_the_teacher_begins_no_vit(pictures, tmp_path, monkeypatch, capsys):
    tiny = dict(network="conv", image_size=16, batch_size=8, epochs=1.0, eval_images=6, precision="fp32")
    monkeypatch.setitem(t.RECIPES, "tiny-teacher", Recipe("", tiny))
    words = command(pictures, tmp_path / "run", "--teacher", "tiny-teacher", "--epochs", "1")
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        t.main(words)
    assert "Stopped after step 3; the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    t.main(words)
    assert (tmp_path / "run-tiny-teacher" / FILE).is_file() and load(tmp_path / "run")


def test_the_teacher_of_a_run_right_here_is_beside_it(pictures, tmp_path, monkeypatch):
    for here in ("empty", "full"):
        (tmp_path / here).mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    options = Options(teacher="teacher")
    monkeypatch.chdir(tmp_path / "empty")
    assert t.teacher_folder(options, Path(".")) == tmp_path / "empty-teacher"
    assert t.teacher_folder(options, Path("runs/photos")) == Path("runs/photos-teacher")
    monkeypatch.chdir(tmp_path / "full")
    with pytest.raises(SystemExit, match=r"\. holds other files: give --out a folder of its own"):
        t.main(command(pictures, Path("."), "--teacher", "teacher"))
    assert not (tmp_path / "full-teacher").exists(), "before a teacher is trained"


def test_a_teacher_that_is_not_there_or_does_not_fit_is_one_sentence(pictures, tmp_path):
    beside = tmp_path / "teacher"
    beside.mkdir()
    names = find_pictures(str(pictures), "train")[1]
    save_teacher(beside, ConvTeacher(len(names), stem=4, side=32), names)
    for words, sentence in (
        (("--teacher", str(tmp_path)), "holds no teacher: train one with --network conv first"),
        (("--teacher", "x", "--network", "conv"), "leave out --init and --teacher"),
        (
            ("--network", "conv", "--sizes", "", "--image-size", "18", "--patch-size", "3"),
            "--patch-size a multiple of 4, not 3",
        ),
        (("--teacher", str(beside), "--image-size", "18", "--patch-size", "2"), "multiples of 4"),
        (("--teacher", str(beside), "--num-frames", "4"), "are for pictures: leave them out for clips"),
        (("--network", "conv", "--num-frames", "4"), "are for pictures: leave them out for clips"),
        (("--teacher", "teacher", "--num-frames", "4"), "are for pictures: leave them out for clips"),
        (("--network", "conv", "--dry-run"), "shows a new ViT: leave out --network conv"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            t.main(command(pictures, tmp_path / "run", *words))


def test_heads_may_be_cut_finer_and_known_classes_keep_their_head(tmp_path):
    old = randomised(ViT(tiny_config(image_size=(16, 16), patch_size=8, num_classes=3)))
    save(tmp_path / "old", old, Card("old", ("cat", "dog", "frog")))
    init = dict(data="x", image_size=16, init=str(tmp_path / "old"))
    given = dict(num_heads=8)
    options = t.with_init(Options(**init, **given), given)
    new = t.build_model(options, ("ant", "dog", "cat"))
    assert new.config.num_heads == 8
    assert torch.equal(new.blocks[1].attn.qkv.weight, load(tmp_path / "old")[0].blocks[1].attn.qkv.weight)
    head = load(tmp_path / "old")[0].head
    assert torch.equal(new.head.weight[1:], head.weight[[1, 0]]) and not new.head.weight[0].any()
    assert torch.equal(new.head.bias[1:], head.bias[[1, 0]]) and new.head.bias[0] == 0
    with pytest.raises(ValueError, match="is 4: leave the option out"):
        t.with_init(Options(**init, num_heads=6), dict(num_heads=6))


@pytest.mark.parametrize("changes", [dict(rel_pos=True), dict(rope="axial"), dict(qk_norm=True)])
def test_heads_that_know_places_or_norms_of_their_own_are_not_cut(changes, tmp_path):
    save(tmp_path / "old", ViT(tiny_config(**changes)), Card("old"))
    options = Options(data="x", image_size=16, init=str(tmp_path / "old"), num_heads=8)
    with pytest.raises(ValueError, match="is 4: leave the option out"):
        t.with_init(options, dict(num_heads=8))


@pytest.mark.parametrize(
    "changes",
    [
        dict(rel_pos=True, pos_embed="none"),
        dict(pos_square=6, pos_embed_prefix=False),
        dict(rope="mixed", pos_embed="none"),
    ],
    ids=["BEiT", "RADIO", "RoPE"],
)
def test_a_beginning_answers_for_another_size_as_it_did(changes, tmp_path):
    """At another size than its own, what it was and what begins with it say the same."""
    old = randomised(ViT(tiny_config(image_size=(16, 16), num_classes=3, **changes)), 0.1)
    save(tmp_path / "old", old, Card("old", tuple("abc")))
    options = Options(data="x", image_size=24, init=str(tmp_path / "old"))
    new = t.build_model(t.with_init(options, {}), tuple("abc")).eval()
    images = torch.randn(2, 3, 24, 24)
    assert new.config.image_size == (24, 24)
    torch.testing.assert_close(new(images), load(tmp_path / "old")[0](images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [dict(class_token=False, pool="mean"), dict(norm_after_pool=True)])
def test_what_has_no_class_token_that_answers_is_not_taught(changes, tmp_path):
    save(tmp_path / "old", ViT(tiny_config(**changes)), Card("old"))
    options = Options(data="x", image_size=16, init=str(tmp_path / "old"), teacher="teacher")
    with pytest.raises(ValueError, match="no class token to be taught"):
        t.with_init(options, {})


def test_photos_are_cats_dogs_and_imagenette(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_DATA", str(tmp_path))
    for data, folders in (("catsdogs", ("cat", "dog")), ("imagenette", ("n01440764", "n02102040"))):
        for split in ("train", "test"):
            (tmp_path / data / split).mkdir(parents=True)
            for name, other in zip(folders, ("dark", "light")):
                (tmp_path / data / split / name).symlink_to(pictures / split / other)
    found, names = find_pictures("photos", "train")
    assert len(found) == 48 and names == ("cat", "dog", "tench", "English springer")
    assert [found[i][1] for i in (0, 12, 24, 47)] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        found[48]
    split, half = load_split("photos", "train", (8, 8)), load_split("imagenette", "train", (8, 8))
    assert split.labels.unique().tolist() == [0, 1, 2, 3] and split.class_names == names
    assert torch.equal(split.images[24:], half.images) and torch.equal(split.labels[24:], half.labels + 2)


def test_crops_are_as_long_as_they_may_be():
    """Of a picture that brightens from left to right, a narrow crop shows a narrow range."""
    ramp = torch.linspace(0, 255, 64).round().byte().expand(512, 3, 64, 64)
    spans = {}
    for aspect in (1.0, 1.8):
        torch.manual_seed(0)
        seen = t.augment(ramp, (16, 16), min_area=0.3, aspect=aspect, flip=False)
        spans[aspect] = seen[:, 0, 8, -1] - seen[:, 0, 8, 0]
    assert spans[1.8].min() < 0.8 * spans[1.0].min() and spans[1.8].max() > 0.9


def test_in_the_end_probabilities_are_scaled_and_no_answer_changes(pictures, tmp_path):
    plain = run(pictures, tmp_path / "plain", "--epochs", "2")
    assert same(plain, run(pictures, tmp_path / "scaled", "--epochs", "2", "--calibrate"))
    old, new = load(tmp_path / "plain")[0].head, load(tmp_path / "scaled")[0].head
    scale = (new.weight.norm() / old.weight.norm()).item()
    assert scale > 1.1 and torch.allclose(new.weight, old.weight * scale, atol=2e-3)
    run(pictures, tmp_path / "scaled", "--epochs", "2", "--calibrate")  # complete already: not scaled twice
    again = load(tmp_path / "scaled")[0].head
    assert torch.equal(again.weight, new.weight)
    last = [list_snapshots(tmp_path / name)[-1].step for name in ("plain", "scaled")]
    assert last[1] < last[0], "the timeline ends with the scaled weights, not with a moment before"
