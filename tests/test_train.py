"""Training learns, goes on after any interruption with the same weights, and says what is wrong."""

import csv
import errno
import json
import math
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import socket
from dataclasses import replace
from itertools import count as counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from filelock import FileLock
from PIL import Image
from torch import nn

import train as t
from vit.card import Card
from vit.checkpoint import list_snapshots, load_snapshot, save
from vit.data import Split
from vit.library import BUNDLED, load
from vit.report import calibration_error, confusion_matrix, evaluate

TINY = "--image-size 16 --patch-size 8 --embed-dim 16 --depth 2 --num-heads 2 --batch-size 8 --epochs 4"
TINY += " --snapshots 4 --min-area 0.5 --mix 0.5 --colour 0.2 --sizes 8:0.3 --eval-images 6 --precision fp32"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """24 + 12 pictures of two classes that differ in brightness."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name, low in (("dark", 0), ("light", 120)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 130, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path_factory):
    """One thread, so that sums are always taken in the same order; a cache of one's own."""
    monkeypatch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(pictures), "--out", str(out), *TINY.split(), *more]


def run(pictures: Path, out: Path, *more: str, save_every: float = 0.0) -> dict[str, torch.Tensor]:
    t.main(command(pictures, out, *more), save_every)
    return weights(out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    state = torch.load(out / "state.pt", weights_only=True)
    return state["model"] | {f"ema.{name}": x for name, x in state["ema"].items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        torch.set_num_threads(1)
        run(pictures, out)
    return out


# Learning


def test_it_overfits_one_batch():
    torch.manual_seed(0)
    options = t.Options(
        data="x", image_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, batch_size=16
    )
    images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    data = Split(images, torch.arange(16) % 4, tuple("abcd"))
    options = replace(options, epochs=100, flip=False, label_smoothing=0.0)
    schedule, model = t.Schedule(options, len(data)), t.build_model(options, "abcd")
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
    assert torch.allclose(last(image), model(image), atol=0.002)
    model.load_state_dict(torch.load(finished / "state.pt", weights_only=True)["model"])
    assert not torch.allclose(last(image), model(image), atol=0.002), "the average, not the weights of now"


@pytest.mark.parametrize("epochs", [0.01, 0.5, 1, 30, 300])
@pytest.mark.parametrize("images", [128, 1000, 50_000])
def test_the_schedule_is_sound_at_every_length(epochs, images):
    options = t.Options(epochs=epochs, hold=0.3, warmup=1, sizes="24:0.5 32:0.8")
    schedule = t.Schedule(options, images)
    steps = range(schedule.total)
    rates = [schedule.lr(step) for step in (steps if schedule.total < 5000 else range(0, schedule.total, 97))]
    assert all(0 <= rate <= options.lr for rate in rates) and max(rates) > 0.5 * options.lr
    assert (
        schedule.snapshots() <= {*range(schedule.total + 1)} and {0, schedule.total} <= schedule.snapshots()
    )
    assert len(schedule.snapshots()) <= options.snapshots
    assert schedule.side(schedule.total - 1) in ((64,) if schedule.total > 5 else (24, 32, 64))


@pytest.mark.parametrize(
    ("image_size", "whole", "kept"),
    [(64, 64, [24, 64]), (64, 80, [30, 80]), (48, 32, [24, 32])],  # the last: smaller than they are shown
)
def test_pictures_are_kept_as_large_as_a_crop_of_them_needs(image_size, whole, kept):
    schedule = t.Schedule(t.Options(image_size=image_size, sizes="24:0.5"), 1000)
    assert [schedule.kept(step, whole) for step in (0, schedule.total - 1)] == kept


def test_the_learning_rate_warms_up_holds_and_falls():
    schedule = t.Schedule(t.Options(epochs=10, warmup=1, hold=0.5, lr=1.0, batch_size=10), 100)
    rates = [schedule.lr(step) for step in (0, 4, 9, 50, 75, 99)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0.001], abs=1e-3)


def test_the_average_remembers_as_long_as_it_says():
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    t.update_ema(average, model, 0.9, step=10**6)
    assert average.weight.item() == pytest.approx(0.1)


def test_matrices_decay_as_asked():
    model = t.build_model(t.Options(embed_dim=16, depth=2, num_heads=2), "abc")
    muon, adamw = t.make_optimizers(model, t.Options(weight_decay=0.3))
    assert {group["weight_decay"] for group in muon.param_groups} == {0.3}
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.3, 0.0]


