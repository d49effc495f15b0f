"""Commands about single pictures: from what a model did with one to something to take home."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from explorer import export, films
from explorer.cli.arguments import ask, changed, changed_file, check_memory, need_gradients
from explorer.cli.request import NOTHING, OK, PARTIAL, Asked, Command, Request, Usage
from explorer.cli.sources import (
    answer_of,
    check_endings,
    find_files,
    first_checkpoint,
    model_and_size,
    outputs,
    progress_bar,
    read_image,
    read_or_name,
)
from explorer.cli.words import classes_of
from explorer.forms import Export
from explorer.methods import METHODS
from explorer.record import load_record
from explorer.roles import read_roles
from explorer.subject import Subject, subject_of
from vit.checkpoint import earlier_snapshots, load_snapshot
from vit.clips import MOMENTS, as_clip, preprocess_clip
from vit.library import folder_of
from vit.model import ViT
from vit.trace import trace


def run_on_pictures(request: Request, command: Command) -> int:
    """One command on one picture or many; a picture that cannot be read does not stop the others."""
    assert command.make is not None
    model, card, size = model_and_size(request)
    files = find_files(request.pictures, model.config.is_clip)
    check_endings(request, command, len(files))
    classes = classes_of(request, model, card)
    model, card = classes(None)
    asked = ask(request, model.config, card, size)

    whole = command.name == "html" and model.config.num_classes > 0  # the page explains the answer, too
    explains = whole or any(METHODS[name].class_specific for name in asked.methods)
    failed: list[str] = []
    looked_at: Sequence[tuple[str, Path | None]] = files or [("", None)]
    for name, path in tqdm(looked_at, desc="pictures", disable=len(files) < 2, delay=1):
        read = read_or_name(path or "", partial(read_image, path, model.config, card, size), failed)
        if read is None:
            continue
        name, image = name or read[0], read[1]
        model, card = classes(image)
        target = answer_of(model, image, asked.target) if explains else asked.target
        gradients_of = target if whole or need_gradients(asked.methods) else None
        contrast = asked.contrast if gradients_of is not None else None
        title = name + changed(request)
        subject = subject_of(title, image, model, card, gradients_of, asked.edits, contrast)
        made = command.make(subject, request, replace(asked, target=target))
        saved = [made.save(out) for out in outputs(request, name + changed_file(request), command.endings[0])]
        if asked.edits:
            tqdm.write(f"{name}: {subject_of(name, image, model, card).answers()}")
        tqdm.write(f"{subject.name}: {subject.answers()}")
        for out in saved:
            tqdm.write(f"  {out}")
    return OK if not failed else PARTIAL if len(failed) < len(files) else NOTHING


def run_film(request: Request, command: Command) -> int:
    """Through depth and training one picture at a time; through time also a clip that a model of pictures
    looks at, one frame after the other."""
    if request.through != "time":
        return run_on_pictures(request, command)
    model, card, size = model_and_size(request)
    if model.config.is_clip:
        return run_on_pictures(request, command)
    files = find_files(request.pictures, clips=True)
    if not files:
        raise Usage("Name a clip to play through: an MP4, WebM or GIF, or a folder of its frames.")
    check_endings(request, command, len(files))
    asked = ask(request, model.config, card, size)
    explains = any(METHODS[method].class_specific for method in asked.methods)
    failed: list[str] = []
    for name, path in files:
        clip = read_or_name(path, partial(as_clip, path, MOMENTS), failed)
        if clip is None:
            continue
        images = preprocess_clip(clip, card, size)
        check_memory(model.config, size, len(images))
        target = answer_of(model, images[len(images) // 2], asked.target) if explains else asked.target
        gradients_of = target if need_gradients(asked.methods) else None
        subjects = [subject_of(name, image, model, card, gradients_of) for image in images]
        options = film_options(subjects[0], request, replace(asked, target=target))
        moments = list(zip(clip.times, subjects))
        made = films.followed_film(moments, asked.methods, layer=request.layer, **options)
        for out in outputs(request, name, command.endings[0]):
            tqdm.write(f"{name}: {made.save(out)}")
    return OK if not failed else PARTIAL if len(failed) < len(files) else NOTHING


# ---- what each of them makes -------------------------------------------------------------------------


def make_map(subject: Subject, request: Request, asked: Asked) -> Export:
    return export.maps(
        subject,
        asked.methods,
        query=asked.token,
        layer=request.layer,
        head=request.head,
        target=asked.target,
        contrast=asked.contrast,
        scale=request.scale,
        style=request.style,
        progress=progress_bar(f"{subject.name}: passes"),
    )


def make_grid(subject: Subject, request: Request, asked: Asked) -> Export:
    return export.grid(subject, query=asked.token, scale=request.scale, style=request.style)


def make_matrix(subject: Subject, request: Request, asked: Asked) -> Export:
    layer = -1 if request.layer is None else request.layer
    return export.matrix(subject, layer=layer, head=request.head, style=request.style)


def make_stats(subject: Subject, request: Request, asked: Asked) -> Export:
    return export.figures_of_heads(subject, style=request.style)


def make_ledger(subject: Subject, request: Request, asked: Asked) -> Export:
    return export.ledger(subject, target=asked.target, contrast=asked.contrast, style=request.style)


def make_ablation(subject: Subject, request: Request, asked: Asked) -> Export:
    bar = progress_bar(f"{subject.name}: layers")
    return export.ablation(subject, target=asked.target, style=request.style, progress=bar)


def film_options(subject: Subject, request: Request, asked: Asked) -> dict[str, Any]:
    return {
        "query": asked.token,
        "head": request.head,
        "target": asked.target,
        "style": request.style,
        "fps": request.fps,
        "progress": progress_bar(f"{subject.name}: frames"),
    }


def make_film(subject: Subject, request: Request, asked: Asked) -> Export:
    options = film_options(subject, request, asked)
    if request.through == "time":
        return films.clip_film(subject, asked.methods, layer=request.layer, **options)
    if request.through == "depth":
        return films.film(subject, asked.methods, **options)
    moments = moments_of(subject, request, asked)
    return films.training_film(moments, asked.methods, layer=request.layer, **options)


def moments_of(subject: Subject, request: Request, asked: Asked) -> list[tuple[str, Subject]]:
    """(title, the same picture in front of that snapshot) for every snapshot of the training; in the end the
    model as it is."""
    target = asked.target if need_gradients(asked.methods) else None
    folder = folder_of(request.model or first_checkpoint())
    snapshots = earlier_snapshots(folder) if folder else []
    height, width = subject.trace.image.shape[-2:]
    check_memory(subject.model.config, (height, width), len(snapshots) + 1)
    if not snapshots:
        raise Usage(f"{subject.card.name} kept no snapshots of its training to play through.")

    def moment(title: str, model: ViT) -> tuple[str, Subject]:
        return title, replace(subject, trace=trace(model, subject.trace.image, target=target), model=model)

    moments = []
    for snapshot in snapshots:
        accuracy = snapshot.metrics.get("accuracy")
        words = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
        moments.append(moment(f"training step {snapshot.step:,}{words}", load_snapshot(snapshot.path)[0]))
    return [*moments, moment("as trained", subject.model)]


def make_html(subject: Subject, request: Request, asked: Asked) -> Export:
    folder = folder_of(request.model or first_checkpoint())
    record = load_record(folder, subject.model)
    view: dict[str, Any] = {"roles": read_roles(folder, subject.model)}
    view["believed"] = record.believed if record else ""
    if asked.token is not None:
        view["query"] = asked.token
    if request.layer is not None:
        view["layer"] = request.layer
    if request.head is not None:
        view |= {"head": request.head, "fuse": "one"}
    return export.everything(subject, **view)
