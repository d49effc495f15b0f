"""What several test files need: small models, random traces, and the data sets where they are at hand."""

import os
from pathlib import Path

import pytest
import torch

from vit import ViT, ViTConfig

CI = os.environ.get("CI") == "true"
torch.set_num_threads(1)  # the models are tiny, and pytest-xdist keeps the cores busy


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny_config(**changes) -> ViTConfig:
    """3 layers, 4 heads, a 3 x 5 grid: small, not square, and nothing divides by accident."""
    shape = dict(image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=32, depth=3, num_heads=4)
    return ViTConfig(**shape | changes)


def randomised(model: ViT, std: float = 0.2) -> ViT:
    """The model with every parameter random, biases and gains too: zeros and ones hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return model.eval().requires_grad_(False)


@pytest.fixture
def tiny_vit() -> ViT:
    return randomised(ViT(tiny_config()))


def data_folder(name: str) -> Path:
    """VIT_DATA/name; a missing data set fails in CI and skips, with the reason, on a user's machine."""
    root = os.environ.get("VIT_DATA")
    folder = Path(root or ".") / name
    if root and folder.is_dir():
        return folder
    reason = f"set VIT_DATA to a folder that holds {name}/ to run this test"
    pytest.fail(reason) if CI else pytest.skip(reason)


@pytest.fixture
def cifar10_folder() -> Path:
    return data_folder("cifar10")


@pytest.fixture
def imagenette_folder() -> Path:
    return data_folder("imagenette")
