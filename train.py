"""Train a Vision Transformer: from pictures to a checkpoint that the explorer opens. Read me top to bottom.

  python train.py shapes                      three minutes on two CPU cores with AMX
  python train.py moves                       clips: what moves how, through space and time
  python train.py cifar10                     interrupted? the same command resumes where it stopped
  python train.py masked                      no labels: most of a picture is hidden, and drawn
  python train.py photos                      cats, dogs and ten things: first a teacher, then the ViT
  python train.py folder --data PHOTOS --init imagenette        your own classes, in minutes
  python train.py --evaluate cifar10          how often is it right, and where is it wrong?
  python train.py --dry-run B/16              the shapes of all tensors on their way through the model
  torchrun --nproc-per-node=2 train.py cifar10                  the same run on two processes

Everything random in step s follows from (seed, s) alone: a run that was killed at any moment ends, on a
CPU, with the very weights of a run that was not.
"""

import argparse
import math
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms import v2
from tqdm import tqdm

from vit.augment import augment, resize_all
from vit.beginning import SHAPE, beginning, build_model, new_network, with_init
from vit.card import Card
from vit.checkpoint import load_folder, save, snapshot_path, write_atomically
from vit.config import ViTConfig
from vit.console import spell_what_it_can
from vit.data import Split, class_names_of, load_split
from vit.folders import readable
from vit.masked import Drawing, Masked, vit_of
from vit.model import DropPath, ViT
from vit.muon import make_optimizers
from vit.options import AUGMENTATIONS, Options, add_options, flag, is_changed, refuse_idle, spelled
from vit.pictures import normalize
from vit.recipes import RECIPES
from vit.report import Report, evaluate, measured, model_card, predict, scale_of, score
from vit.runs import (
    Run,
    StopSignal,
    Team,
    check_folder,
    claimed,
    in_one_sentence,
    join_team,
    tidy,
    together,
    tune_malloc,
    usable,
)
from vit.schedule import Schedule
from vit.teacher import FILE as TEACHER
from vit.teacher import ConvTeacher, Guide, fingerprint, load_teacher, save_teacher

Lesson = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (network, images, targets) -> the loss


