"""A ViT that learns without labels is given what is not hidden, and no more; the loss is the paper's."""

import pytest
import torch
import torch.nn.functional as F
from conftest import randomised, tiny_config
from tiny_run import command, run, same, weights

import train as t
from vit import ViT, load
from vit.checkpoint import list_snapshots, read_history
from vit.data import Split
from vit.masked import Drawing, Masked, even, patches_of, vit_of
from vit.model import Block
from vit.options import Options
from vit.positions import sincos_pos_embed
from vit.report import nearest_alike
from vit.runs import Team

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def masked() -> Masked:
    return randomised(
        Masked(ViT(tiny_config(image_size=(32, 32), patch_size=8, num_classes=0, num_registers=1)), 0.75)
    )


def test_a_patch_is_its_pixels():
    config = tiny_config(image_size=(16, 24), patch_size=8)
    images = torch.randn(2, 3, 16, 24)
    pieces = F.unfold(images, 8, stride=8).mT  # (B, P, 3 · 8 · 8), channel by channel
    assert torch.equal(patches_of(images, config), pieces)


def test_a_patch_of_a_clip_is_its_pixels_in_every_frame():
    config = tiny_config(image_size=(16, 24), patch_size=8, num_frames=6, tubelet=2)
    clips = torch.randn(2, 6, 3, 16, 24)
    found = patches_of(clips, config)
    assert found.shape == (2, 3 * 2 * 3, 2 * 3 * 64)
    at = config.grid_of(clips.shape).shape  # (t, h, w)
    for time, row, column in ((0, 0, 0), (2, 1, 2), (1, 0, 1)):
        patch = clips[:, 2 * time : 2 * time + 2, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        number = (time * at[1] + row) * at[2] + column
        assert torch.equal(found[:, number], patch.flatten(1))


def test_the_loss_is_that_of_the_hidden_patches_alone(masked):
    """Picture by picture, in the words of the paper: what is seen through the blocks, a token for all others,
    positions, a small decoder, and the square of what it misses by."""
    images = torch.randn(3, 3, 32, 32)
    torch.manual_seed(5)
    found = masked(images)
    torch.manual_seed(5)
    orders = torch.rand(3, 16).argsort(dim=1)
    model, errors = masked.encoder, []
    for image, order in zip(images, orders):
        seen, hidden = order[:4], order[4:]
        tokens = model.embed(image[None])  # (1, 2 + 16, D)
        tokens = torch.cat([tokens[:, :2], tokens[:, 2:][:, seen]], dim=1)
        for block in model.blocks:
            tokens = block(tokens)
        small = masked.narrow(model.norm(tokens))
        patches = masked.unseen.repeat(1, 16, 1)
        patches[:, seen] = small[:, 2:]
        patches = patches + sincos_pos_embed((4, 4), patches.shape[-1])
        x = torch.cat([small[:, :2], patches], dim=1)
        for block in masked.blocks:
            x = block(x)
        drawn = masked.draw(masked.norm(x))[0, 2:]
        wanted = F.unfold(image[None], 8, stride=8).mT[0]  # (P, N)
        wanted = (wanted - wanted.mean(1, keepdim=True)) / (wanted.var(1, keepdim=True) + 1e-6).sqrt()
        errors.append((drawn - wanted)[hidden].square().mean())
    assert found.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_what_is_hidden_is_not_looked_at(masked):
    images, order = torch.randn(1, 3, 32, 32), torch.randperm(16)
    seen, hidden = order[:4], order[4:]
    other = patches_of(images, masked.encoder.config)
    other[:, hidden] = torch.randn_like(other[:, hidden])
    other = F.fold(other.mT, (32, 32), 8, stride=8)
    assert torch.equal(masked.encode(images, seen[None]), masked.encode(other, seen[None]))
    assert not torch.equal(masked.encode(images, hidden[None]), masked.encode(other, hidden[None]))


def test_parts_of_a_batch_hide_what_the_whole_hides(masked):
    masked.requires_grad_(True)
    images, found = torch.randn(4, *masked.encoder.config.input_shape()), []
    for world, accumulate in ((1, 1), (1, 4), (2, 2)):
        masked.zero_grad()
        for rank in range(world):  # processes average their gradients
            torch.manual_seed(0)
            t.learn(masked, images, images, Team(rank, world, accumulate), 0.0, False, Drawing(False))
        found.append(masked.draw.weight.grad / world)
    for parts in found[1:]:
        assert torch.allclose(parts, found[0], atol=1e-6, rtol=1e-4)


def test_who_draws_the_mean_has_a_loss_of_one():
    patches = even(torch.rand(2, 5, 192))
    assert patches.mean(dim=2).abs().max() < 1e-5
    assert patches.square().mean().item() == pytest.approx(191 / 192, abs=1e-3)


def test_nearest_alike_counts_neighbours_but_not_the_picture_itself():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [1.0, 1.1]])
    assert nearest_alike(features, torch.tensor([0, 0, 1, 1, 1])) == 1
    assert nearest_alike(features, torch.tensor([0, 1, 1, 0, 1])) == pytest.approx(0.0)


