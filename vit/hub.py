"""Published models: a Hub id, or a folder in the layout of timm or transformers, as (model, card).

Only JSON and safetensors are downloaded and read, so that nothing can run, and whatever is missing, closed,
broken or hostile is one CheckpointError in one sentence.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vit.card import FORMAT, INTERPOLATIONS, Card, CheckpointError, parse_card, scores_of
from vit.checkpoint import (
    MAX_JSON,
    PICKLES,
    build,
    check_size,
    is_ours,
    load_folder,
    load_pair,
    opened,
    read_json,
    read_tensor,
    too_large,
)
from vit.config import ViTConfig
from vit.model import ViT
from vit.pretrained import describe
from vit.pretrained.common import bare_names, one_sentence, pair
from vit.pretrained.of_timm import imagenet_names, published, timm_tensors
from vit.pretrained.of_transformers import LEFT_BEHIND, beside, transformers_tensors

REPO_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
INDEX = "model.safetensors.index.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # the second holds the first as a part
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


def read_pretrained(folder: Path, name: str, max_bytes: int) -> tuple[ViT, Card]:
    """(model, card) of a folder, under the name by which it was asked for. Raises CheckpointError."""
    if is_ours(folder):
        return load_folder(folder, max_bytes)
    if not (folder / "config.json").is_file():
        there = {path.name for path in folder.iterdir()}
        raise CheckpointError(f"{told_name(name)} {what_else(there)}")
    config = read_json(folder / "config.json")
    parts = beside(config) if "architecture" not in config else None
    weights, names = read_weights(folder, told_name(name), max_bytes, parts)
    vit_config, note = describe(config, names)
    with one_sentence():
        if "architecture" in config:
            tensors, (said, more) = timm_tensors(weights, vit_config), timm_card(config, vit_config)
        else:
            tensors = transformers_tensors(weights, vit_config)
            said, more = transformers_card(config, vit_config, folder)
        if vit_config.in_chans != 3:  # of channels that are no colours a Card says nothing
            said = {key: value for key, value in said.items() if key not in ("mean", "std")}
        elif "mean" not in said:
            more += " Its files do not say how pixels are prepared: [-1, 1] is taken."
        title = folder.resolve().name if os.path.isdir(os.path.expanduser(name)) else name
        source = " ".join(f"{note} {more}".split())
        card = parse_card({"name": title, "source": source, "image_size": vit_config.image_size} | said)
    return build(vit_config, tensors, told_name(name)), card


def told_name(name: str) -> str:
    """A name as messages say it: of a folder only its own name."""
    return name if is_id(name) else Path(name).name or name


def weight_files(names: Iterable[str], where: str) -> list[str]:
    """Which of these files hold the weights. Raises CheckpointError."""
    names = set(names)
    shards = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if INDEX in names and shards:
        return shards
    pickled = sorted(name for name in names if Path(name).suffix in PICKLES)
    if pickled:
        why = f"only {pickled[0]}, which may run code when it is loaded: convert it to safetensors first."
        raise CheckpointError(f"{where} has {why}")
    others = sorted(name for name in names if name.endswith(".safetensors"))
    but = (
        f" but {others[0]}: rename it if it holds the weights."
        if others
        else ", so there are no weights to load."
    )
    raise CheckpointError(f"{where} has no model.safetensors{but}")


def what_else(names: Collection[str]) -> str:
    """What holds files of these names and no config.json, and what to do about it."""
    if "adapter_config.json" in names:
        return "holds a PEFT adapter and no model: merge it into its base model and save that."
    if steps := [int(name[11:]) for name in names if re.fullmatch(r"checkpoint-\d+", name)]:
        return f"holds the checkpoints of a run: name one of them, such as checkpoint-{max(steps)}."
    if {"refs", "snapshots"} <= {*names}:
        return "is a folder of the Hub's cache: name the model itself, as owner/name."
    if "open_clip_config.json" in names:
        return "is in OpenCLIP's layout, which is not read here: convert it to timm's or transformers'."
    return "has no config.json, which says what model it is: restore it or save again."


def read_weights(
    folder: Path, name: str, max_bytes: int, parts: Sequence[str] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """(the tensors between pixels and features, the names of all), from one file or several. parts: see
    `bare_names`. Raises CheckpointError."""
    paths = [folder / file for file in weight_files((path.name for path in folder.iterdir()), name)]
    if paths[0].name != "model.safetensors":
        listed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or {str(file) for file in listed.values()} != {f.name for f in paths}:
            raise CheckpointError(f"{name}: {INDEX} does not list exactly the weight files beside it.")
    with ExitStack() as stack:
        found: dict[str, tuple[Any, Path]] = {}  # where each tensor is
        for path in paths:
            file = stack.enter_context(opened(path))
            inside = {tensor: (file, path) for tensor in file.keys()}  # noqa: SIM118
            if twice := found.keys() & inside.keys():
                raise CheckpointError(f"{name} holds the tensor {min(twice)!r} twice.")
            found |= inside
        names = bare_names(found, parts)
        wanted = {old: new for old, new in names.items() if not LEFT_BEHIND.search(new)}
        check_size(paths, [(found[old][0], old) for old in wanted], name, max_bytes)
        read = {new: read_tensor(found[old][0], old, found[old][1]) for old, new in wanted.items()}
        return read, [*found]


def read_parts(folder: Path, name: str, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Those of the wanted tensors that are there, in float32, of what `read_weights` leaves behind."""
    found: dict[str, Tensor] = {}
    for file in weight_files((path.name for path in folder.iterdir()), told_name(name)):
        with opened(folder / file) as weights:
            there = set(weights.keys())
            found |= {key: read_tensor(weights, key, folder / file).float() for key in wanted if key in there}
    return found