# What is kept of the weights --------------------------------------------------------------------------


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """ema = decay · ema + (1 - decay) · model, with a shorter memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for average, parameter in zip(ema.parameters(), model.parameters()):
        average.lerp_(parameter, 1 - decay)
    for kept, buffer in zip(ema.buffers(), model.buffers()):  # what batch norm has counted
        kept.copy_(kept.lerp(buffer, 1 - decay) if buffer.is_floating_point() else buffer)


# One step ------------------------------------------------------------------------------------------


def seed_step(seed: int, step: int) -> None:
    """From here on, everything random follows from (seed, step)."""
    torch.manual_seed(seed * 1_000_003 + step)


def make_batch(data: Split, step: int, schedule: Schedule, card: Card) -> tuple[Tensor, Tensor]:
    """The global batch of a step: normalised images (B, 3, side, side) and target probabilities (B, K).

    Every process makes it whole, and takes its share: so the batch is the same however many they are.
    """
    options, device, classes = schedule.options, data.images.device, len(data.class_names)
    epoch, batch = divmod(step, schedule.per_epoch)
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data), generator=generator)  # a new order every epoch
    chosen = order[batch * options.batch_size : (batch + 1) * options.batch_size].to(device)
    seed_step(options.seed, step)
    side = schedule.side(step)
    changes = {name: getattr(options, name) for name in AUGMENTATIONS}
    images, labels = augment(data.images[chosen], (side, side), **changes), data.labels[chosen]
    images = normalize(images, card)
    if schedule.mixes(step) and torch.rand(()) < options.mix:
        mix = v2.RandomChoice([v2.MixUp(alpha=0.8, num_classes=classes), v2.CutMix(num_classes=classes)])
        return mix(images, labels)
    return images, F.one_hot(labels, classes).float()


def learn(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    team: Team,
    smoothing: float,
    bf16: bool,
    lesson: Lesson | None = None,
) -> Tensor:
    """Add the gradient of the global batch's mean loss; returns the loss of this process's share.

    lesson: what makes the loss, where it is not the labels alone.
    """
    losses = []
    drawing = [module for module in net.modules() if isinstance(module, DropPath | Masked)]
    for i, (x, y) in enumerate(zip(team.share(images), team.share(targets))):
        if isinstance(net, DistributedDataParallel):  # the processes average their gradients once per step
            net.require_backward_grad_sync = i == team.accumulate - 1
        for module in drawing:  # each part takes its own of what is drawn for the whole batch
            module.part = (team.rank * team.accumulate + i, team.world * team.accumulate)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            if lesson:
                loss = lesson(net, x, y) / team.accumulate
            else:
                with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
                    logits = net(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=smoothing) / team.accumulate
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


# The run ------------------------------------------------------------------------------------------


def begin(
    options: Options, name: str, folder: Path, args: argparse.Namespace, command: str, save_every: float
) -> bool:
    """Load the pictures, take up the run where it stopped, train, measure. Returns whether it is complete."""
    team = team_of(args)
    options.check(team.world * team.accumulate)
    data_name = name_of_data(options.data)
    device = usable(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if team.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder, args.fresh)
    with claimed(folder, team):
        if team.world > 1:
            device = join_team(device)
            if team.rank > 0:
                dist.barrier()  # until the first process has decoded the pictures
        data, test = load_pictures(options)
        if team.rank == 0 and team.world > 1:
            dist.barrier()
        data = replace(data, images=data.images.to(device), labels=data.labels.to(device))
        names = data.class_names
        card = Card(name, () if options.mask else names, image_size=(options.tested_at,) * 2, data=data_name)
        card = replace(card, source="ViT Explorer's train.py")
        if options.init:
            old = beginning(options.init)[1]
            card = replace(card, mean=old.mean, std=old.std)
        seed_step(options.seed, 0)
        model = new_network(options, names).to(device)
        teacher = None
        if options.teacher:
            teacher = load_teacher(teacher_folder(options, folder), names, options.sides).to(device)
        run = Run(options, card, data, folder, model, make_optimizers(model, options))
        run.teacher = fingerprint(teacher)
        if team.rank == 0:  # only now: a mistake in the options has cost nothing
            tidy(folder, args.fresh)
        if team.world > 1:
            dist.barrier()
        run.load_state(device)
        run.follow(command)
        if team.rank == 0:
            run.forget_later_snapshots()
            if run.step:
                print(f"Going on after step {run.step}.")
        with StopSignal() as stop:
            complete = train(run, data, test, team, save_every, stop, teacher)
        if team.rank == 0 and complete:
            finish(run, data, test)
        elif team.rank == 0:
            same = "same command, without --fresh," if args.fresh else "same command"
            print(f"Stopped after step {run.step}; the {same} goes on from there.")
    return complete


def team_of(args: argparse.Namespace) -> Team:
    """The processes that torchrun started, if it did."""
    return Team(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), args.accumulate)


def teacher_folder(options: Options, folder: Path) -> Path:
    """Where a run's teacher is: the folder that was named, or beside the run where it was a recipe."""
    if is_recipe(options.teacher):
        folder = folder if folder.name.strip(".") else folder.resolve()  # "." has a name, too
        return folder.with_name(f"{folder.name}-{options.teacher}")
    return Path(options.teacher)


def is_recipe(teacher: str) -> bool:
    """Whether this names what trains a teacher."""
    return teacher in RECIPES and RECIPES[teacher].options.get("network") == "conv"