def test_the_decoder_is_as_wide_as_its_heads_and_positions_need():
    for dim, heads in ((192, 3), (48, 6), (20, 5)):
        small = Masked(ViT(tiny_config(embed_dim=dim, num_heads=heads, num_classes=0)), 0.5)
        width = small.unseen.shape[0]
        assert width % heads == 0 and width % 4 == 0 and dim / 2 <= width <= dim / 2 + 4 * heads
        assert all(isinstance(block, Block) for block in small.blocks)


# A run ------------------------------------------------------------------------------------------------

MASKED = ("--mask", "0.5", "--mix", "0")


def test_a_run_without_labels_goes_on_where_it_stopped_and_is_begun_with(pictures, tmp_path, capsys):
    """What it keeps is a ViT without a head, its curve and moments; killed, it ends with the same weights."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    expected = run(pictures, whole, *MASKED)
    learn, steps = t.learn, 0

    def and_die(*args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt
        return learn(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t, "learn", and_die)
        with pytest.raises(KeyboardInterrupt):
            run(pictures, out, *MASKED)
    assert same(run(pictures, out, *MASKED), expected)
    model, card = load(str(out))
    assert model.config.num_classes == 0 and card.class_names == () and card.accuracy is None
    rows = read_history(out)
    assert "accuracy" not in rows[0] and {"test_loss", "nearest"} <= rows[0].keys()
    assert list_snapshots(out)[0].metrics["nearest"] == rows[0]["nearest"]
    text = (out / "README.md").read_text()
    assert (
        "without labels: 50%" in text and "image-feature-extraction" in text and "Classes: none yet" in text
    )
    assert "most like one of their own class" in capsys.readouterr().out

    then = run(pictures, tmp_path / "then", "--init", str(out), "--epochs", "0.2")
    begun = weights(out)
    name = "blocks.1.mlp.fc1.weight"
    assert then[name].shape == begun[f"encoder.{name}"].shape
    classes = load(str(tmp_path / "then"))[0].config.num_classes
    assert classes == 2


def test_labels_are_not_looked_at(pictures, tmp_path, monkeypatch):
    expected = run(pictures, tmp_path / "a", *MASKED, "--epochs", "1")
    load_split = t.load_split

    def mixed_up(*args, **kwargs) -> Split:
        split = load_split(*args, **kwargs)
        return Split(split.images, split.labels.flip(0), split.class_names, split.content)

    monkeypatch.setattr(t, "load_split", mixed_up)
    assert same(run(pictures, tmp_path / "b", *MASKED, "--epochs", "1"), expected)


@pytest.mark.parametrize("more", ["--network conv", "--teacher somewhere", "--calibrate"])
def test_what_needs_labels_is_refused(more, pictures, tmp_path):
    with pytest.raises(SystemExit, match="--mask learns from no labels: leave out"):
        t.main(command(pictures, tmp_path / "run", *MASKED, *more.split()))


def test_a_model_without_classes_is_not_evaluated(pictures, tmp_path):
    out = tmp_path / "run"
    run(pictures, out, *MASKED, "--epochs", "1")
    with pytest.raises(SystemExit, match="has no classes, so it has no answers: train one with --init"):
        t.main(["--evaluate", str(out), "--data", str(pictures)])


def test_options_for_labels_change_nothing(pictures, tmp_path, monkeypatch):
    assert Options(mask=0.5).mask == 0.5 and vit_of(torch.nn.Linear(1, 1)) is None
    plain = run(pictures, tmp_path / "a", *MASKED, "--epochs", "1")
    mixing = (*MASKED, "--epochs", "1", "--mix", "1")
    with pytest.raises(SystemExit, match="With --mask nothing is changed by --mix: leave it out"):
        run(pictures, tmp_path / "b", *mixing)
    monkeypatch.setattr(t, "refuse_idle", lambda *_: None)  # as where a recipe says it
    assert same(run(pictures, tmp_path / "b", *mixing), plain)


def test_a_run_without_labels_may_begin_with_a_model_that_knows_classes(pictures, tmp_path):
    run(pictures, tmp_path / "first")
    found = run(pictures, tmp_path / "run", *MASKED, "--init", str(tmp_path / "first"))
    assert not [name for name in found if "head" in name]


@pytest.mark.parametrize("pooled", [{"pool": "attention"}, {"pool": "mean", "norm_after_pool": True}])
def test_what_only_an_answer_needs_does_not_learn(pooled):
    """Processes that learn together wait for the gradient of everything that does."""
    masked = Masked(ViT(tiny_config(num_classes=0, **pooled)), 0.5)
    masked(torch.randn(2, 3, 12, 20)).backward()
    assert [name for name, x in masked.named_parameters() if x.requires_grad and x.grad is None] == []
