"""Sets of options with a name: `python train.py NAME`. What each gave, and where, stands beside it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """about: what it is, and where it was run, the accuracy on the whole test split and the time."""

    about: str
    options: dict[str, Any]


CIFAR = dict(data="cifar10", image_size=32, patch_size=4)
RECIPES = {
    "shapes": Recipe(
        "98.65 %, 3 minutes on two cores with AMX: generated shapes on clutter, nothing to download",
        dict(data="shapes", image_size=64, patch_size=8, embed_dim=128, num_heads=4, depth=6, epochs=4.5)
        | dict(batch_size=64, shift=0.06, ema=0.995, eval_images=500),
    ),
    "moves": Recipe(
        "97.95 %, 25 minutes on two busy cores: clips in which a shape moves, grows or turns",
        dict(data="moves", image_size=64, patch_size=8, num_frames=8, tubelet=2, sizes="32:0.6 48:0.85")
        | dict(embed_dim=128, num_heads=4, depth=6, epochs=5.0, hold=0.3, batch_size=64)
        | dict(shift=0.1, flip=False, ema=0.99, eval_images=200),
    ),
    "cifar10": Recipe(
        "CIFAR-10, 2.7 M parameters: 90.06 % and 7.8 hours on two cores as four runs, see its card",
        CIFAR
        | dict(image_size=48, train_size=32, test_size=52, sizes="24:0.45 32:0.85 40:0.97")
        | dict(epochs=204.0, hold=0.25, warmup=1.0, lr=1.5e-3, ema=0.999)
        | dict(min_area=0.45, shift=0.06, colour=0.4, rotation=10.0, mix=0.75)
        | dict(weight_decay=0.1, drop_path=0.1),
    ),
    "masked": Recipe(
        "CIFAR-10 without labels: most of a picture is hidden, and drawn; then --init runs/masked",
        CIFAR | dict(mask=0.75, epochs=12.0, hold=0.2, min_area=0.5, shift=0.06),
    ),
    "imagenette": Recipe(
        "82.90 %, 1.5 hours on one busy core: Imagenette, 2.8 M parameters, 256 patches of 8 px",
        dict(data="imagenette", image_size=128, train_size=160, patch_size=8, sizes="64:0.57 96:0.9")
        | dict(epochs=30.0, hold=0.606, warmup=2.0, batch_size=64, eval_images=800)
        | dict(min_area=0.3, colour=0.3, rotation=8.0, mix=0.5),
    ),
    "photos": Recipe(
        "89.85 %, four hours on two cores: cats, dogs and Imagenette's ten, a teacher first, from imagenette",
        dict(data="photos", init="imagenette", num_heads=6, teacher="teacher", lr=1.5e-3, hold=0.35)
        | dict(image_size=128, train_size=160, patch_size=8, sizes="64:0.6 96:0.985", epochs=62.0)
        | dict(batch_size=64, min_area=0.3, aspect=1.8, colour=0.3, rotation=8.0, mix=0.5, eval_images=600)
        | dict(calibrate=True),
    ),
    "teacher": Recipe(
        "the convolutional network from which photos learns (an earlier one: 88.34 % in 45 minutes)",
        dict(data="photos", network="conv", image_size=128, train_size=160, sizes="64:0.7 96:1.0")
        | dict(epochs=28.0, batch_size=64, warmup=1.0, hold=0.3, eval_images=1000)
        | dict(min_area=0.3, aspect=1.8, colour=0.3, rotation=8.0, mix=0.3),
    ),
    "small-teacher": Recipe(
        "89.95 %, 29 minutes on two busy cores: the same for pictures of 32 px, to teach cifar10",
        CIFAR
        | dict(network="conv", epochs=16.0, batch_size=256, lr=1e-2, ema=0.995, label_smoothing=0.05)
        | dict(min_area=0.8, shift=0.07, colour=0.1, cutout=0.25, snapshots=3),
    ),
    "folder": Recipe(
        "any folder of pictures (--data), best with --init imagenette: dogs and cats in minutes",
        dict(image_size=128, train_size=160, patch_size=8, sizes="64:0.4 96:0.75", epochs=20.0, batch_size=64)
        | dict(min_area=0.3, colour=0.3, rotation=8.0, mix=0.2, lr=1e-3, eval_images=200),
    ),
    "tutorial": Recipe(
        "75.12 %, 12 minutes on two cores: five epochs, as long as the usual tutorial's",
        CIFAR | dict(epochs=5.0, shift=0.125, batch_size=96, lr=1.5e-3),
    ),
}
