"""Names and what they stand for. The only place that reads a name: everybody else asks `resolve` or `load`.

"shapes"                        a bundled checkpoint, else a folder of that name
"./run", "~/run", Path("run")   a folder; a Path is never looked for on the Hub
"run/model.safetensors"         the folder that holds these weights
"run/snapshots/step_0000100.safetensors"   the model as it was at that step
"facebook/dino-vits8"           a folder if there is one, else a model of the Hugging Face Hub
"owner/model@revision"          the same at a branch, a tag or a commit
"hf-hub:owner/model"            of the Hub, whatever lies here
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vit.card import Card, CheckpointError
from vit.checkpoint import MAX_BYTES, PICKLES, WEIGHTS, is_ours, load_snapshot, snapshot_step
from vit.hub import fetch, is_id, read_pretrained
from vit.model import ViT

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / "checkpoints"  # where `pip install .` puts them
BUNDLED = INSTALLED if INSTALLED.is_dir() else HERE.parent / "checkpoints"


@dataclass(frozen=True)
class Published:
    """A model of the Hub that is worth a look: fetched when it is first asked for."""

    name: str
    label: str
    family: str
    licence: str
    megabytes: int  # of its weights
    look_at: str  # what it teaches

    @property
    def title(self) -> str:
        """As a picker names it: what it is, how large, under which licence, and what to look at."""
        return f"{self.label} · {self.megabytes} MB · {self.licence} · {self.look_at}"


# in the order of what teaches most, the models of a family one after the other
PUBLISHED = (
    Published(
        "timm/vit_small_patch16_dinov3.lvd1689m", "DINOv3 S/16", "DINOv3", "DINOv3 licence", 86,
        "objects and their parts in the colours of the patches; positions that are rotations",
    ),
    Published(
        "timm/vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", "EUPE Ti/16", "DINOv3", "non-commercial research",
        22, "the same positions in the smallest model that has them",
    ),
    Published(
        "facebook/dino-vits8", "DINO S/8", "DINO", "Apache-2.0", 87,
        "heads that found objects without a label: [CLS] in the last layer, head by head",
    ),
    Published(
        "facebook/dino-vits16", "DINO S/16", "DINO", "Apache-2.0", 87,
        "DINO with four times fewer patches: the same objects, coarser",
    ),
    Published(
        "facebook/dinov2-with-registers-small", "DINOv2 S/14 with registers", "DINOv2", "Apache-2.0", 88,
        "what registers do: compare its token norms with those of DINOv2 without them",
    ),
    Published(
        "facebook/dinov2-small", "DINOv2 S/14", "DINOv2", "Apache-2.0", 88,
        "patches of the background with far too long tokens, and heads that look at them",
    ),
    Published(
        "openai/clip-vit-base-patch32", "CLIP B/32", "CLIP", "MIT", 605,
        "classes that you type; where each word is",
    ),
    Published(
        "google/siglip-base-patch16-224", "SigLIP B/16", "SigLIP", "Apache-2.0", 813,
        "words, each a yes or no by itself; what the pooling attention reads",
    ),
    Published(
        "timm/beitv2_base_patch16_224.in1k_ft_in22k_in1k", "BEiTv2 B/16, ImageNet-1k", "BEiT", "Apache-2.0",
        346, "attention that knows how far apart two patches are",
    ),
    Published(
        "google/vit-base-patch16-224", "ViT B/16, ImageNet-1k", "ViT", "Apache-2.0", 346,
        "the paper's own model, with a thousand classes to explain",
    ),
    Published(
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k", "AugReg S/16, ImageNet-1k", "ViT", "Apache-2.0",
        88, "the same, small enough for every method",
    ),
    Published(
        "facebook/deit-tiny-patch16-224", "DeiT Ti/16, ImageNet-1k", "DeiT", "Apache-2.0", 23,
        "the smallest with a thousand classes: the race is quick",
    ),
    Published(
        "MCG-NJU/videomae-small-finetuned-kinetics", "VideoMAE S/16, Kinetics-400", "VideoMAE",
        "CC-BY-NC-4.0", 88, "clips of 16 frames: attention through space and time at once",
    ),
    Published(
        "google/vivit-b-16x2-kinetics400", "ViViT B/16x2, Kinetics-400", "ViViT", "MIT", 356,
        "clips of 32 frames: one [CLS] for 3136 patches, four times the work of VideoMAE",
    ),
)  # fmt: skip
FIRST = ("photos", "imagenette", "cifar10", "catsdogs", "shapes")  # of the bundled ones: the most to show


@dataclass(frozen=True)
class Place:
    """Where a name leads: to a folder on this machine, or to a repository of the Hub."""

    name: str  # as it was asked for, without "hf-hub:"
    folder: Path | None = None  # on this machine; None: on the Hub
    snapshot: Path | None = None  # one moment of that folder's training, where the name is of its file

    @property
    def weights(self) -> Path | None:
        """The file that is written anew when the model becomes another one; None: on the Hub."""
        return self.snapshot or (self.folder and self.folder / WEIGHTS)


def resolve(name: str | Path) -> Place:
    """Where the model of this name is. Raises CheckpointError if there can be none."""
    text = str(name)
    path = Path(os.path.expanduser(text))
    if path.suffix.lower() in PICKLES and not os.path.isdir(path):
        raise CheckpointError(
            f"{path.name} may run code when it is loaded, so it is refused: convert it to safetensors first."
        )
    if isinstance(name, str):
        text = text.strip()
        if text.startswith("hf-hub:"):
            return on_the_hub(text.removeprefix("hf-hub:"))
        bare = not set("/~" + os.sep) & set(text)
        if bare and os.path.isfile(BUNDLED / text / WEIGHTS):
            return Place(text, BUNDLED / text)
        path = Path(os.path.expanduser(text))
    # unlike path.is_file(), os.path's is False for what can be no path at all
    if os.path.isdir(path):
        return Place(text, path)
    if os.path.isfile(path):
        return of_a_file(text, path)
    if isinstance(name, Path) or text.startswith((".", "~", os.sep)):
        raise CheckpointError(f"There is no folder {text!r} here: check the path.")
    return on_the_hub(text)


def of_a_file(name: str, path: Path) -> Place:
    """The place of a weight file: of its folder if that is what the folder loads, or of a snapshot."""
    if path.name == WEIGHTS:
        return Place(name, path.parent)
    if path.parent.name == "snapshots" and snapshot_step(path) is not None:
        return Place(name, path.parent.parent, path)
    raise CheckpointError(
        f"{path.name} is no {WEIGHTS} and no snapshot, so it is not what its folder loads: "
        "name the folder, or put these weights into one of their own."
    )


def on_the_hub(name: str) -> Place:
    """The place of a repository of the Hub. Raises CheckpointError for what is no such name."""
    if not is_id(name):
        raise CheckpointError(f"There is no folder {name!r}; a model of the Hugging Face Hub is owner/name.")
    return Place(name)


def folder_of(name: str | Path) -> Path | None:
    """The folder of a name on this machine; None for a model of the Hub, or of no place at all."""
    with suppress(CheckpointError):
        return resolve(name).folder
    return None


def load(
    name: str | Path, *, max_bytes: int = MAX_BYTES, token: str | bool | None = None
) -> tuple[ViT, Card]:
    """(model, card) of a name (see above), in eval mode, parameters frozen.

    Reads our own layout, timm's and transformers', JSON and safetensors alone: nothing that could run.
    max_bytes bounds the weights, in their files and in memory. token: whose rights at the Hub are used;
    False: nobody's (see `vit.hub.fetch`). Raises CheckpointError.
    """
    place = resolve(name)
    if place.snapshot:
        return load_snapshot(place.snapshot, max_bytes)
    return read_pretrained(place.folder or fetch(place.name, max_bytes, token=token), place.name, max_bytes)


def list_checkpoints(root: str | Path = BUNDLED) -> list[str]:
    """Names of the checkpoints in a folder, the ones with the most to show first, without the broken ones."""
    names = []
    for path in Path(root).glob(f"*/{WEIGHTS}"):
        with suppress(CheckpointError):  # `load` says what is wrong with it
            if is_ours(path.parent):
                names.append(path.parent.name)
    order = {name: at for at, name in enumerate(FIRST)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))
