"""How good a trained model is: accuracy, calibration, what it takes for what, and the card that says so.

N pictures, K classes.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vit.card import Card, check_channels
from vit.data import Split, load_split
from vit.library import load
from vit.masked import Masked
from vit.model import ViT
from vit.pictures import normalize


@torch.no_grad()
def predict(model: nn.Module, split: Split, card: Card, bf16: bool = False) -> Tensor:
    """Logits (N, K) for every picture of a split; the same numbers every time."""
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        batches = tqdm(split.images.split(128), "testing", unit=" batches", leave=False, disable=None)
        return torch.cat([model(normalize(batch.to(device), card)).float().cpu() for batch in batches])


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(accuracy, mean cross-entropy)"""
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


@torch.no_grad()
def measured(network: nn.Module, split: Split, card: Card, bf16: bool = False) -> dict[str, float]:
    """What a row of the curve says of a network: test_loss, and accuracy; where it learns without labels,
    nearest. The same numbers every time."""
    if not isinstance(network, Masked):
        accuracy, loss = score(predict(network, split, card, bf16), split.labels)
        return {"test_loss": loss, "accuracy": accuracy}
    nearest = nearest_alike(predict(network.encoder, split, card, bf16), split.labels)
    device, losses = next(network.parameters()).device, []
    with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        torch.manual_seed(0)  # the same patches are hidden every time
        for batch in split.images.split(128):
            losses += [network(normalize(batch.to(device), card)).item()] * len(batch)
    return {"test_loss": sum(losses) / len(losses), "nearest": nearest}


def nearest_alike(features: Tensor, labels: Tensor) -> float:
    """How often, of all others, the one whose features (N, D) are most like a picture's is of its class.

    That is what one nearest neighbour by cosine says: how far classes are apart before anyone names them."""
    x, right = F.normalize(features, dim=1), 0
    for some in torch.arange(len(x)).split(1000):
        alike = x[some] @ x.T  # (n, N)
        alike[torch.arange(len(some)), some] = -math.inf
        right += int((labels[alike.argmax(dim=1)] == labels[some]).sum())
    return right / len(x)


def scale_of(logits: Tensor, labels: Tensor) -> float:
    """By how much to multiply logits (N, K) for the smallest cross-entropy: the inverse of the temperature of
    Guo et al. 2017, section 4.2. Between 1/8 and 8; the cross-entropy has one minimum, found by halving."""
    low, high = -math.log(8), math.log(8)
    logits = logits.double()
    true = logits.gather(1, labels[:, None]).mean()
    for _ in range(40):
        scale = math.exp((low + high) / 2)
        slope = ((scale * logits).softmax(dim=1) * logits).sum(dim=1).mean() - true  # d loss / d scale
        low, high = (low, math.log(scale)) if slope > 0 else (math.log(scale), high)
    return math.exp((low + high) / 2)


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """(K, K) counts: row = what it is, column = what the model says."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over bins of confidence: 0 for a model that is right as often as it says.

    Expected calibration error of Guo et al. 2017, "On calibration of modern neural networks", eq. 3.
    """
    confidence, answer = probabilities.max(dim=1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins).index_add_(0, which, (answer == labels).float() - confidence)
    return (gap.abs().sum() / len(labels)).item()


@dataclass(frozen=True)
class Report:
    """How often a checkpoint is right about a test split."""

    card: Card
    accuracy: float  # in [0, 1]
    loss: float  # mean cross-entropy
    calibration: float  # expected calibration error
    confusion: Tensor  # (K, K) counts: row = what it is, column = what the model says


def evaluate(name: str, data: str, seed: int = 0, device: str | torch.device = "cpu") -> Report:
    """Measure a checkpoint on the test split of `data`. seed: of the generated pictures, for "shapes".

    Raises ValueError.
    """
    model, card = load(name)
    check_channels(model.config, name)
    if card.scores != "softmax":
        raise ValueError(
            f"{name} does not choose one class of a picture, so it is not right or wrong as such."
        )
    if not model.config.num_classes:
        raise ValueError(f"{name} has no classes, so it has no answers: train one with --init {name} first.")
    model = model.to(device)
    split = load_split(data, "test", card.size_for(model.config), card.crop_pct, card.interpolation, seed)
    if split.class_names != card.class_names:
        raise ValueError(f"{name} knows other classes than {data}: give the --data that it was trained on.")
    logits = predict(model, split, card)
    accuracy, loss = score(logits, split.labels)
    calibration = calibration_error(card.probabilities(logits), split.labels)
    return Report(card, accuracy, loss, calibration, confusion_matrix(logits, split.labels))


def model_card(card: Card, model: ViT, found: str, how: str) -> str:
    """README.md of a checkpoint, in the form that the Hugging Face Hub reads.

    found: what was measured of it. how: the run. Both in lines of a list.
    """
    config = model.config
    height, width = card.size_for(config)
    kind, patches = "image", f"patches of {config.patch_size} px"
    if config.is_clip:
        kind, patches = "video", f"{patches} and {config.tubelet} frames"
    task = "classification" if config.num_classes else "feature-extraction"
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    command = card.command.replace("\n", "\n    ")
    return f"""---
pipeline_tag: {kind}-{task}
tags: [vision-transformer, {kind}-{task}, interpretability]
---
# {card.name}

A plain Vision Transformer for {card.data}, trained by

    {command}

{found}
- {millions:.2f} M parameters: {config.depth} blocks of {config.num_heads} heads, width {config.embed_dim},
  {height} x {width} px in {patches}.
{how}

Classes: {", ".join(card.class_names) or "none yet"}.
"""