def fetch(
    name: str,
    max_bytes: int,
    cache: Path | None = None,
    token: str | bool | None = None,
    also: Iterable[str] = (),
) -> Path:
    """Download config and weights into the cache, the Hub's by default, or find them there.

    token: whose rights are used. None: those of whoever is logged in on this machine; False: nobody's, which
    is what strangers must get, or the owner's private and gated models lie open. also: more files, where
    they are there. Raises CheckpointError.
    """
    from huggingface_hub import HfApi, errors, snapshot_download  # here: bundled checkpoints need no network

    repo, at, branch = name.partition("@")
    revision = branch if at else None
    download = partial(snapshot_download, repo, cache_dir=cache, token=token)
    configs = ["config.json", *PROCESSORS, INDEX, *also]
    try:
        sizes, revision = offered(HfApi(token=token), repo, revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(said_by_the_hub(name, error)) from error
    except Exception as error:  # unreachable: each version of the client says it with another class
        before: list[Path] = []  # what was loaded before is in the cache
        for known in [revision] if revision else [None, *copies_in(cache, repo)]:
            with suppress(Exception):
                here = download(revision=known, local_files_only=True, allow_patterns="*.json")
                before.append(Path(here))
        if not before:
            where = "the Hugging Face Hub cannot be reached and the model was not loaded before"
            raise CheckpointError(f"{name} is not here: {where}; check the connection.") from error
        return next((folder for folder in before if any(folder.glob("*.safetensors"))), before[0])
    for file in configs:
        if sizes.get(file, 0) > MAX_JSON:
            raise CheckpointError(f"{name} has a {file} of {sizes[file] >> 20} MiB: that describes no model.")
    if "config.json" not in sizes:
        raise CheckpointError(f"{name} {what_else([file for file in sizes if '/' not in file])}")
    weights = weight_files(sizes, name)
    total = sum(sizes[file] for file in weights)
    if total > max_bytes:
        raise CheckpointError(too_large(name, total, max_bytes))
    try:
        folder = Path(download(revision=revision, allow_patterns=configs))
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT:
            describe(config)  # what will be refused is refused before its weights travel
        return Path(download(revision=revision, allow_patterns=configs + weights))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(said_by_the_hub(name, error)) from error


def offered(api: Any, repo: str, revision: str | None) -> tuple[dict[str, int], str | None]:
    """({file: bytes}, revision) of a repository, or of the Hub's own safe copy where it has only pickles."""
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=30)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if revision is None and not any(file.endswith(".safetensors") for file in sizes):
        copies = api.get_repo_discussions(repo, author="SFconvertbot", discussion_type="pull_request")
        for copy in copies:
            if copy.status == "open":
                return offered(api, repo, copy.git_reference)
    return sizes, revision


def copies_in(cache: Path | None, repo: str) -> list[str]:
    """The pull requests of a repository that are in the cache, of which one may be the Hub's safe copy."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(cache or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "refs"
    return sorted(file.relative_to(refs).as_posix() for file in refs.glob("refs/pr/*"))


def said_by_the_hub(name: str, error: Exception) -> str:
    """One sentence for an error of huggingface_hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        ask = f"accept its terms at https://huggingface.co/{name}, then log in with `hf auth login`."
        return f"{name} is open only to those who asked: {ask}"
    absent = errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError
    if isinstance(error, absent):
        return f"{name} is neither a folder here nor a model on the Hugging Face Hub that you may read."
    why = getattr(error, "strerror", None) or type(error).__name__
    return f"The download of {name} broke off ({why}): run it again, it goes on where it stopped."


def is_id(name: str) -> bool:
    """Is this how a model of the Hub is called?"""
    return REPO_ID.fullmatch(name) is not None


