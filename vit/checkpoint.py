"""Checkpoints: folders that explain themselves, of safetensors and JSON alone. Loading runs no code.

checkpoints/NAME/model.safetensors   weights (fp16 by default)
                 config.json         ViTConfig, class names, preprocessing, command, measured accuracy
                 README.md           the model card, as the Hugging Face Hub shows it
                 history.csv         one row per evaluation of the training run
                 snapshots/          step_*.safetensors: the weights as they were during training (see codec)
"""

import csv
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from vit import codec
from vit.card import FORMAT, VERSION, Card, CheckpointError, fits, parse_config, told
from vit.config import ViTConfig
from vit.model import ViT

WEIGHTS = "model.safetensors"
CONFIG, NEXT_CONFIG = "config.json", "config.next.json"  # the second until the weights it describes are there
PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npz", ".h5"}
POINTER = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched
MAX_BYTES = 8 * 2**30  # of one model's weights: the largest plain ViTs have 1 to 2 billion parameters
WIDTH = ".width"  # after the name of a tensor that is coded: how wide the steps of its rows are
MAX_HEADER = 8 * 2**20  # bytes of a safetensors header; a thousand tensors need a tenth of one megabyte
MAX_JSON = 16 * 2**20  # bytes of a config, or of the index of a large model
TICK = 2 * 10**9  # nanoseconds between the times that a file system can tell apart, at most
Edition = tuple[Path, int, int, int]  # see `edition`
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}  # 4 and 8 bit need scales beside them


@dataclass(frozen=True)
class Snapshot:
    """The weights at one moment of training."""

    path: Path
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # epoch, accuracy, loss ... at that moment


def save(folder: str | Path, model: ViT, card: Card, *, dtype: torch.dtype = torch.float16) -> None:
    """Write model.safetensors and config.json; a crash at any moment leaves the old pair or the new one.

    The two carry the same random id. The new config is complete on disk before the weights are
    swapped, so whichever weights `load` finds, it also finds the config that belongs to them.
    dtype: float16 rounds weights to eleven bits; float32 keeps them as they are. Raises ValueError, and
    writes nothing, for weights that are no finite numbers of that kind.
    """
    folder = Path(folder)
    weights = {name: x.detach().to("cpu", dtype).contiguous() for name, x in model.state_dict().items()}
    for name, x in weights.items():
        if not torch.isfinite(x).all():
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(f"{name} holds values that are no finite {kind}: nothing was saved.")
    folder.mkdir(parents=True, exist_ok=True)
    save_id = secrets.token_hex(8)
    about = {"format": FORMAT, "version": VERSION, "save_id": save_id}
    config = about | {"model": asdict(model.config)} | asdict(card)
    write_atomically(folder / NEXT_CONFIG, (json.dumps(config, indent=1) + "\n").encode())
    write_atomically(folder / WEIGHTS, serialize(weights, {"format": "pt", "save_id": save_id}))
    os.replace(folder / NEXT_CONFIG, folder / CONFIG)


def load_folder(folder: Path, max_bytes: int = MAX_BYTES) -> tuple[ViT, Card]:
    """A checkpoint in our own layout. Raises CheckpointError, naming the file and the field."""
    model, card, _ = load_pair(folder, max_bytes)
    return model, card


def load_pair(folder: Path, max_bytes: int = MAX_BYTES) -> tuple[ViT, Card, Path]:
    """`load_folder`, and which file its config is. Raises CheckpointError."""
    file, path, pending = (folder / name for name in (WEIGHTS, CONFIG, NEXT_CONFIG))
    for _ in range(3):  # a run may save between two of these reads: then they are done again
        tensors, metadata = read_tensors(file, max_bytes)
        with suppress(CheckpointError):  # of a save that was cut short right after its weights
            config, source = read_json(pending), pending
            if config.get("save_id") == metadata.get("save_id"):
                break
        config, source = read_json(path), path
        if config.get("save_id") == metadata.get("save_id"):
            break
    else:
        if None not in (config.get("save_id"), metadata.get("save_id")):  # written by other tools: without
            raise CheckpointError(
                f"{told(path)} and {file.name} are of two saves: copy both from the same folder."
            )
    model_config, card = parse_config(config, source)
    return build(model_config, tensors, told(file)), card, source


