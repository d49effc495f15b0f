"""Figures of a trained model, on answers that are known."""

import pytest
import torch
import torch.nn.functional as F
from conftest import randomised, tiny_config

from vit import Card, ViT
from vit.data import Split
from vit.masked import Masked
from vit.pictures import normalize
from vit.report import calibration_error, confusion_matrix, measured, scale_of


def test_confusion_and_calibration_of_known_answers():
    logits = torch.tensor([[9.0, 0], [9, 0], [0, 9], [0, 9]])
    labels = torch.tensor([0, 1, 1, 1])
    assert confusion_matrix(logits, labels).tolist() == [[1, 0], [1, 2]]
    sure = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert calibration_error(sure, labels) == pytest.approx(0.25)  # says 100 %, is right in 75 %
    unsure = torch.full((4, 2), 0.5)
    assert calibration_error(unsure, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.0)


def test_the_scale_of_logits_is_the_one_with_the_smallest_loss():
    logits = torch.randn(400, 5)
    labels = torch.multinomial((2.5 * logits).softmax(dim=1), 1)[:, 0]
    scale = scale_of(logits, labels)
    below, least, above = (F.cross_entropy(s * scale * logits, labels) for s in (0.99, 1, 1.01))
    assert least < below and least < above and 2 < scale < 3
    assert scale_of(logits, logits.argmax(dim=1)) > 7.9  # always right: as sure as may be


def test_what_is_measured_without_labels_is_the_same_every_time_and_draws_nothing():
    """The patches that are hidden are those of seed 0; whoever measures goes on with the numbers they had."""
    network = randomised(Masked(ViT(tiny_config(num_classes=0)), 0.6))
    images = torch.randint(0, 256, (6, 3, 12, 20), dtype=torch.uint8)
    split, card = Split(images, torch.arange(6) % 2, ("a", "b")), Card("x")
    found = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(measured(network, split, card))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    torch.manual_seed(0)
    assert found[0]["test_loss"] == pytest.approx(network(normalize(images, card)).item())
    torch.manual_seed(1)
    assert found[0]["test_loss"] != pytest.approx(network(normalize(images, card)).item())