def begin_with_teacher(
    options: Options, name: str, folder: Path, args: argparse.Namespace, command: str, save_every: float
) -> None:
    """The run, and before it that of its teacher, where this is a recipe that has not been followed to its
    end. Interrupted, the same command goes on with either."""
    at = teacher_folder(options, folder)
    if is_recipe(options.teacher) and not (at / TEACHER).is_file():
        if folder.is_dir():
            check_folder(folder, args.fresh)  # before a teacher is trained for it
        same = dict(data=options.data, seed=options.seed, patch_size=options.patch_size)
        first, team = Options(**RECIPES[options.teacher].options | same), team_of(args)
        try:
            first.check(team.world * team.accumulate)
        except ValueError as problem:
            advice = "train a teacher that fits with --network conv, and give --teacher its folder."
            what = f"The recipe {options.teacher} does not fit this run ({str(problem).rstrip('.')})"
            raise ValueError(f"{what}: {advice}") from problem
        again = argparse.Namespace(**{**vars(args), "fresh": False})
        if not begin(first, at.name, at, again, command, save_every):
            return
    begin(options, name, folder, args, command, save_every)


def name_of_data(data: str) -> str:
    return readable(Path(os.path.expanduser(data)).resolve().name)


def load_pictures(options: Options) -> tuple[Split, Split]:
    """(training, test) pictures. Raises ValueError where they do not suit each other or this run."""
    side, kept = options.tested_at, options.train_size or options.image_size
    data = load_split(options.data, "train", (kept, kept), seed=options.seed)
    test = load_split(options.data, "test", (side, side), seed=options.seed)
    if test.class_names != data.class_names:
        differ = ", ".join(sorted({*data.class_names} ^ {*test.class_names}))
        raise ValueError(f"{options.data} has other classes for training than for testing: {differ}.")
    frames = data.images.shape[1] if data.images.dim() > 4 else 1
    if options.init and 1 == frames < options.num_frames:
        what = f"{options.init} reads clips of {options.num_frames} frames, and {options.data} holds pictures"
        raise ValueError(f"{what}: begin with another checkpoint.")
    if frames != options.num_frames:
        raise ValueError(f"{options.data} needs --num-frames {frames}, not {options.num_frames}.")
    if len(data) < options.batch_size:
        raise ValueError(f"{options.data} has {len(data)} training pictures: give a smaller --batch-size.")
    return data, test


def train(
    run: Run,
    data: Split,
    test: Split,
    team: Team,
    save_every: float,
    stop: StopSignal,
    teacher: ConvTeacher | None = None,
) -> bool:
    """The loop; the process of rank 0 writes the files. Returns whether the run is complete."""
    options, schedule, leads = run.options, Schedule(run.options, len(data)), team.rank == 0
    if options.compile:
        run.model.compile(dynamic=False)
    net = DistributedDataParallel(run.model) if team.world > 1 else run.model
    lesson: Lesson | None = Drawing(run.bf16) if options.mask else None
    if teacher and isinstance(run.model, ViT):
        lesson = Guide(teacher, run.model, options, run.bf16)
    few, pictures = test.some(options.eval_images), data
    began = time.monotonic()

    def save_state() -> None:
        nonlocal began
        run.minutes, began = run.minutes + (time.monotonic() - began) / 60, time.monotonic()
        run.save_state()

    if leads and run.step == 0:
        save_state()  # so that a run killed in its first minute is known to be a run
    bar = tqdm(
        total=schedule.total * options.batch_size,
        initial=run.step * options.batch_size,
        disable=not leads,
        unit=" images",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )
    while True:
        new = not run.history or run.history[-1]["step"] < run.step
        if leads and new and run.step in schedule.evaluations():
            look_back(run, few, schedule, run.minutes + (time.monotonic() - began) / 60)
        done = run.step >= schedule.total
        asked = team.any(stop.asked, pictures.images.device)
        if leads and (done or asked or time.monotonic() - began > save_every):
            save_state()
        if done or asked:
            bar.close()
            return not asked  # in the last step, too: what follows it is left to the next time

        kept = schedule.kept(run.step, data.images.shape[-1])
        if pictures.images.shape[-1] != kept:
            pictures = replace(data, images=resize_all(data.images, (kept, kept)))
        images, targets = make_batch(pictures, run.step, schedule, run.card)
        run.model.train()
        learned = learn(net, images, targets, team, options.label_smoothing, run.bf16, lesson)
        if leads:
            run.losses.append(learned)
        take_step(run, schedule)
        bar.update(options.batch_size)