def save_snapshot(
    folder: str | Path, model: ViT, card: Card, step: int, metrics: Mapping[str, float]
) -> Path:
    """Keep the weights of this moment under snapshots/, as what they moved since the moment before.

    What it is the difference to is never written again before this one: a run that goes on from an earlier
    step removes the later ones first.
    """
    path = snapshot_path(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "version": VERSION, "model": asdict(model.config)} | asdict(card)
    config = {"config": json.dumps(about), "step": str(step), "metrics": json.dumps(dict(metrics))}
    before: dict[str, Tensor] = {}
    earlier = [file for at, file in snapshot_files(folder).items() if at < step]
    with suppress(CheckpointError):  # damaged: this one then stands for itself
        if earlier:
            base = decoded(earlier[-1], MAX_BYTES)
            before = base.weights
            config |= {"base": earlier[-1].name, "base_digest": base.digest}
    tensors = {}
    for name, x in model.state_dict().items():
        if x.ndim >= 2:
            tensors[name], tensors[name + WIDTH] = codec.encode(x, of_shape(before.get(name), x.shape))
        else:
            tensors[name] = x.detach().to("cpu", torch.float16).contiguous()
    write_atomically(path, serialize(tensors, config))
    return path


def snapshot_path(folder: str | Path, step: int) -> Path:
    """Where the snapshot of a step lies, if it was kept."""
    return Path(folder) / "snapshots" / f"step_{step:07d}.safetensors"


def snapshot_step(path: Path) -> int | None:
    """The step of a snapshot by the name of its file; None if it is none."""
    match = re.fullmatch(r"step_(\d{7,})\.safetensors", path.name)
    return int(match[1]) if match else None


def snapshot_files(folder: str | Path) -> dict[int, Path]:
    """Step -> the file of its snapshot, in training order, by their names: none is opened."""
    files = {snapshot_step(path): path for path in Path(folder).glob("snapshots/step_*.safetensors")}
    return {step: files[step] for step in sorted(step for step in files if step is not None)}


def list_snapshots(folder: str | Path, damaged: list[str] | None = None) -> list[Snapshot]:
    """The snapshots of a checkpoint or of a run that is still going, in training order.

    damaged: takes a sentence for each that cannot be read; without it the first such raises CheckpointError.
    """
    snapshots = []
    for path in sorted(Path(folder).glob("snapshots/step_*.safetensors")):
        try:
            snapshots.append(describe_snapshot(path))
        except CheckpointError as error:
            if damaged is None:
                raise
            damaged.append(str(error))
    return snapshots


def earlier_snapshots(folder: str | Path) -> list[Snapshot]:
    """`earlier` of what a checkpoint keeps. Raises CheckpointError."""
    return earlier(list_snapshots(folder), read_history(folder))


def earlier(snapshots: list[Snapshot], history: list[dict[str, float]]) -> list[Snapshot]:
    """Without the last one, where the last row of the history is of the same moment: the checkpoint itself
    holds those weights, and holds them finer."""
    same = snapshots and history and history[-1].get("step") == snapshots[-1].step
    return snapshots[:-1] if same else snapshots


def describe_snapshot(path: Path) -> Snapshot:
    """When it was taken and what was measured then. Raises CheckpointError."""
    about = read_header(path)
    try:
        step, text = int(about["step"]), about["metrics"]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{told(path)} does not say when it was taken: it is no snapshot.") from error
    metrics = parse_json(text, f"The metrics in {told(path)}")
    if not all(fits(x, float) for x in metrics.values()):
        raise CheckpointError(f"The metrics in {told(path)} must be numbers: remove this snapshot.")
    return Snapshot(path, step, metrics)


def load_snapshot(path: str | Path, max_bytes: int = MAX_BYTES) -> tuple[ViT, Card]:
    """The model as it was at one moment of training. Raises CheckpointError."""
    path = Path(path)
    then = decoded(path, max_bytes)
    check_shapes((x.shape for x in then.weights.values()), told(path), max_bytes)  # it may be at hand
    return build(then.config, {name: x.clone() for name, x in then.weights.items()}, told(path)), then.card


def of_shape(x: Tensor | None, shape: torch.Size) -> Tensor | None:
    """What a tensor is the difference to: nothing where its shape was another, as at another picture size."""
    return x if x is not None and x.shape == shape else None


@dataclass(frozen=True, eq=False)
class Moment:
    """What a snapshot's file holds, in float32."""

    config: ViTConfig
    card: Card
    weights: dict[str, Tensor]
    digest: str  # of the tensors in the file


# the latest, by the files that they were made of: a timeline asks for one moment after the other
RECENT: OrderedDict[tuple[Edition, ...], Moment] = OrderedDict()
MOST_RECENT = 4


def decoded(path: Path, max_bytes: int) -> Moment:
    """The weights of a snapshot and of those that it is the difference to. Raises CheckpointError."""
    chain = [path]
    while base := read_header(chain[-1]).get("base"):
        this, before = snapshot_step(chain[-1]), snapshot_step(Path(base))
        if this is None or before is None or before >= this or "/" in base:
            raise CheckpointError(f"{told(chain[-1])} is damaged: it is no difference to {base!r}.")
        chain.append(path.parent / base)
    files = tuple(edition(file) for file in reversed(chain))
    at_hand = [(upto, made) for upto in range(1, len(files) + 1) if (made := RECENT.get(files[:upto]))]
    begun, then = at_hand[-1] if at_hand else (0, None)
    for upto in range(begun + 1, len(files) + 1):
        then = RECENT[files[:upto]] = decode(files[upto - 1][0], then, max_bytes)
        while len(RECENT) > MOST_RECENT:
            RECENT.popitem(last=False)
    assert then is not None  # the chain holds at least the file itself
    return then


