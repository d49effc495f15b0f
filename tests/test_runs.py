"""A run goes on after any interruption with the same weights, alone or in a team, and keeps its folder."""

import csv
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import count as counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from filelock import FileLock
from tiny_run import command, interrupted, run, same, weights
from torch import nn

import train as t
from vit.card import Card
from vit.checkpoint import list_snapshots, load_snapshot, save, snapshot_files
from vit.data import Split, decode_all
from vit.library import load
from vit.options import Options
from vit.recipes import Recipe
from vit.runs import Run, RunError, Team, are_same, check_folder, tidy
from vit.schedule import Schedule
from vit.teacher import FILE, ConvTeacher, save_teacher

pytestmark = pytest.mark.usefixtures("alone")


# Interruption


def test_two_processes_do_not_train_in_one_folder(pictures, tmp_path):
    out = tmp_path / "tiny"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(SystemExit, match="Another process trains in"):
        t.main(command(pictures, out))
    assert not (out / "state.pt").exists()
    run(pictures, out)  # the lock's file is still there, and nobody holds it


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

    record = Run.record

    def then_killed(*args):
        record(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", then_killed)
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


FORKS = multiprocessing.get_context("forkserver")  # imports torch once, for all processes below


FORKS.set_forkserver_preload(["train", "tests.test_runs"])


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
        assert [*snapshot_files(out)] == [0, 1, 3]
        shutil.copy(finished / "snapshots" / "step_0000012.safetensors", out / "snapshots")
        (out / "snapshots" / "step_0000000.safetensors").write_bytes(b"a damaged one hinders nothing")


def changed(what: str, state: dict) -> object:
    """A state with one fault."""
    name, _, fault = what.partition(" ")
    if what == "a list":
        return [state]
    if fault == "missing":
        return {key: value for key, value in state.items() if key != name}
    if name == "newer":
        return state | {"version": 99}
    if name == "older":
        return state | {"version": 1}
    if what == "options unknown":
        return state | {"options": state["options"] | {"of_tomorrow": 1}}
    if what == "model of another shape":
        return state | {"model": {name: x[..., :1] for name, x in state["model"].items()}}
    if what == "optimizers of another shape":
        for kept in state["optimizers"][0]["state"].values():
            kept["momentum_buffer"] = torch.zeros(2, 2)
        return state
    if what == "optimizers without a part":
        del state["optimizers"][0]["state"][0]["momentum_buffer"]
        return state
    if what == "optimizers of text":
        state["optimizers"][1]["state"][0]["exp_avg"] = "x"
        return state
    faults = {"text": "x", "negative": -1, "numbers": [1.0, 2.0], "rows": [{"step": 0, "loss": "x"}]}
    return state | {name: faults[fault]}


FAULTS = ["a list", "newer", "older", "options unknown", "options missing", "options text", "step missing"]
FAULTS += ["step text", "step negative", "losses numbers", "losses text", "history rows", "history numbers"]
FAULTS += ["model missing", "model of another shape", "ema missing", "optimizers missing", "bf16 text"]
FAULTS += ["optimizers without a part", "optimizers of text"]
FAULTS += [
    "mean text",
    "std numbers",
    "optimizers of another shape",
    "commands numbers",
    "class_names text",
    "minutes text",
]


@pytest.fixture(scope="module")
def begun(finished) -> tuple[dict, Options]:
    state = torch.load(finished / "state.pt", weights_only=True)
    return state, Options(**state["options"] | {"epochs": 6.0})


def unfinished(begun, folder: Path) -> Run:
    """A run of those options that has not yet looked into its folder."""
    state, options = begun
    images = torch.zeros(24, 3, 16, 16, dtype=torch.uint8)
    data = Split(images, torch.arange(24) % 2, ("dark", "light"), state["content"])
    model = t.build_model(options, data.class_names)
    card = Card("x", data.class_names)
    return Run(options, card, data, folder, model, t.make_optimizers(model, options))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_state_is_one_true_sentence(fault, begun, tmp_path):
    torch.save(changed(fault, deepcopy(begun[0])), tmp_path / "state.pt")
    of_versions = {"newer": "of a newer version", "older": "of an older"}
    of_versions["options unknown"] = "with --of-tomorrow"
    expected = of_versions.get(fault, r"state\.pt is damaged: put a copy of it back, or --fresh begins again")
    with pytest.raises(RunError, match=expected) as caught:
        unfinished(begun, tmp_path).load_state(torch.device("cpu"))
    assert "same options" not in str(caught.value)  # which would help nothing


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02cposix\nsystem\n.", b"PK\x03\x04" + bytes(100)])
def test_a_state_that_is_none_is_damaged(content, begun, tmp_path):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        unfinished(begun, tmp_path).load_state(torch.device("cpu"))


def test_a_state_of_which_one_byte_has_changed_is_damaged(begun, tmp_path):
    torch.save(begun[0], tmp_path / "state.pt")
    content = bytearray((tmp_path / "state.pt").read_bytes())
    weights = begun[0]["model"]["head.weight"].numpy().tobytes()
    content[content.index(weights) + 5] ^= 1
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        unfinished(begun, tmp_path).load_state(torch.device("cpu"))


def test_a_sound_state_is_taken_up(begun, tmp_path):
    torch.save(begun[0], tmp_path / "state.pt")
    run = unfinished(begun, tmp_path)
    run.load_state(torch.device("cpu"))
    assert run.step == 12 and torch.equal(run.model.head.weight, begun[0]["model"]["head.weight"])


def test_a_state_of_before_goes_on_without_colours_and_teacher(begun, tmp_path):
    new = ("mean", "std", "teacher")
    torch.save({name: x for name, x in begun[0].items() if name not in new}, tmp_path / "state.pt")
    run = unfinished(begun, tmp_path)
    run.load_state(torch.device("cpu"))
    assert run.step == 12 and run.card.mean == (0.5, 0.5, 0.5)


def test_colours_are_those_that_the_run_began_with(pictures, finished, tmp_path, monkeypatch):
    model, card = load(finished)
    out, words = tmp_path / "run", ("--init", str(tmp_path / "old"), "--epochs", "2")
    save(tmp_path / "old", model, replace(card, mean=(0.4, 0.5, 0.6)))
    whole = run(pictures, tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        run(pictures, out, *words)
    save(tmp_path / "old", model, replace(card, mean=(0.1, 0.1, 0.1)))
    assert same(run(pictures, out, *words), whole) and load(out)[1].mean == (0.4, 0.5, 0.6)


def test_another_teacher_of_the_same_name_is_noticed(pictures, tmp_path, monkeypatch):
    out, words, names = tmp_path / "run", ("--teacher", str(tmp_path), "--epochs", "2"), ("dark", "light")
    save_teacher(tmp_path, first := ConvTeacher(2, 2, 16), names)
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        run(pictures, out, *words)
    save_teacher(tmp_path, ConvTeacher(2, 2, 16), names)
    with pytest.raises(SystemExit, match="has changed since: put the teacher back that it began with"):
        run(pictures, out, *words)
    save_teacher(tmp_path, first, names)
    run(pictures, out, *words)


def test_other_pictures_of_the_same_number_are_noticed(pictures, tmp_path, monkeypatch):
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    file = copy / "train" / "dark" / "0.png"
    whole, other = ((file.parent / f"{i}.png").read_bytes().ljust(2000, b"\0") for i in (0, 1))
    file.write_bytes(whole)
    with monkeypatch.context() as patch:
        interrupted(patch, 1)
        run(copy, tmp_path / "run")
    assert len(whole) == len(other) and whole != other
    file.write_bytes(other)  # under the same name, and as large
    with pytest.raises(SystemExit, match="have changed since: put the pictures back that it began with"):
        run(copy, tmp_path / "run")
    file.write_bytes(whole)  # at another time, which says nothing
    run(copy, tmp_path / "run", "--epochs", "1")


def test_weights_beyond_fp16_are_one_sentence_with_advice(pictures, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("head.weight holds values that are no finite float16: nothing was saved.")

    monkeypatch.setattr("vit.runs.save", refuse)
    with pytest.raises(SystemExit, match=r"grew beyond fp16 before step 0: begin again with --fresh"):
        run(pictures, tmp_path / "run")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_one_sentence(pictures, tmp_path, monkeypatch, error):
    monkeypatch.setattr(t, "learn", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit, match=r"too little memory: cut each step in parts with --accumulate 2"):
        run(pictures, tmp_path / "run")


def test_a_disk_that_fails_is_one_sentence_that_names_the_file(pictures, tmp_path, monkeypatch):
    def fail(path: Path, content: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("vit.runs.write_atomically", fail)
    said = r"^train\.py: .*state\.pt: Input/output error; when that is mended, the same command"
    with pytest.raises(SystemExit, match=said):
        run(pictures, tmp_path / "run")


def test_a_run_whose_folder_was_moved_away_goes_on_in_a_new_one(pictures, finished, tmp_path, monkeypatch):
    learn, out = t.learn, tmp_path / "run"

    def and_move(*args, **options):
        if not (tmp_path / "elsewhere").exists():
            out.rename(tmp_path / "elsewhere")
        return learn(*args, **options)

    monkeypatch.setattr(t, "learn", and_move)
    assert same(run(pictures, out), weights(finished)) and load(out)


def test_ctrl_c_while_pictures_are_read_waits_for_none_of_the_rest():
    read = []

    def pixels(index: int):
        read.append(index)
        time.sleep(0.02)
        if index == 3:
            raise KeyboardInterrupt
        return torch.zeros(3, 4, 4, dtype=torch.uint8), 0

    with pytest.raises(KeyboardInterrupt):
        decode_all(pixels, 500, (3, 4, 4), "train")
    assert len(read) < 100


# Several processes


def rank(rank: int, world: int, port: int, folder: Path, work) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    torch.set_num_threads(1)
    work(rank, world, folder)


def processes(world: int, folder: Path, work, codes: Sequence[int] = ()) -> None:
    """As torchrun starts them, which keeps where they meet for as long as they live."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    team = [FORKS.Process(target=rank, args=(i, world, store.port, folder, work)) for i in range(world)]
    for process in team:
        process.start()
    for process in team:
        process.join(120)
    ended = [process.exitcode for process in team]
    for process in team:
        process.kill()  # one that hangs must not outlive the test
    assert ended == list(codes or [0] * world)


def gradients(rank: int, world: int, folder: Path, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """Of the third step of a run, with everything random in it."""
    options = Options(image_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, batch_size=8)
    options = replace(options, min_area=0.5, mix=1.0, colour=0.3, drop_path=0.5)
    torch.manual_seed(0)
    data = Split(
        torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), torch.arange(32) % 4, tuple("abcd")
    )
    model = t.build_model(options, "abcd")
    with torch.no_grad():
        model.head.weight.normal_(std=0.1)  # a head of zeros gives no gradient to anything else
    net = t.DistributedDataParallel(model) if world > 1 else model
    batch = t.make_batch(data, 2, Schedule(options, 32), Card("x"))
    t.learn(net, *batch, Team(rank, world, accumulate), 0.1, bf16=False)
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


def plain_steps(model: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)]


def half_a_run(rank: int, world: int, folder: Path) -> None:
    t.make_optimizers = plain_steps
    t.main(json.loads((folder / "args.json").read_text()), 0.0)


def test_a_run_of_two_processes_goes_on_with_one(pictures, tmp_path, monkeypatch):
    """Two processes take the same batches and, but for the order of its sums, the same gradients as one.

    So steps that are proportional to the gradient lead to the same weights. Muon and AdamW divide it by its
    own size: where it is almost zero they make a large step of mere rounding, and promise a run as good.
    """
    monkeypatch.setattr(t, "make_optimizers", plain_steps)
    more = [
        "--hold",
        "0.9",
        "--sizes",
        "",
        "--lr",
        "0.1",
    ]  # the first half knows no end
    two, one = tmp_path / "two", tmp_path / "one"
    (tmp_path / "args.json").write_text(json.dumps(command(pictures, two, "--epochs", "2", *more)))
    processes(2, tmp_path, half_a_run)
    t.main(command(pictures, one, "--epochs", "2", *more), 0.0)
    begin = weights(one)["patch_embed.proj.weight"].clone()
    for epochs in (2, 3):
        if epochs == 3:
            for folder in (two, one):
                t.main(command(pictures, folder, "--epochs", "3", *more), 0.0)
                assert torch.load(folder / "state.pt", weights_only=True)["step"] == 9
        ours, theirs = weights(two), weights(one)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.allclose(ours[name], theirs[name], atol=1e-5, rtol=1e-4), name
    assert (weights(one)["patch_embed.proj.weight"] - begin).abs().max() > 1e-3, "it has learned meanwhile"


def a_teacher_first(rank: int, world: int, folder: Path) -> None:
    tiny = dict(network="conv", image_size=16, batch_size=8, epochs=1.0, eval_images=6, precision="fp32")
    t.RECIPES["tiny-teacher"] = Recipe("", tiny)
    t.main(json.loads((folder / "args.json").read_text()), 0.0)


def test_two_processes_train_a_teacher_and_then_the_vit(pictures, tmp_path):
    words = command(pictures, tmp_path / "run", "--teacher", "tiny-teacher", "--epochs", "1")
    (tmp_path / "args.json").write_text(json.dumps(words))
    processes(2, tmp_path, a_teacher_first)
    assert (tmp_path / "run-tiny-teacher" / FILE).is_file() and load(tmp_path / "run")


def until_its_peer_dies(rank: int, world: int, folder: Path) -> None:
    learn, steps = t.learn, counter()

    def and_die(*args, **options):
        if rank == 1 and next(steps) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(*args, **options)

    t.learn = and_die
    try:
        t.main(json.loads((folder / "args.json").read_text()), 0.0)
    except SystemExit as said:
        (folder / "said").write_text(str(said))


def test_a_peer_that_is_killed_ends_the_run_with_one_sentence_and_one_goes_on(pictures, tmp_path):
    (tmp_path / "args.json").write_text(json.dumps(command(pictures, tmp_path / "run", "--epochs", "2")))
    processes(2, tmp_path, until_its_peer_dies, codes=[0, -signal.SIGKILL])
    assert "Another process of this run has ended: the same command" in (tmp_path / "said").read_text()
    run(pictures, tmp_path / "run", "--epochs", "2")


# The folder


def test_no_folder_of_other_files_is_written_into(pictures, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SystemExit, match="holds other files: give --out a folder of its own"):
        run(pictures, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("--data NOWHERE", "There is no folder"),
        ("--num-heads 5", "is not a multiple of"),
        ("--init RUN", "which this run needs: give another --out"),
    ],
)
def test_a_mistake_beside_fresh_does_not_cost_the_run(pictures, finished, tmp_path, mistake, said):
    out = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(SystemExit, match=said):
        run(pictures, out, "--fresh", *mistake.replace("RUN", str(out)).split())
    assert (out / "state.pt").is_file() and (out / "README.md").is_file() and list_snapshots(out)


def test_fresh_leaves_nothing_of_the_run_before_and_takes_nothing_else(pictures, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    (out / "notes.txt").write_text("mine")
    words = f"--data {pictures} --out {out} --fresh --network conv --image-size 16 --batch-size 8 --epochs 1"
    t.main(words.split())
    assert {file.name for file in out.iterdir() if file.is_file()} == {
        *("state.pt", "history.csv", FILE, ".lock", "notes.txt")
    }
    others = shutil.copytree(finished, tmp_path / "others")
    (others / "state.pt").unlink()
    (others / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(SystemExit, match="holds other files: give --out a folder of its own"):
        run(pictures, others, "--fresh")
    assert (others / "model.safetensors").is_file() and (others / "README.md").is_file()


def test_fresh_that_is_killed_between_two_files_leaves_a_run(finished, tmp_path, monkeypatch):
    out, unlink = shutil.copytree(finished, tmp_path / "run"), Path.unlink

    def and_look(path: Path, missing_ok: bool = False) -> None:
        check_folder(out, fresh=True)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", and_look)
    tidy(out, fresh=True)
    check_folder(out, fresh=False)
    assert {file.name for file in out.iterdir()} == {".lock"}


def test_a_state_that_does_not_know_the_pictures_goes_on():
    """As of downloads before their files were looked at, alone and beside others."""
    assert are_same("", "a") and are_same(" b", "a b") and are_same("a b", "a b")
    assert not are_same("b", "a") and not are_same(" b", "a c")


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
    with pytest.raises(SystemExit, match="is damaged: put a copy of it back, or --fresh begins again"):
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


def test_too_few_pictures_other_options_and_a_folder_in_use_are_sentences(pictures, finished, tmp_path):
    with pytest.raises(SystemExit, match="has 24 training pictures: give a smaller --batch-size"):
        run(pictures, tmp_path / "run", "--batch-size", "64")
    with pytest.raises(SystemExit, match=r"holds a run with --lr 0\.002, not 0\.1"):
        run(pictures, finished, "--lr", "0.1")
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "state.pt").unlink()
    with pytest.raises(SystemExit, match="holds a checkpoint, not a run to go on with"):
        run(pictures, copy)


def test_a_finished_run_stays_as_it_is(pictures, finished):
    before = weights(finished)
    assert same(run(pictures, finished), before)
