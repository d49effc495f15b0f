"""The options of a training run: what they mean, what they may be, how they are typed.

L layers, H heads, D width of a token.
"""

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """Everything that decides what a run learns."""

    data: str = option(
        "",
        "shapes, moves, cifar10, imagenette, catsdogs, photos, "
        "or a folder of train/CLASS/*.jpg and val/CLASS/*.jpg",
    )
    image_size: int = option(64, "side of the pictures, in pixels: a multiple of the patch size")
    sizes: str = option(
        "", "begin with smaller, cheaper pictures: '64:0.5 96:0.9' is 64 px for half of the run, then 96"
    )
    train_size: int = option(0, "side at which training pictures are kept, to crop from (0: image_size)")
    test_size: int = option(
        0, "side at which it is tested and used (0: image_size); a little larger is often better"
    )
    network: str = option("vit", "vit, or conv: a small convolutional network to teach a ViT with")
    patch_size: int = option(
        8, "side of a patch: half of it means four times the tokens (conv: of one of the ViT it is to teach)"
    )
    embed_dim: int = option(192, "D, the width of a token")
    depth: int = option(6, "L, how many blocks")
    num_heads: int = option(3, "H, attention maps per block; D / H = 64 is usual")
    num_frames: int = option(1, "frames of a clip; 1: pictures")
    tubelet: int = option(1, "frames that a patch of a clip reaches through")
    mlp_ratio: float = option(4.0, "width of the MLP / D")
    num_registers: int = option(0, "extra tokens that may hold what no patch wants to hold")
    distillation: bool = option(False, "a second class token: the teacher's, while [CLS] has the labels")
    drop_path: float = option(0.0, "chance to skip a branch in the last layer")
    epochs: float = option(10.0, "how often every picture is seen")
    batch_size: int = option(128, "pictures per step, over all processes")
    optimizer: str = option("muon", "muon (the matrices by Muon, the rest by AdamW) or adamw")
    lr: float = option(2e-3, "peak learning rate")
    weight_decay: float = option(0.05, "pull of the matrices towards 0")
    warmup: float = option(0.5, "epochs until the learning rate has its peak")
    hold: float = option(0.0, "share of the run that stays at the peak, before the cosine to 0")
    clip: float = option(1.0, "largest norm of the gradient")
    label_smoothing: float = option(0.1, "probability taken from the right class and spread over all")
    min_area: float = option(1.0, "random crop: its smallest share of the picture's area")
    aspect: float = option(4 / 3, "random crop: its width over its height, or the inverse, is at most this")
    shift: float = option(0.0, "random crop: how far it may reach over the edge, as a share of the side")
    rotation: float = option(0.0, "random rotation, in degrees either way")
    colour: float = option(0.0, "random brightness, contrast and saturation, by up to this much")
    cutout: float = option(0.0, "side of a random grey square, as a share of the picture")
    flip: bool = option(True, "mirror each picture with probability 1/2")
    mix: float = option(
        0.0, "share of batches blended by MixUp or CutMix, in the first 85%% of the run; none with --mask"
    )
    ema: float = option(0.998, "the kept weights are a moving average over some 1 / (1 - ema) steps")
    mask: float = option(
        0.0, "learn without labels: hide this share of the patches, and draw them; then --init, for classes"
    )
    calibrate: bool = option(False, "in the end, scale the head: probabilities as often right as they say")
    seed: int = option(0, "another seed, another run")
    init: str = option("", "begin with a checkpoint's weights; the head is new for classes it does not know")
    teacher: str = option("", "learn from a convolutional network, too: its folder, or its recipe")
    teach: float = option(0.5, "weight of the teacher's probabilities; the labels have the rest")
    teach_patches: float = option(0.5, "weight of what the teacher sees at every patch")
    teach_attention: float = option(0.25, "weight of where it sees the class, for [CLS]'s attention")
    precision: str = option("auto", "bf16, fp32, or auto: bf16 where the processor multiplies it natively")
    compile: bool = option(
        False, "torch.compile: 12%% faster on a CPU, after 15 s per size; needs a C++ compiler"
    )
    eval_images: int = option(2000, "test pictures for the curve during training; the end takes them all")
    snapshots: int = option(12, "moments kept for the timeline, log-spaced")

    @property
    def tested_at(self) -> int:
        """Crops show things larger than whole pictures do: what a model has learned from them works best on
        whole pictures that are a little larger (Touvron et al. 2019, "Fixing the train-test resolution
        discrepancy")."""
        return self.test_size or self.image_size

    @property
    def stem(self) -> int:
        """Side, in pixels, of the squares that a convolutional network reads first: a quarter of a patch."""
        return self.patch_size // 4

    @property
    def sides(self) -> list[int]:
        """Of all pictures that the network will see."""
        return [self.image_size, self.tested_at, *(side for side, _ in stages(self))]

    def check(self, parts: int) -> None:
        """Raises ValueError: one sentence that says what to change."""
        if not self.data:
            raise ValueError("Say what to learn: a recipe (python train.py shapes) or --data FOLDER.")
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{flag(name)} must be one of {', '.join(allowed)}, not {value}.")
        for name, (low, high) in RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{flag(name)} must be between {low:g} and {high:g}, not {value:g}.")
        unfit = dict.fromkeys(side for side in self.sides if side < self.patch_size or side % self.patch_size)
        if unfit:
            few = ", ".join(str(side) for side in unfit)
            names = "--image-size, --test-size and --sizes"
            raise ValueError(f"{names} must be multiples of {self.patch_size}, not {few}.")
        if self.network == "conv" and self.patch_size % 4:
            raise ValueError(f"--network conv needs --patch-size a multiple of 4, not {self.patch_size}.")
        shares = [0.0, *(until for _, until in stages(self))]
        if not (all(a < b for a, b in pairwise(shares)) and shares[-1] <= 1):
            advice = "shares of the run that rise between 0 and 1, such as '64:0.5 96:0.9'"
            raise ValueError(f"--sizes needs {advice}, not {self.sizes!r}.")
        if self.network == "conv" and (self.init or self.teacher):
            raise ValueError("--network conv has no teacher and begins anew: leave out --init and --teacher.")
        if self.distillation and self.teacher and self.teach in (0, 1):
            advice = "give --teach above 0 and below 1."
            raise ValueError(f"--distillation learns from the labels and from the teacher: {advice}")
        if self.num_frames > 1 and (self.network == "conv" or self.teacher):
            raise ValueError("--network conv and --teacher are for pictures: leave them out for clips.")
        if self.num_frames > 1 and self.mix:
            raise ValueError("--mix blends pictures: leave it out for clips.")
        if self.mask and (self.network == "conv" or self.teacher or self.calibrate):
            raise ValueError("--mask learns from no labels: leave out --network, --teacher and --calibrate.")
        if parts < 1:
            raise ValueError("--accumulate must be at least 1.")
        if self.batch_size % parts:
            raise ValueError(f"--batch-size must be a multiple of {parts} (processes x --accumulate).")