def decode(path: Path, base: Moment | None, max_bytes: int) -> Moment:
    """One file of a chain, after the one that it is the difference to. Raises CheckpointError."""
    tensors, metadata = read_tensors(path, max_bytes)
    if base is not None and base.digest != metadata.get("base_digest"):
        raise CheckpointError(f"{told(path)} is the difference to another {metadata['base']}: remove it.")
    if "config" not in metadata:
        raise CheckpointError(f"{told(path)} does not carry its config: it is no snapshot of ours.")
    config, card = parse_config(parse_json(metadata["config"], f"The config in {told(path)}"), path)
    digest = hashlib.sha256(serialize(tensors)).hexdigest()[:16]
    with torch.device("meta"):
        shapes = {name: x.shape for name, x in ViT(config).state_dict().items()}
    check_shapes(shapes.values(), told(path), max_bytes)  # what is packed is small in its file
    weights = {}
    for name in [name for name in tensors if name.endswith(WIDTH)]:
        packed, width = tensors.pop(name.removesuffix(WIDTH), None), tensors.pop(name)
        name = name.removesuffix(WIDTH)
        if packed is None or packed.dtype != torch.uint8 or name not in shapes:
            raise CheckpointError(f"{told(path)} is damaged: {name + WIDTH} belongs to no codes.")
        if width.shape != (codec.rows_of(shapes[name]), 1) or width.dtype != torch.float32:
            raise CheckpointError(f"{told(path)} is damaged: {name + WIDTH} must hold one number per row.")
        before = of_shape(base.weights.get(name) if base else None, shapes[name])
        try:
            weights[name] = codec.decode(packed, width, shapes[name], before)
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{told(path)} is damaged: {name} holds {error}.") from error
    return Moment(config, card, weights | of_8_bit(tensors, path), digest)