def push(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload one of our checkpoints to the Hub, where `load(repo_id)` finds it -> its address.

    config.json, model.safetensors and README.md as the model card: the layout of huggingface_hub's mixin.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = Path(folder)
    _, _, config = load_pair(folder)  # what cannot be loaded is not published
    files = {file.name: file for file in (folder / "README.md", folder / "history.csv") if file.is_file()}
    files |= {"model.safetensors": folder / "model.safetensors"}
    files |= {"config.json": config}  # which has another name here after a save that was cut short
    api = HfApi()
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    parts = [CommitOperationAdd(name, file) for name, file in files.items()]
    api.create_commit(repo_id, parts, commit_message="Upload a checkpoint of ViT Explorer")
    return str(url)


def timm_card(config: Mapping[str, Any], vit_config: ViTConfig) -> tuple[dict[str, Any], str]:
    """(the fields of a Card that timm's config.json tells, what else is to be known)."""
    about, note = config.get("pretrained_cfg") or config, ""
    labels, words = (config.get(key, about.get(key)) for key in ("label_names", "label_descriptions"))
    if labels is None:
        labels = imagenet_names(config, vit_config.num_classes)
    if isinstance(labels, list) and isinstance(words, Mapping):
        labels = [words.get(label, label) for label in labels]
    if not about.get("mean") and (usual := published(config)):
        note = f"Its files do not say how pixels are prepared: as for timm's {usual['architecture']}."
        about = usual
    said = pixels(*(about.get(key) for key in ("mean", "std", "crop_pct", "interpolation")))
    return said | classes(config, labels, vit_config.num_classes), note


def transformers_card(
    config: Mapping[str, Any], vit_config: ViTConfig, folder: Path
) -> tuple[dict[str, Any], str]:
    """(the fields of a Card that transformers' config.json and its processor's file tell, what else is to be
    known)."""
    files = (folder / name for name in PROCESSORS)
    p = next((read_json(file) for file in files if file.is_file()), {})
    p = p["image_processor"] if isinstance(p.get("image_processor"), Mapping) else p
    resized, size, crop_pct, note = sides(p.get("size")), sides(p.get("size")), None, ""
    if p.get("do_center_crop") and (cropped := sides(p.get("crop_size"))) and resized:
        size, crop_pct = cropped, min(1.0, cropped[0] / resized[0])
        if cropped[0] > resized[0]:
            what = f"puts a black border around pictures of {resized[0]} pixels"
            note = f"Its processor {what}: they are made as large as its crop of {cropped[0]} here."
    mean, std = p.get("image_mean"), p.get("image_std")
    if p.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = 255 * p.get("rescale_factor", 1 / 255) if p.get("do_rescale") is not False else 255
    offset = 1 if p.get("offset") else 0  # ViViT takes 1 off before it normalises
    if mean and std and (offset or abs(factor - 1) > 1e-6):  # the Card's are of pixels in [0, 1]
        mean, std = tuple((x + offset) / factor for x in mean), tuple(x / factor for x in std)
    resample = p.get("resample", 3)
    said = pixels(mean, std, crop_pct, RESAMPLE.get(resample, resample))
    if size and not any(side % vit_config.patch_size for side in size):
        said["image_size"] = size  # DINOv2 has positions for 518, reads 224
    return said | classes(config, config.get("id2label"), vit_config.num_classes), note


def sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of what transformers calls a size, if it is one."""
    if isinstance(size, Mapping):
        shortest = size.get("shortest_edge")
        size = (size.get("height", shortest), size.get("width", shortest))
    height, width = pair(size)
    sound = all(type(side) is int and 0 < side <= 4096 for side in (height, width))
    return (height, width) if sound else None


def pixels(mean: Any, std: Any, crop_pct: Any, interpolation: Any) -> dict[str, Any]:
    """The fields of a Card that prepare a picture; what is not told keeps the Card's default."""
    said = {"mean": mean, "std": std, "crop_pct": crop_pct}
    if interpolation in INTERPOLATIONS:  # timm knows more of them, for training
        said["interpolation"] = interpolation
    return {name: x for name, x in said.items() if x is not None}


def classes(config: Mapping[str, Any], labels: Any, num_classes: int) -> dict[str, Any]:
    """The fields of a Card that tell what is answered, and what an answer means."""
    scores = scores_of(config.get("problem_type"), num_classes)
    return {"class_names": class_names(labels, num_classes), "scores": scores}


def class_names(labels: Any, num_classes: int) -> tuple[str, ...]:
    """K names; a class without one, or with transformers' stand-in LABEL_17, is called "class 17"."""
    if isinstance(labels, list | tuple):
        labels = dict(enumerate(labels))
    labels = {str(i): label for i, label in labels.items()} if isinstance(labels, Mapping) else {}
    names = (labels.get(str(i)) for i in range(num_classes))
    return tuple(
        name[:200] if isinstance(name, str) and not re.fullmatch(r"LABEL_\d+", name) else f"class {i}"
        for i, name in enumerate(names)
    )
