"""Classes for models without a head: a few pictures of each, in a folder per class, become the classes.

A model that learned without labels (DINO, MAE, I-JEPA) gives features f (D,) and no answer. The means c_k of
the features of each class's pictures are its prototypes. The class of the nearest one is

    argmax_k -|f - c_k|² = argmax_k  f · c_k - |c_k|² / 2,

which is linear in f: a head. Divided by σ², the mean square distance of a feature from its own prototype per
number, these are log-probabilities up to a constant, if classes are round clouds of that width: logits that
a softmax may read. Every method then explains "why nearer to these than to those".

N pictures, K classes, D width.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vit.card import Card, CheckpointError
from vit.checkpoint import build
from vit.config import ViTConfig
from vit.folders import folders_in, names_of, pictures_in, readable
from vit.model import ViT
from vit.pictures import PictureError, open_picture, preprocess
from vit.pretrained.common import fold_positions

MOST = 200  # pictures of a class: a mean of more hardly moves


def with_prototypes(model: ViT, card: Card, folder: str | Path) -> tuple[ViT, Card]:
    """(model, card) with a head made of the pictures in the folder's subfolders, one class each.

    A head that the model has already is replaced. Pictures that cannot be read are left out. Raises
    CheckpointError where there are not two classes with a readable picture each, and DataError.
    """
    root, where = Path(folder).expanduser(), readable(str(folder))
    if not root.is_dir():
        raise CheckpointError(
            f"There is no folder {where}: name one that holds a folder of pictures per class."
        )
    classes, means, spread, count = [], [], 0.0, 0
    for place in folders_in(root):
        features = list(features_of(model, card, place))
        if not features:
            continue
        stacked = torch.stack(features)  # (n, D)
        classes.append(place)
        means.append(stacked.mean(dim=0))
        spread += float((stacked - means[-1]).square().sum())
        count += len(features)
    names = names_of(classes, {})
    if len(names) < 2:
        raise CheckpointError(
            f"{where} needs at least two folders with a readable picture each, one per class."
        )
    return with_means(model, card, names, torch.stack(means), spread / max(count - len(names), 1))


def with_means(
    model: ViT, card: Card, names: tuple[str, ...], means: Tensor, spread: float
) -> tuple[ViT, Card]:
    """(model, card) whose head is the nearest of the prototypes (K, D). spread: mean square distance of a
    feature from its own prototype; 0, as with one picture each: that of the prototypes from their mean."""
    own = spread or float((means - means.mean(dim=0)).square().sum(dim=1).mean())
    variance = max(own / means.shape[1], 1e-12)
    head = {"head.weight": means / variance, "head.bias": -means.square().sum(dim=1) / (2 * variance)}
    config, body = body_of(model)
    told = f"{card.source} Its classes are the nearest of {len(names)} prototypes.".strip()
    return build(replace(config, num_classes=len(names)), body | head, card.name), replace(
        card, class_names=names, source=told, scores="softmax"
    )


@torch.no_grad()
def features_of(model: ViT, card: Card, folder: Path) -> Iterator[Tensor]:
    """The features (D,) that a head would read of each readable picture of a folder, of any depth."""
    headless = without_head(model)
    for file in pictures_in(folder).files[:MOST]:
        try:
            image = preprocess(open_picture(file), card, card.size_for(model.config))
        except PictureError:
            continue
        yield headless(image.to(next(headless.parameters()))[None])[0]


def without_head(model: ViT) -> ViT:
    """The same model, sharing its weights, that gives features instead of logits."""
    if not model.config.num_classes:
        return model
    return build(*body_of(model), "This model")


def body_of(model: ViT) -> tuple[ViTConfig, dict[str, Tensor]]:
    """(config, tensors) of a model up to the features. DeiT's second class token, which has a head of its
    own, becomes the first of the registers."""
    body = {name: x for name, x in model.state_dict().items() if not name.startswith(("head.", "head_dist."))}
    config = replace(model.config, num_classes=0)
    if not config.distillation:
        return config, body
    others = [body.pop("reg_token")] if config.num_registers else []
    body["reg_token"] = body.pop("dist_token")
    if config.pos_embed_prefix:
        fold_positions(body, "reg_token", 1)
    body["reg_token"] = torch.cat([body["reg_token"], *others], dim=1)
    return replace(config, distillation=False, num_registers=config.num_registers + 1), body