def of_8_bit(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What is not coded, in float32; older snapshots keep matrices in 8 bit with a scale per row."""
    for name in [name for name in tensors if name.endswith(".scale")]:
        x, scale = tensors.get(name.removesuffix(".scale")), tensors.pop(name)
        if x is None or (x.dtype, x.ndim) != (torch.int8, 2) or scale.dtype != torch.float32:
            raise CheckpointError(f"{told(path)} is damaged: {name} scales no matrix of 8 bit.")
        if scale.shape != (len(x), 1):
            raise CheckpointError(f"{told(path)} is damaged: {name} must hold one number per row, {len(x)}.")
        tensors[name.removesuffix(".scale")] = x.float() * scale
    return tensors


def read_history(folder: str | Path) -> list[dict[str, float]]:
    """The rows of history.csv, none where there is no such file. Raises CheckpointError."""
    file = Path(folder) / "history.csv"
    if not os.path.isfile(file):
        return []
    try:
        lines = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
        rows = [{column: float(x) for column, x in line.items()} for line in lines]
        return [row | {"step": int(row["step"])} if "step" in row else row for row in rows]
    except (OSError, TypeError, ValueError, OverflowError, csv.Error) as error:  # a cell too few, or none
        raise CheckpointError(
            f"{told(file)} has a row that is not all numbers: mend it or remove the row."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """The file has its old content or the new one, at every moment. Raises OSError where the disk is full."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder when it was killed."""
    for file in folder.glob(".*.part"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}\.part", file.name):
            file.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        with open_file(path) as file:
            content = file.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise CheckpointError(
                f"{told(path)} is larger than {MAX_JSON >> 20} MiB: that describes no model."
            )
    except PermissionError as error:
        raise CheckpointError(f"{told(path)} may not be read by you: change its permissions.") from error
    except OSError as error:
        raise CheckpointError(
            f"{told(path)} is missing or cannot be read: restore it or save again."
        ) from error
    return parse_json(content, told(path))


def parse_json(content: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError, naming where it stands."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON: restore it or save again.") from error
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{where} must be a JSON object, not a {type(parsed).__name__}.")
    return parsed


def is_ours(folder: Path) -> bool:
    """Is this our own layout? Otherwise it is one of timm's or transformers', or no checkpoint at all."""
    configs = [folder / name for name in (CONFIG, NEXT_CONFIG) if os.path.isfile(folder / name)]
    return any(read_json(path).get("format") == FORMAT for path in configs)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file whose header was checked. Raises CheckpointError, saying what is wrong with it."""
    try:
        with open_file(path) as file:
            start = file.read(len(POINTER))
            length = int.from_bytes(start[:8], "little")
            if start == POINTER:
                raise CheckpointError(
                    f"{told(path)} is only a pointer: Git LFS left the weights elsewhere, run `git lfs pull`."
                )
            if length > MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            file.seek(8)
            json.loads(file.read(length), object_pairs_hook=unique)
        tensors = safe_open(path, "pt")
    except FileNotFoundError as error:
        raise CheckpointError(f"{told(path)} is missing: copy or save it again.") from error
    except PermissionError as error:
        raise CheckpointError(f"{told(path)} may not be read by you: change its permissions.") from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{told(path)} is cut short or no safetensors file: copy it again.") from error
    with tensors:
        yield tensors


def open_file(path: Path) -> BinaryIO:
    """A file to read; a pipe would keep us waiting, and a device may have no end. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is a device, a pipe or a folder")
    return open(path, "rb")


def read_header(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself, without its tensors. Raises CheckpointError."""
    try:
        return dict(header(edition(path)))
    except OSError:
        with opened(path):  # which says what is wrong
            raise


@lru_cache(maxsize=512)  # those who look at a training ask for all its headers every few seconds
def header(file: Edition) -> dict[str, str]:
    """`read_header` of a file that has not changed since."""
    with opened(file[0]) as tensors:
        return tensors.metadata() or {}


def edition(path: Path) -> Edition:
    """What a file is known by until it is written again. Raises OSError.

    Clocks of file systems tick, some every two seconds: what was written just now may be written again
    within the same tick, and is known by this moment alone.
    """
    at = path.stat()
    settled = at.st_mtime_ns < time.time_ns() - TICK
    return path, at.st_size, at.st_mtime_ns, 0 if settled else time.monotonic_ns()


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: of two tensors with one name nobody can say which is meant."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def read_tensors(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Tensor], dict[str, str]]:
    """({name: tensor}, metadata) of a safetensors file. Raises CheckpointError."""
    with opened(path) as file:
        names = list(file.keys())
        check_size([path], [(file, name) for name in names], path.parent.name, max_bytes)
        return {name: read_tensor(file, name, path) for name in names}, file.metadata() or {}


def read_tensor(file: Any, name: str, path: Path) -> Tensor:
    """One tensor of a file that is `opened`. Raises CheckpointError."""
    try:
        return file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{told(path)} is cut short or damaged: copy or save it again.") from error


def check_size(paths: Iterable[Path], tensors: Iterable[tuple[Any, str]], where: str, max_bytes: int) -> None:
    """Raises CheckpointError if weights, as (file, name), are larger: on the disk or in memory as float32."""
    size = sum(path.stat().st_size for path in paths)
    needed = 4 * sum(math.prod(file.get_slice(name).get_shape()) for file, name in tensors)
    if max(size, needed) > max_bytes:
        raise CheckpointError(too_large(where, max(size, needed), max_bytes))


def check_shapes(shapes: Iterable[torch.Size], where: str, max_bytes: int) -> None:
    """Raises CheckpointError if weights of these shapes are larger in memory, as float32."""
    needed = 4 * sum(map(math.prod, shapes))
    if needed > max_bytes:
        raise CheckpointError(too_large(where, needed, max_bytes))


def too_large(name: str, size: int, limit: int) -> str:
    return f"{name} needs {size / 2**30:.1f} GiB of {limit / 2**30:.1f} GiB allowed: choose a smaller model."


def build(config: ViTConfig, tensors: Mapping[str, Tensor], file: str) -> ViT:
    """A frozen model with these weights as float32. Raises CheckpointError, naming the tensor."""
    try:
        with torch.device("meta"):  # shapes without memory: nothing is allocated for weights that do not fit
            model = ViT(config)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{file} describes no ViT that can be built: {error}") from error
    wanted = model.state_dict()
    if missing := [name for name in wanted if name not in tensors]:
        raise CheckpointError(f"{file} has no tensor {missing[0]!r}, which its config asks for.")
    if unknown := [name for name in tensors if name not in wanted]:
        raise CheckpointError(f"{file} has a tensor {unknown[0]!r} that its config does not ask for.")
    for name, x in tensors.items():
        if x.shape != wanted[name].shape:
            shapes = f"{list(x.shape)}, and its config asks for {list(wanted[name].shape)}"
            raise CheckpointError(f"{file}: tensor {name!r} has the shape {shapes}.")
        if x.dtype not in FLOATS or not torch.isfinite(x.float()).all():
            raise CheckpointError(
                f"{file}: tensor {name!r} holds values that are no finite floats of 16 bit or more."
            )
    weights = {name: x.float() for name, x in tensors.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)