def take_step(run: Run, schedule: Schedule) -> None:
    """Change the weights by the gradient that was learned, and their average by the weights."""
    nn.utils.clip_grad_norm_(run.model.parameters(), run.options.clip)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr(run.step)
        optimizer.step()
        optimizer.zero_grad()
    update_ema(run.ema, run.model, run.options.ema, run.step)
    run.step += 1


def look_back(run: Run, few: Split, schedule: Schedule, minutes: float) -> None:
    """How well it does by now: a row of the curve, the weights of now and, if it is time, a snapshot."""
    found = measured(run.ema, few, run.card, run.bf16)
    # of training since the last row; in the first row nothing is learned yet
    loss = torch.stack(run.losses).mean().item() if run.losses else found["test_loss"]
    if not math.isfinite(loss):
        advice = "begin again with --fresh and a smaller --lr."
        raise ValueError(f"The loss stopped being a number before step {run.step}: {advice}")
    row = dict(step=run.step, epoch=run.step / schedule.per_epoch, loss=loss) | found
    row |= dict(lr=schedule.lr(run.step), minutes=minutes)
    row = {name: round(value, 4 if name != "lr" else 8) for name, value in row.items()}
    run.record(row, run.step in schedule.snapshots())
    tqdm.write("  ".join(f"{name} {value:<8g}" for name, value in row.items()))
    run.losses.clear()


CALIBRATED = 2048  # training pictures


