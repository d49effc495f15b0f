"""The recipe for photographs in ten minutes of one GPU, in three commands.

  python benchmarks/gpu.py pack photos.zip      here: shrunk pictures, one file that travels
  python benchmarks/gpu.py train photos.zip     there: a teacher, then a larger ViT, for --minutes
  python train.py --evaluate runs/photos-gpu --data photos       how good it is

The folder checkpoints/ may stay at home: the ViT begins from nothing. Everything is the code of train.py:
what differs is that the pictures lie on the GPU, steps are compiled and larger, nothing is cheaper for being
smaller (so there is one picture size, compiled once), and the number of epochs follows from a measurement:
as many as fit. Run again, `train` goes on where it was stopped.
"""

import argparse
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import train
from vit.card import Card
from vit.checkpoint import write_atomically
from vit.data import PHOTOS, Split, local_folder
from vit.folders import Folder, readable
from vit.options import OF_A_VIT, TAUGHT, Options, spelled
from vit.pictures import PictureError, open_picture
from vit.runs import Team, usable
from vit.schedule import Schedule
from vit.teacher import ConvTeacher, Guide

SIDE, QUALITY = 112, 60  # of a shrunk picture: its longer side in pixels, and WebP's quality
LIMIT = 56 * 2**20  # bytes of the pack: with the code, which needs no checkpoint, it stays below 64 MiB
SHARE = 0.12  # of the minutes, for the teacher
PHOTO = dict(data="photos", image_size=128, train_size=136, compile=True, eval_images=1000, min_area=0.3)
PHOTO |= dict(aspect=1.8, colour=0.3, rotation=8.0)
TEACHER = PHOTO | dict(network="conv", batch_size=256, lr=3e-3, warmup=2.0, hold=0.2, mix=0.5)
VIT = PHOTO | dict(patch_size=8, embed_dim=256, depth=9, num_heads=8, drop_path=0.1, batch_size=256)
VIT |= dict(lr=2e-3, warmup=5.0, hold=0.2, mix=0.7, weight_decay=0.1, ema=0.999)


def pack(to: Path, side: int = SIDE) -> int:
    """Every picture of the photos, shrunk, in one file; returns its size. Raises ValueError above LIMIT, and
    where a picture cannot be read."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed, ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, split in product(PHOTOS, ("train", "test")):
            folder = Folder(local_folder(name), split)
            for file, data in zip(folder.files, pool.map(partial(shrunk, side=side), folder.files)):
                inside = Path(name, split, file.relative_to(folder.root)).with_suffix(".webp")
                packed.writestr(inside.as_posix(), data)
    size = len(content.getbuffer())
    if size > LIMIT:
        most = f"{LIMIT / 2**20:.0f} MiB"
        raise ValueError(f"{to} has {size / 2**20:.1f} MiB, more than {most}: give a smaller --side.")
    write_atomically(to, content.getvalue())
    return size


def shrunk(file: Path, side: int) -> bytes:
    try:
        picture = open_picture(file)
    except PictureError as error:
        raise ValueError(f"{readable(str(file))}: {error}") from error
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    kept = io.BytesIO()
    picture.save(kept, "WebP", quality=QUALITY)
    return kept.getvalue()


def seconds_per_step(options: Options, classes: int, device: torch.device, steps: int) -> float:
    """How long a step takes once it is compiled, on pictures that are noise."""
    noise = torch.randint(0, 256, (options.batch_size, 3, *(options.train_size,) * 2), dtype=torch.uint8)
    names = tuple(map(str, range(classes)))
    data = Split(noise.to(device), (torch.arange(options.batch_size) % classes).to(device), names)
    guide, bf16 = None, device.type == "cuda"
    teacher = ConvTeacher(classes, options.stem, options.image_size)
    model: nn.Module = teacher
    if options.network == "vit":
        model = train.build_model(options, names)
        guide = Guide(teacher.eval().requires_grad_(False).to(device), model, options, bf16)
    model = model.to(device).train()
    if options.compile:
        model.compile(dynamic=False)
    optimizers, schedule, began = train.make_optimizers(model, options), Schedule(options, len(data)), 0.0
    for step in range(2 * steps):  # the first half to compile and to warm up
        if step == steps:
            began = clock(device)
        batch = train.make_batch(data, step, schedule, Card("noise"))
        train.learn(model, *batch, Team(), options.label_smoothing, bf16, guide)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return (clock(device) - began) / steps


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def runs(minutes: float, device: torch.device, small: dict[str, object], images: int) -> Iterator[Options]:
    """The teacher and the ViT, each with as many epochs as fit in its share. small: options in place of
    these, for a try on a CPU."""
    plain = {name: value for name, value in small.items() if name not in (*OF_A_VIT, *TAUGHT)}
    guided = VIT | dict(teacher="runs/photos-gpu-teacher") | small
    for options, share in ((TEACHER | plain, SHARE), (guided, 1 - SHARE)):
        one = Options(**options | {"epochs": 1.0})
        step = seconds_per_step(one, 12, device, steps=2 if small else 20)
        epochs = 0.9 * share * minutes * 60 / (step * (images // one.batch_size))
        print(
            f"{one.network}: {1000 * step:.1f} ms a step of {one.batch_size}: {epochs:.1f} epochs fit",
            flush=True,
        )
        yield Options(**options | {"epochs": max(0.01, round(epochs, 2))})


def learn(packed: Path, minutes: float, device: torch.device, small: dict[str, object], out: Path) -> None:
    """Unpack, measure once, train both. The lengths are kept beside the runs, so that a second call of the
    same command goes on with them."""
    pictures = out.parent / "photos-packed"
    if not pictures.is_dir():
        part = pictures.with_suffix(".part")  # until all of them are there
        with zipfile.ZipFile(packed) as file:
            file.extractall(part)
        part.rename(pictures)
    os.environ["VIT_DATA"] = str(pictures.resolve())
    images = sum(len(Folder(local_folder(name), "train")) for name in PHOTOS)
    plan = out.parent / "photos-gpu.json"
    if not plan.is_file():
        planned = [spelled(vars(options)) for options in runs(minutes, device, small, images)]
        plan.write_text(json.dumps(planned))
    teacher = out.with_name(f"{out.name}-teacher")
    first, second = json.loads(plan.read_text())
    second[second.index("--teacher") + 1] = str(teacher)
    for words, folder in ((first, teacher), (second, out)):
        began = time.monotonic()
        train.main([*without_empty(words), "--out", str(folder), "--device", device.type])
        print(f"{folder}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)


def without_empty(words: list[str]) -> list[str]:
    """Options that say nothing cannot be typed."""
    pairs = zip(words, [*words[1:], "-"])
    empty = {name for name, value in pairs if name.startswith("--") and value == ""}
    return [word for word in words if word and word not in empty]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("pack", "train"))
    parser.add_argument("packed", type=Path, help="the file of shrunk pictures")
    parser.add_argument("--side", type=int, default=SIDE, help="longer side of a shrunk picture")
    parser.add_argument("--minutes", type=float, default=9.0, help="for both runs (default 9)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/photos-gpu"))
    parser.add_argument("--small", type=json.loads, default={}, help="to try it: '{\"embed_dim\": 16, ...}'")
    args = parser.parse_args(argv)
    try:
        if args.command == "pack":
            print(f"{args.packed}: {pack(args.packed, args.side) / 2**20:.1f} MiB")
        else:
            learn(args.packed, args.minutes, usable(args.device), args.small, args.out)
    except (ValueError, OSError) as problem:
        raise SystemExit(f"gpu.py: {problem}") from problem


if __name__ == "__main__":
    main(sys.argv[1:])