@pytest.fixture(scope="module")
def short(pictures, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights after one plain epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        torch.set_num_threads(1)
        return run(pictures, tmp_path_factory.mktemp("short") / "run", "--epochs", "1", "--mix", "0")


CHANGES = "clip 1e-3, label-smoothing 0.3, mix 1, drop-path 0.5, ema 0.01, sizes 16:1, rotation 30"
CHANGES += ", colour 0.9, cutout 0.5, shift 0.4, min-area 0.2, lr 1e-4, weight-decay 0.9, hold 0.9, seed 1"


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
    options = t.Options(image_size=8, batch_size=8, flip=False)
    schedule, card = t.Schedule(options, 24), Card("x", mean=(0.0,) * 3, std=(1.0,) * 3)
    epochs = []
    for epoch in range(2):
        batches = [t.make_batch(data, 3 * epoch + i, schedule, card)[0][:, 0, 0, 0] * 255 for i in range(3)]
        epochs.append(torch.cat(batches).round().int().tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24)) and epochs[0] != epochs[1]


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = t.build_model(t.Options(embed_dim=16, depth=2, num_heads=2), "abc")
    muon, adamw = t.make_optimizers(model, t.Options())
    assert sum(len(group["params"]) for group in muon.param_groups) == 2 * 4
    decayed, free = adamw.param_groups
    assert {tuple(p.shape) for p in decayed["params"]} == {(16, 3, 8, 8), (3, 16)} and free[
        "weight_decay"
    ] == 0
    everything = sum(len(group["params"]) for o in (muon, adamw) for group in o.param_groups)
    assert everything == len(list(model.parameters()))
    assert len(t.make_optimizers(model, t.Options(optimizer="adamw"))) == 1