def stages(options: Options) -> list[tuple[int, float]]:
    """'24:0.6' -> [(24, 0.6)]: the side of the pictures until that share of the run."""
    try:
        return [
            (int(side), float(until))
            for side, _, until in (part.partition(":") for part in options.sizes.split())
        ]
    except ValueError as error:
        raise ValueError(f"--sizes must look like '24:0.6', not {options.sizes!r}.") from error


CHOICES = {"network": ("vit", "conv"), "optimizer": ("muon", "adamw"), "precision": ("auto", "bf16", "fp32")}
LARGE = 1e9
RANGES = (  # of every number
    dict.fromkeys(("image_size", "patch_size", "embed_dim", "depth", "num_heads"), (1, LARGE))
    | dict.fromkeys(("num_frames", "tubelet"), (1, LARGE))
    | dict.fromkeys(("batch_size", "eval_images"), (1, LARGE))
    | dict.fromkeys(("epochs", "lr", "clip", "mlp_ratio"), (1 / LARGE, LARGE))
    | dict.fromkeys(
        ("train_size", "test_size", "num_registers", "weight_decay", "warmup", "seed"), (0, LARGE)
    )
    | dict.fromkeys(("hold", "mix", "shift", "colour", "cutout", "teach"), (0, 1))
    | dict.fromkeys(("teach_patches", "teach_attention"), (0, LARGE))
    | dict(min_area=(1 / LARGE, 1), aspect=(1, LARGE), rotation=(0, 180), snapshots=(3, LARGE))
    | dict.fromkeys(("drop_path", "label_smoothing", "ema", "mask"), (0, 0.99999))
)
AUGMENTATIONS = ("min_area", "aspect", "shift", "rotation", "colour", "cutout", "flip")
# What may change when a run goes on, as far as it concerns steps still to come.
FREE = ("epochs", "sizes", "test_size", "hold", "snapshots", "eval_images", "compile", "mix", *AUGMENTATIONS)


TAUGHT = ("teach", "teach_patches", "teach_attention", "distillation")
OF_A_VIT = ("embed_dim", "depth", "num_heads", "mlp_ratio", "num_registers", "drop_path", "calibrate")
# (when options change nothing, in words; whether it is so; these options)
IDLE: tuple[tuple[str, Callable[[Options], bool], tuple[str, ...]], ...] = (
    ("Without --network vit", lambda options: options.network != "vit", OF_A_VIT),
    ("Without --teacher", lambda options: not options.teacher, TAUGHT),
    ("Without --min-area below 1", lambda options: options.min_area == 1, ("aspect",)),
    ("With --mask", lambda options: options.mask > 0, ("label_smoothing", "mix")),
)


def refuse_idle(options: Options, given: Collection[str]) -> None:
    """Raises ValueError where options that were typed would change nothing."""
    for when, so, names in IDLE:
        idle = [flag(name) for name in names if name in given and is_changed(options, name)]
        if idle and so(options):
            advice = f"leave {'them' if len(idle) > 1 else 'it'} out"
            raise ValueError(f"{when} nothing is changed by {', '.join(idle)}: {advice}.")


def is_changed(options: Options, name: str) -> bool:
    """Whether an option is other than it is where nothing is said."""
    return getattr(options, name) != getattr(Options(), name)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_options(group: argparse._ArgumentGroup) -> None:
    """Every option, for the command line; the recipe has its say on those that are not given."""
    for f in fields(Options):
        kind: dict[str, Any] = {"type": type(f.default), "metavar": f.name.upper().split("_")[-1]}
        if isinstance(f.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        shown = "" if f.default == "" else f" (default: {f.default})"
        group.add_argument(flag(f.name), default=argparse.SUPPRESS, help=f.metadata["help"] + shown, **kind)


def spelled(options: dict[str, Any]) -> list[str]:
    """Options as they are typed."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(flag(name) if value else "--no-" + flag(name)[2:])
        else:
            words += [flag(name), str(value)]
    return words