@torch.no_grad()
def calibrate(model: ViT, run: Run, data: Split) -> None:
    """Scale the head so that probabilities are as often right as they say: on training pictures cropped and
    coloured as while learning, which are about as hard as new ones. No answer changes."""
    schedule = Schedule(replace(run.options, mix=0.0, sizes=""), len(data))
    logits, labels = [], []
    for step in range(min(schedule.per_epoch, CALIBRATED // run.options.batch_size + 1)):
        images, targets = make_batch(data, step, schedule, run.card)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bf16):
            logits.append(model(images).float())
        labels.append(targets.argmax(dim=1))
    scale = scale_of(torch.cat(logits), torch.cat(labels))
    for name, parameter in model.named_parameters():
        if name.startswith("head"):  # there may be two
            parameter.mul_(scale)


def what_was_found(run: Run, saved: ViT, test: Split) -> tuple[str, str]:
    """(for the terminal, for the README): what was saved, measured on the whole test split; of --mask, with
    what draws, which was not saved. The run's card takes the accuracy."""
    things, options = "clips" if saved.config.is_clip else "pictures", run.options
    bare = len(run.folder.parts) == 1  # which would be the name of a bundled one
    where = f"./{run.folder}" if bare else str(run.folder)
    result = measured(run.ema if isinstance(run.ema, Masked) else saved, test, run.card)
    if "nearest" in result:
        classes = len(test.class_names)
        said = f"{result['nearest']:.2%} of {len(test)} test {things} are most like one of their own class"
        found = f"""- Learned without labels: {options.mask:.0%} of the patches were hidden, and drawn from
  what it made of the others. On the test split they are off by {result["test_loss"]:.3f} (mean squared
  error; 1: whoever draws nothing but the mean of each patch).
- {said}, of {classes}.
- `{as_called("python train.py")} --init {where} ...` begins with it, and learns classes."""
        return said, found
    accuracy = result["accuracy"]
    run.card = replace(run.card, accuracy=round(accuracy, 4))
    again = ["--evaluate", where, "--data", options.data]
    again += ["--seed", str(options.seed)] if options.seed else []
    said = f"{accuracy:.2%} of {len(test)} test {things} right"
    found = f"""- **Accuracy {accuracy:.2%}** on all {len(test)} {things} of the test split: these fp16
  weights, one view of each, in float32. `{as_called("python train.py")} {shlex.join(again)}` repeats it."""
    return said, found


def finish(run: Run, data: Split, test: Split) -> None:
    """Measure what was saved, as it was saved, on the whole test split, and write that on its card."""
    options = run.options
    if isinstance(run.ema, ConvTeacher):
        save_teacher(run.folder, run.ema, run.card.class_names)
        accuracy, _ = score(predict(run.ema, test, run.card), test.labels)
        print(f"{run.folder}: a teacher that has {accuracy:.2%} of {len(test)} test pictures right.")
        return
    model = vit_of(run.ema)
    assert model is not None
    if options.calibrate:
        calibrate(model, run, data)
        # one from before would end the timeline with other probabilities than the model has
        snapshot_path(run.folder, run.step).unlink(missing_ok=True)
    save(run.folder, model, run.card)
    saved = load_folder(run.folder)[0].to(next(run.model.parameters()).device)
    said, found = what_was_found(run, saved, test)
    changed = {name: value for name, value in asdict(options).items() if is_changed(options, name)}
    epochs, seen = run.step * options.batch_size / run.images, min(options.eval_images, len(test))
    how = f"""- {run.step} steps of {options.batch_size}, {epochs:.1f} epochs of {run.images},
  in {run.minutes:.0f} minutes ({"bf16" if run.bf16 else "fp32"}).
- The weights are a moving average over the steps. `history.csv`: the curve, on {seen} of the test split;
  `snapshots/`: the same average at log-spaced moments.

All options: `{shlex.join(spelled(changed))}`"""
    save(run.folder, model, run.card)
    write_atomically(run.folder / "README.md", model_card(run.card, saved, found, how).encode())
    print(f"{run.folder}: {said}. See {run.folder / 'README.md'}")


# The command line ------------------------------------------------------------------------------------


def is_installed() -> bool:
    """Whether this is what `pip install` makes of it: a command, and a module for torchrun."""
    return Path(sys.argv[0]).stem == "vit-train" or __package__ == "vit_explorer"


def as_called(text: str) -> str:
    """Commands as they are typed here."""
    if not is_installed():
        return text
    return text.replace("python train.py", "vit-train").replace("2 train.py", "2 -m vit_explorer.train")


def parse(argv: list[str]) -> argparse.Namespace:
    recipes = "\n".join(f"  {name:<13} {recipe.about}" for name, recipe in RECIPES.items())
    parser = argparse.ArgumentParser(
        "vit-train" if is_installed() else "train.py",
        usage="%(prog)s [RECIPE] [options]",
        description=as_called(__doc__ or ""),
        epilog="recipes:\n" + recipes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", nargs="?", choices=RECIPES, help="a set of options, see below")
    add("--out", type=Path, help="folder of the run (default: runs/ and the recipe or the data's name)")
    add("--fresh", action="store_true", help="forget the run in --out and begin again")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--accumulate", type=int, default=1, help="cut every step in parts: less memory, same step of a ViT")
    add("--evaluate", metavar="CHECKPOINT", help="measure a checkpoint instead")
    about = "print the shapes of all tensors instead: of this run's model, or of B/16, S/16, ..."
    add("--dry-run", metavar="VARIANT", nargs="?", const="", help=about)
    add_options(parser.add_argument_group("options of a run, each in place of the recipe's"))
    return parser.parse_args(argv)


def show_report(report: Report, out: Path, title: str) -> None:
    """How often a checkpoint is right, per class and in all; its confusion matrix as a picture in `out`."""
    card, confusion = report.card, report.confusion
    from explorer import export  # here: training needs no pictures

    drawn = export.confusion(confusion.numpy(), card.class_names, title=title).save(out / "confusion.png")
    for label, count, row in zip(card.class_names, confusion.diagonal(), confusion.sum(dim=1)):
        print(f"{label:<20} {count / row:7.2%} of {row}")
    said = "" if card.accuracy is None else f"; its card says {card.accuracy:.2%}"
    print(f"{'accuracy':<20} {report.accuracy:7.2%} of {confusion.sum()}{said}")
    print(f"{'cross-entropy':<20} {report.loss:7.4f}")
    print(f"{'calibration error':<20} {report.calibration:7.4f}")
    print(f"confusion matrix in {drawn}")


def main(argv: list[str], save_every: float = 60.0) -> None:
    """Do what the command line asks. Raises SystemExit with one sentence where that cannot be done."""
    spell_what_it_can()
    args = parse(argv)
    given = {f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)}
    recipe = RECIPES[args.recipe].options if args.recipe else {}
    options = Options(**recipe | given)
    # a recipe that begins with this very checkpoint has said itself what it changes
    told = recipe | given if options.init and options.init == recipe.get("init") else given
    with in_one_sentence():
        beginning.cache_clear()  # what it named may have changed since
        if args.dry_run is not None:
            if options.network == "conv" or args.evaluate is not None:
                raise ValueError("--dry-run shows a new ViT: leave out --network conv and --evaluate.")
            if args.dry_run and (more := [flag(n) for n in given if n in ("image_size", "init", *SHAPE)]):
                raise ValueError(f"ViT-{args.dry_run} has its own shape: leave out {', '.join(more)}.")
            class_names = class_names_of(options.data) if options.data else [""] * 1000
            variant = ViTConfig.variant(args.dry_run, num_classes=len(class_names)) if args.dry_run else None
            config = (
                variant or build_model(with_init(options, told), () if options.mask else class_names).config
            )
            name = f"ViT-{args.dry_run}" if variant else args.recipe or "this model"
            from explorer.tensors import lines_of, shapes_of  # here: training needs no pictures

            print(*lines_of(name, config, shapes_of(config)), sep="\n")
        elif args.evaluate is not None:
            name = Path(args.evaluate).name
            data = options.data or (RECIPES[name].options.get("data", "") if name in RECIPES else "")
            if not data:
                raise ValueError("Say with --data on which pictures to measure it.")
            if more := [flag(n) for n in given if n not in ("data", "seed") and is_changed(options, n)]:
                raise ValueError(f"--evaluate measures a model as it is: leave out {', '.join(more)}.")
            device = usable(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            report = evaluate(args.evaluate, data, options.seed, device)
            show_report(report, args.out or Path("runs") / f"evaluate-{name}", f"{name} on {data}")
        else:
            words = [*as_called("python train.py").split(), *filter(None, [args.recipe]), *spelled(given)]
            name = args.recipe if args.recipe not in (None, "folder") else name_of_data(options.data)
            folder = args.out or Path("runs") / name
            options, team = with_init(options, told), team_of(args)
            options.check(team.world * team.accumulate)  # before a teacher is trained for it
            if args.fresh or not (folder / "state.pt").is_file():  # what goes on is typed as it was
                refuse_idle(options, given)
            needed = [Path(name).resolve() for name in (options.init, options.teacher) if name]
            if args.fresh and folder.resolve() in needed:
                raise ValueError(f"--fresh would remove {folder}, which this run needs: give another --out.")
            with together(team):
                begin_with_teacher(options, name, folder, args, shlex.join(words), save_every)


def command() -> None:
    """`vit-train`, and `python train.py`."""
    warnings.formatwarning = lambda message, *_: f"train.py: {message}\n"  # for people, not for programmers
    tune_malloc()
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        advice = "the same command, without --fresh, goes on from the last save."
        raise SystemExit(f"train.py: Stopped at once; {advice}") from None


if __name__ == "__main__":
    command()
