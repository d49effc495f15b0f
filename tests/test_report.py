"""Figures of a trained model, on answers that are known."""

import pytest
import torch
import torch.nn.functional as F

from vit.report import calibration_error, confusion_matrix, scale_of


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