def test_muon_steps_as_torchs_does_with_q_k_and_v_apart():
    torch.manual_seed(0)
    begin = [torch.randn(48, 16), torch.randn(16, 32), torch.randn(32, 16)]  # q over k over v, wide, tall
    ours = [nn.Parameter(x.clone()) for x in begin]
    apart = [nn.Parameter(x.clone()) for x in (*begin[0].chunk(3), *begin[1:])]
    muon = t.Muon([dict(params=ours[:1], parts=3), dict(params=ours[1:])], lr=0.02, weight_decay=0.05)
    reference = torch.optim.Muon(apart, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradients = [torch.randn_like(x) for x in begin]
        for p, gradient in zip(ours, gradients):
            p.grad = gradient
        for p, gradient in zip(apart, (*gradients[0].chunk(3), *gradients[1:])):
            p.grad = gradient.clone()
        muon.step(), reference.step()
    for mine, theirs, old in zip((*ours[0].chunk(3), *ours[1:]), apart, (*begin[0].chunk(3), *begin[1:])):
        assert (mine - theirs).norm() < 0.01 * (theirs - old).norm()  # bf16 inside, summed in any order


def test_q_k_and_v_are_made_orthogonal_one_by_one():
    model = t.build_model(t.Options(embed_dim=16, depth=1, num_heads=2), "abc")
    muon = t.make_optimizers(model, t.Options())[0]
    parts = {id(p): group["parts"] for group in muon.param_groups for p in group["params"]}
    blocks = {name: p for name, p in model.blocks[0].named_parameters() if id(p) in parts}
    assert {name: parts[id(p)] for name, p in blocks.items()} == {
        "attn.qkv.weight": 3,
        "attn.proj.weight": 1,
        "mlp.fc1.weight": 1,
        "mlp.fc2.weight": 1,
    }


# Interruption


def test_two_processes_do_not_train_in_one_folder(pictures, tmp_path):
    out = tmp_path / "tiny"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(SystemExit, match="Another process trains in"):
        t.main(command(pictures, out))
    assert not (out / "state.pt").exists()
    run(pictures, out)  # the lock's file is still there, and nobody holds it


def interrupted(monkeypatch, at_step: int) -> None:
    """As if Ctrl-C were pressed during that step."""
    learn, count = t.learn, iter(range(10_000))

    def press(*args, **options):
        if next(count) == at_step:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(*args, **options)

    monkeypatch.setattr(t, "learn", press)


def test_after_ctrl_c_the_same_command_goes_on_to_the_same_weights(
    pictures, finished, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        interrupted(patch, 5)
        run(pictures, tmp_path / "run", save_every=60)
    assert "Stopped after step 6" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 6
    assert same(run(pictures, tmp_path / "run"), weights(finished))
    curves = [list(csv.DictReader((out / "history.csv").open())) for out in (tmp_path / "run", finished)]
    assert len({len(curve) for curve in curves}) == 1
    for one, other in zip(*curves):
        assert one | {"minutes": ""} == other | {"minutes": ""}


def test_killed_between_its_first_checkpoint_and_its_first_save_it_goes_on(
    pictures, finished, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    record = t.Run.record

    def then_killed(*args):
        record(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(t.Run, "record", then_killed)
        with pytest.raises(Killed):
            run(pictures, tmp_path / "run")
    assert load(tmp_path / "run")
    assert same(run(pictures, tmp_path / "run"), weights(finished))


def test_a_full_disk_is_one_sentence_and_costs_nothing(pictures, finished, tmp_path, monkeypatch):
    fsync, count = os.fsync, iter(range(10_000))

    def full(descriptor):
        if next(count) >= 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("vit.checkpoint.os.fsync", full)
        with pytest.raises(SystemExit, match=r"The disk is full\. Nothing is lost"):
            run(pictures, tmp_path / "run")
    assert load(tmp_path / "run") and (tmp_path / "run" / "state.pt").is_file()
    assert same(run(pictures, tmp_path / "run"), weights(finished))


def test_a_finished_run_stays_as_it_is(pictures, finished):
    before = weights(finished)
    assert same(run(pictures, finished), before)


FORKS = multiprocessing.get_context("forkserver")  # imports torch once, for all processes below
FORKS.set_forkserver_preload(["train", "tests.test_train"])


def doomed(args: list[str], last_call: int) -> None:
    """Train, and die by kill -9 right before or right after that call of fsync or replace, of every write."""
    torch.set_num_threads(1)
    calls = counter()
    for name in ("fsync", "replace"):
        really = getattr(os, name)

        def call(*given, really=really):
            last = next(calls) == last_call
            if last and last_call % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            really(*given)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, call)
    t.main(args, save_every=0.0)


def test_killed_at_twenty_random_moments_it_ends_with_the_same_weights(pictures, finished, tmp_path):
    """kill -9 while saving: every step is saved here. All that is there is whole, after every kill."""
    out, chance, steps = tmp_path / "run", random.Random(0), set()
    moments = [chance.randrange(24) for _ in range(20)]  # some eleven calls make a step
    for moment in [*moments, 10**9]:
        process = FORKS.Process(target=doomed, args=(command(pictures, out), moment))
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            pytest.fail("a run of twelve steps takes more than two minutes")
        killed = moment < 10**9
        assert process.exitcode == (-signal.SIGKILL if killed else 0), "twenty kills, then the end"
        if (out / "model.safetensors").exists():
            load(out)
        for snapshot in list_snapshots(out):
            load_snapshot(snapshot.path)
        if (out / "state.pt").exists():
            steps.add(torch.load(out / "state.pt", weights_only=True)["step"])
    assert len(steps) > 6, "it was killed at many steps, not always at the first"
    assert same(weights(out), weights(finished))
    assert {file.name for file in out.glob(".*")} == {".lock"}  # nothing half-written lies around


def test_a_card_tells_every_command_that_was_followed_and_no_other(pictures, tmp_path):
    out = tmp_path / "run"
    run(pictures, out)
    first, options = load(out)[1].command, (out / "README.md").read_text()
    run(pictures, out, "--mix", "0.1")  # all is learned: nothing comes of it
    assert load(out)[1].command == first and (out / "README.md").read_text() == options
    run(pictures, out, "--epochs", "5")
    one, two = load(out)[1].command.splitlines()
    assert one == first and "--epochs 5.0" in two and two.endswith("  # from step 12")
    assert f"    {one}\n    {two}\n" in (out / "README.md").read_text()
    with pytest.raises(SystemExit, match="is at epoch 5 already: give more --epochs than that"):
        run(pictures, out, "--epochs", "2")


def test_a_snapshot_of_steps_that_were_lost_is_forgotten(pictures, finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for calls in (5, 1):
        with monkeypatch.context() as patch:
            interrupted(patch, calls)
            run(pictures, out)
        assert [snapshot.step for snapshot in list_snapshots(out)] == [0, 1, 3]
        shutil.copy(finished / "snapshots" / "step_0000012.safetensors", out / "snapshots")


def test_a_state_of_another_version_is_refused(pictures, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    state = torch.load(out / "state.pt", weights_only=True)
    torch.save(state | {"version": 1}, out / "state.pt")
    with pytest.raises(SystemExit, match="holds a run of another version of train"):
        run(pictures, out)


# Several processes


def rank(rank: int, world: int, port: int, folder: Path, work) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(rank, world, folder)


def processes(world: int, folder: Path, work) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # a port that is free now
        port = server.getsockname()[1]
    team = [FORKS.Process(target=rank, args=(i, world, port, folder, work)) for i in range(world)]
    for process in team:
        process.start()
    for process in team:
        process.join(120)
    codes = [process.exitcode for process in team]
    for process in team:
        process.kill()  # one that hangs must not outlive the test
    assert codes == [0] * world


def gradients(rank: int, world: int, folder: Path, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """Of the third step of a run, with everything random in it."""
    options = t.Options(image_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, batch_size=8)
    options = replace(options, min_area=0.5, mix=1.0, colour=0.3)
    torch.manual_seed(0)
    data = Split(
        torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.arange(32) % 4, tuple("abcd")
    )
    model = t.build_model(options, "abcd")
    with torch.no_grad():
        model.head.weight.normal_(std=0.1)  # a head of zeros gives no gradient to anything else
    net = t.DistributedDataParallel(model) if world > 1 else model
    batch = t.make_batch(data, 2, t.Schedule(options, 32), Card("x"))
    t.learn(net, *batch, t.Team(rank, world, accumulate), 0.1, bf16=False)
    return {name: p.grad for name, p in model.named_parameters()}


def save_gradients(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    for accumulate in (1, 2):
        torch.save(gradients(rank, world, folder, accumulate), folder / f"gradients_{rank}_{accumulate}.pt")
    dist.destroy_process_group()


def test_two_processes_make_the_gradients_of_one(tmp_path):
    alone = gradients(0, 1, tmp_path)
    processes(2, tmp_path, save_gradients)
    others = [gradients(0, 1, tmp_path, accumulate=4)]
    others += [torch.load(file, weights_only=True) for file in sorted(tmp_path.glob("gradients_*.pt"))]
    assert len(others) == 5
    for other in others:
        for name, gradient in alone.items():
            assert gradient.abs().max() > 0, name
            assert torch.allclose(other[name], gradient, atol=1e-6, rtol=1e-4), name


def half_a_run(rank: int, world: int, folder: Path) -> None:
    t.main(json.loads((folder / "args.json").read_text()), 0.0)


def test_a_run_of_two_processes_goes_on_with_one(pictures, finished, tmp_path):
    out = tmp_path / "run"
    hold = ["--hold", "0.9"]  # so that the first half does not know how long the whole is
    (tmp_path / "args.json").write_text(
        json.dumps(command(pictures, out, "--epochs", "2", *hold, "--sizes", ""))
    )
    processes(2, tmp_path, half_a_run)
    one = tmp_path / "one"
    t.main(command(pictures, one, "--epochs", "2", *hold, "--sizes", ""), 0.0)
    both = weights(out), weights(one)
    assert all(torch.allclose(both[0][name], both[1][name], atol=1e-4) for name in both[0])
    for folder in (out, one):
        t.main(command(pictures, folder, "--epochs", "3", *hold, "--sizes", ""), 0.0)
        assert torch.load(folder / "state.pt", weights_only=True)["step"] == 9
    both = weights(out), weights(one)
    assert all(torch.allclose(both[0][name], both[1][name], atol=1e-4) for name in both[0])


# Weights of others, other pictures


def test_init_brings_the_weights_to_other_pictures_and_classes(finished, pictures):
    options = t.Options(image_size=32, patch_size=8, init=str(finished))
    old = load(finished)[0]
    grown, pruned = t.build_model(options, ("dark", "light")), t.build_model(options, ("light", "dark"))
    assert grown.config.image_size == (32, 32) and grown.pos_embed.shape == (1, 17, 16)
    assert torch.equal(grown.head.weight, old.head.weight) and pruned.head.weight.abs().max() == 0
    assert torch.equal(grown.blocks[1].mlp.fc1.weight, old.blocks[1].mlp.fc1.weight)
    image = torch.randn(1, 3, 32, 32)
    assert torch.allclose(grown(image), old(image), atol=1e-5)  # the same positions, resampled


def test_fine_tuning_keeps_the_shape_and_the_colours_of_its_beginning(finished, pictures, tmp_path):
    model, card = load(finished)
    save(tmp_path / "old", model, replace(card, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)))
    few = "--image-size 16 --batch-size 8 --epochs 1 --eval-images 6"
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
    assert round(evaluate(str(tmp_path / "run"), str(pictures))[0], 4) == card.accuracy


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
    accuracy, confusion, card = evaluate(name, name)
    assert confusion.diagonal().sum() / confusion.sum() == pytest.approx(accuracy)
    return round(accuracy, 4), card.accuracy


def test_the_bundled_shapes_checkpoint_is_as_good_as_its_card_says():
    accuracy, on_the_card = said_by_evaluate("shapes")
    assert accuracy == on_the_card >= 0.95


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_bundled_checkpoints_are_as_good_as_their_cards_say(name, request):
    request.getfixturevalue(f"{name}_folder")
    accuracy, on_the_card = said_by_evaluate(name)
    assert accuracy == on_the_card


@pytest.mark.parametrize("name", ["shapes", "cifar10", "imagenette"])
def test_bundled_checkpoints_bring_their_training_along(name):
    model, card = load(name)
    snapshots = list_snapshots(BUNDLED / name)
    assert len(snapshots) >= 10 and snapshots[0].step == 0 and card.accuracy is not None
    assert card.command.startswith(f"python train.py {name}") and model.config.grid_size >= (8, 8)
    with (BUNDLED / name / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["step"]) >= snapshots[-1].step  # the last moment may be the weights themselves
    assert max(file.stat().st_size for file in (BUNDLED / name).rglob("*.*")) < 16 * 2**20


def test_confusion_and_calibration_of_known_answers():
    logits = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9]])
    labels = torch.tensor([0, 1, 1, 1])
    assert confusion_matrix(logits, labels).tolist() == [[1, 0], [1, 2]]
    sure = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert calibration_error(sure, labels) == pytest.approx(0.25)  # says 100 %, is right in 75 %
    unsure = torch.full((4, 2), 0.5)
    assert calibration_error(unsure, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.0)


# The command line


def test_dry_run_prints_the_shapes_of_the_real_model(capsys):
    t.main(["folder", "--data", "shapes", "--dry-run", "B/16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "[1, 3, 224, 224] -> [1, 196, 768] -> [1, 197, 768] -> [1, 197, 768] -> [1, 8]"
    assert "attn         [1, 12, 197, 197]" in lines
    t.main(["cifar10", "--dry-run"])
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("[1, 3, 48, 48] -> [1, 144, 192] -> [1, 145, 192]")
    )


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
        ("shapes --init shapes --depth 4", "--depth of shapes is 6: leave the option out"),
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


def test_stages_that_never_come_are_refused():
    with pytest.raises(ValueError, match="rise between 0 and 1"):
        t.Options(data="shapes", sizes="32:0.9 48:0.5").check(1)
    t.Options(data="shapes", sizes="32:0.5 48:1").check(1)


def test_a_dry_run_of_one_block_names_no_others(capsys):
    t.main(["shapes", "--dry-run", "--depth", "1"])
    assert "do the same" not in capsys.readouterr().out
    t.main(["shapes", "--dry-run", "--depth", "2"])
    assert "blocks 1 to 1 do the same" in capsys.readouterr().out


def test_every_number_has_its_range():
    numbers = {f.name for f in t.fields(t.Options) if type(f.default) in (int, float)}
    assert numbers == t.RANGES.keys()


def test_no_folder_of_other_files_is_written_into(pictures, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SystemExit, match="holds other files: give --out a folder of its own"):
        run(pictures, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


def test_a_run_named_like_a_bundled_checkpoint_is_measured_itself(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(pictures, Path("shapes"), "--epochs", "1")
    assert load(tmp_path / "shapes")[1].class_names == ("dark", "light")


def test_classes_that_differ_between_training_and_test_are_refused(pictures, tmp_path):
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "test" / "dark").rename(copy / "test" / "grey")
    with pytest.raises(SystemExit, match="other classes for training than for testing: dark, grey"):
        run(copy, tmp_path / "run")


@pytest.mark.parametrize(
    ("mistake", "said"), [("--data NOWHERE", "There is no folder"), ("--num-heads 5", "is not a multiple of")]
)
def test_a_mistake_beside_fresh_does_not_cost_the_run(pictures, finished, tmp_path, mistake, said):
    out = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(SystemExit, match=said):
        run(pictures, out, "--fresh", *mistake.split())
    assert (out / "state.pt").is_file() and (out / "README.md").is_file() and list_snapshots(out)


def test_a_run_cannot_be_cut_short_where_it_stands(pictures, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted(patch, 5)
        run(pictures, out)
    with pytest.raises(SystemExit, match="is at epoch 2 already: give more --epochs than that"):
        run(pictures, out, "--epochs", "2")


def test_a_run_does_not_go_on_with_other_pictures_or_from_a_damaged_state(pictures, finished, tmp_path):
    out, copy = shutil.copytree(finished, tmp_path / "run"), shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "train" / "dark" / "0.png").unlink()
    state = torch.load(out / "state.pt", weights_only=True)
    state["options"]["data"] = str(copy)
    torch.save(state, out / "state.pt")
    with pytest.raises(SystemExit, match="a run on 24 pictures of 2 classes, which have changed since"):
        run(copy, out)
    whole = (out / "state.pt").read_bytes()
    (out / "state.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match="is damaged: --fresh begins again"):
        run(pictures, out)


def test_leftovers_of_killed_writes_go_and_nothing_else(pictures, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    stay, go = (
        out / ".env.template",
        [out / ".state.pt.0123abcd.part", out / "snapshots" / ".step_0000001.safetensors.0123abcd.part"],
    )
    for file in (stay, *go):
        file.write_text("x")
    run(pictures, out)
    assert stay.exists() and not any(file.exists() for file in go)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoint(pictures, tmp_path, monkeypatch):
    learn = t.learn
    monkeypatch.setattr(t, "learn", lambda *args, **more: learn(*args, **more) * math.nan)
    with pytest.raises(SystemExit, match="The loss stopped being a number before step 1: begin again with"):
        run(pictures, tmp_path / "run")
    assert load(tmp_path / "run")


def test_too_few_pictures_other_options_and_a_folder_in_use_are_sentences(pictures, finished, tmp_path):
    with pytest.raises(SystemExit, match="has 24 training pictures: give a smaller --batch-size"):
        run(pictures, tmp_path / "run", "--batch-size", "64")
    with pytest.raises(SystemExit, match=r"holds a run with --lr 0\.002, not 0\.1"):
        run(pictures, finished, "--lr", "0.1")
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "state.pt").unlink()
    with pytest.raises(SystemExit, match="holds a checkpoint, not a run to go on with"):
        run(pictures, copy)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        t.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in t.RECIPES) and "torchrun" in text and "--label-smoothing" in text


def test_every_recipe_is_sound():
    for recipe in t.RECIPES.values():
        options = t.Options(**{"data": "x"} | recipe.options)
        options.check(1)
        assert all(type(getattr(options, f.name)) is type(f.default) for f in t.fields(t.Options))


def test_a_step_is_decided_by_seed_and_step_alone():
    data = Split(
        torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.arange(32) % 4, tuple("abcd")
    )
    options = t.Options(image_size=16, batch_size=8, min_area=0.3, mix=0.5, colour=0.3, cutout=0.2)
    schedule = t.Schedule(options, 32)
    first = t.make_batch(data, 7, schedule, Card("x"))
    torch.rand(100)
    again = t.make_batch(data, 7, schedule, Card("x"))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    other = t.make_batch(data, 7, t.Schedule(replace(options, seed=1), 32), Card("x"))
    assert not torch.equal(first[0], other[0])
